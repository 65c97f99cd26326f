"""Figures and pages of every report, in one style. Private; what draws needs the extra ``app``."""

from ._cards import Card, Cell, Table, figure
from ._data_figures import (
    category_shares,
    correlation,
    draw_pairs,
    drawn,
    image_grid,
    marginal,
    numeric,
    pair_plot,
    pairs_size,
    scatter,
)
from ._drawing import short, svg_text
from ._figures import Series, heat, plot
from ._page import markup, render
from ._style import DATA, INK, MUTED, SAMPLES, THIRD, WIDTH, axis_limits, canvas, histogram, standing_alone

__all__ = [
    "DATA",
    "INK",
    "MUTED",
    "SAMPLES",
    "THIRD",
    "WIDTH",
    "Card",
    "Cell",
    "Series",
    "Table",
    "axis_limits",
    "canvas",
    "category_shares",
    "correlation",
    "draw_pairs",
    "drawn",
    "figure",
    "heat",
    "histogram",
    "image_grid",
    "marginal",
    "markup",
    "numeric",
    "pair_plot",
    "pairs_size",
    "plot",
    "render",
    "scatter",
    "short",
    "standing_alone",
    "svg_text",
]
