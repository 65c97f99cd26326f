"""The house style of a report's pictures: inks, one figure as SVG text, and data drawn beside samples.

Vector figures carry their inks as CSS variables, so that one picture serves light, dark and print. Data is blue
and samples orange throughout, a pair that colour-blind readers tell apart.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ._drawing import svg_text

DATA, SAMPLES, THIRD = "#3B82C4", "#E0762B", "#7A8794"
_INKS = {"#010203": "var(--ink)", "#040506": "var(--muted)", "#070809": "var(--rule)"}
INK, MUTED, _RULE = _INKS
# What a page says of its variables, for a file that stands alone.
_ALONE = {"var(--ink)": "#1F2933", "var(--muted)": "#52606D", "var(--rule)": "#CBD2D9", "var(--font)": "sans-serif"}
WIDTH = 4.6  # inches: a half-width column on a desk, the full width on a phone, the same text size on both
_STYLE = {
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": _RULE,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    **{"xtick.color": _RULE, "ytick.color": _RULE, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED},
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "nablax",
}


@contextmanager
def canvas(width: float = WIDTH, height: float = 2.8) -> Iterator[tuple[Any, Callable[[], str]]]:
    """One figure under the house style; the second thing yielded turns it into SVG text for a page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=200)
        yield figure, lambda: _svg(figure)


def _svg(figure: Any) -> str:
    text = svg_text(figure)
    for ink, variable in _INKS.items():
        text = text.replace(ink, variable)
    # The page's own font, however this version of matplotlib writes one.
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", text)
    return re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)


def standing_alone(picture: str) -> str:
    """A page's picture as a file of its own: its inks are named, on white."""
    for variable, ink in _ALONE.items():
        picture = picture.replace(variable, ink)
    opening, _, body = picture.partition(">")
    return f'{opening}><rect width="100%" height="100%" fill="#FFFFFF"/>{body}'


def histogram(axis: Any, data: np.ndarray, samples: np.ndarray) -> None:
    """Draw shares of one column, data filled and samples outlined, in common bins."""
    data, samples = (values[np.isfinite(values)] for values in (np.asarray(data, float), np.asarray(samples, float)))
    low, high = axis_limits(data, samples)
    edges = np.linspace(low, high, 25)
    known = np.unique(data)
    # Values on a grid get bins of whole grid steps: others would show a comb that is not in the data.
    if len(known) >= 2:
        step = float(np.diff(known).min())
        ticks = (known - known[0]) / step
        if step > (high - low) / 2000 and np.allclose(ticks, np.round(ticks), atol=1e-3):
            width = step * max(1, round((high - low) / step / 24))
            first = known[0] - step / 2 - width * np.ceil(max(0.0, known[0] - low) / width)
            edges = np.arange(first, high + width, width)
    for values, colour, fill in ((data, DATA, True), (samples, SAMPLES, False)):
        if len(values):
            heights = np.histogram(values, edges)[0] / len(values)
            axis.stairs(heights, edges, fill=fill, color=colour, alpha=0.45 if fill else 1.0, lw=1.5)
    axis.set_ylim(bottom=0)


def axis_limits(data: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """Range of the data a little widened, and of the samples but for their most extreme hundredth."""
    data, samples = (values[np.isfinite(values)] for values in (np.asarray(data, float), np.asarray(samples, float)))
    ends = [*([data.min(), data.max()] if len(data) else [])]
    ends += [*(np.quantile(samples, [0.005, 0.995]) if len(samples) else [])]
    low, high = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin
