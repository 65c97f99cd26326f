"""Figures and pages of every report, in one style. Private; what draws needs the extra ``app``."""

from ._data_figures import category_shares, correlation, drawn, image_grid, marginal, numeric, pair_plot
from ._drawing import short, svg_text
from ._figures import Series, heat, plot
from ._page import markup, render
from ._style import DATA, INK, MUTED, SAMPLES, THIRD, WIDTH, canvas, histogram

__all__ = [
    "DATA",
    "INK",
    "MUTED",
    "SAMPLES",
    "THIRD",
    "WIDTH",
    "Series",
    "canvas",
    "category_shares",
    "correlation",
    "drawn",
    "heat",
    "histogram",
    "image_grid",
    "marginal",
    "markup",
    "numeric",
    "pair_plot",
    "plot",
    "render",
    "short",
    "svg_text",
]
