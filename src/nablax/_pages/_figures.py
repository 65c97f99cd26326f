"""Small pictures of a check-up as SVG text, for pages that open offline."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .._core import require
from ._drawing import short, svg_text

COLOURS = ("#2f5d9b", "#c2571a", "#3c8a4e", "#8a4f9e", "#777777", "#b8902f")
MARK = "#b3261e"
STYLE = {
    "font.size": 9.0,
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": "#333333",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#eeeeee",
    "grid.linewidth": 0.8,
    **{
        "xtick.color": "#bbbbbb",
        "ytick.color": "#bbbbbb",
        "xtick.labelcolor": "#555555",
        "ytick.labelcolor": "#555555",
    },
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "nablax",
}


class Series(NamedTuple):
    """One curve or set of points.

    Attributes:
        name: for the legend; empty for none.
        x: places.
        y: values; those that are not finite are left out.
        style: "line", "both" (points on a line) or "stems".
        band: half-widths of a band round the curve, or None.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    style: str = "line"
    band: Sequence[float] | np.ndarray | None = None


def plot(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    vertical: Sequence[tuple[float, str]] = (),
    horizontal: Sequence[tuple[float, str]] = (),
    y_range: tuple[float, float] | None = None,
    x_symlog: float | None = None,
) -> str:
    """Draw curves; vertical and horizontal lines carry a label.

    ``x_symlog`` makes the x axis linear within that distance of zero and logarithmic beyond it.
    """
    with _figure() as (figure, text):
        axis = figure.subplots()
        if x_symlog:
            # At a power of ten, below which no ticks crowd round zero.
            axis.set_xscale("symlog", linthresh=10.0 ** np.ceil(np.log10(x_symlog)))
        elif log_x:
            axis.set_xscale("log")
        log_y = log_y and any(np.any(np.asarray(one.y, float) > 0) for one in series)
        if log_y:
            axis.set_yscale("log")
        for one, colour in zip(series, COLOURS):
            _draw(axis, one, colour, log_y)
        for x, _ in vertical:
            axis.axvline(x, color=MARK, lw=1, ls="--")
        for y, label in horizontal:
            axis.axhline(y, color=MARK, lw=1, ls="--")
            axis.annotate(
                label,
                (0.01, y),
                xycoords=axis.get_yaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                color=MARK,
            )
        if y_range is not None:
            axis.set_ylim(*y_range)
        if all(np.all(np.mod(one.x, 1) == 0) for one in series) and not (log_x or x_symlog):
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set(xlabel=x_label, ylabel=y_label)
        for row, (x, label) in enumerate(vertical):
            inside = axis.transAxes.inverted().transform(axis.transData.transform((x, axis.get_ylim()[1])))[0]
            # Words lean away from the nearer edge.
            side, anchor = (-4, "right") if inside > 0.5 else (4, "left")
            axis.annotate(
                label,
                (x, 0.97 - 0.09 * row),
                xycoords=axis.get_xaxis_transform(),
                xytext=(side, 0),
                textcoords="offset points",
                ha=anchor,
                va="top",
                color=MARK,
                bbox={"facecolor": "w", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
        if sum(bool(one.name) for one in series) > 1:
            figure.legend(loc="outside lower center", ncols=3)
        return text()


def _draw(axis: Any, one: Series, colour: str, log_y: bool) -> None:
    x, y = np.asarray(one.x, float), np.asarray(one.y, float)
    kept = np.isfinite(x) & np.isfinite(y)
    if one.band is not None:
        band = np.asarray(one.band, float)
        wide = kept & np.isfinite(band) & ((y - band > 0) | (not log_y))
        axis.fill_between(x[wide], (y - band)[wide], (y + band)[wide], color=colour, alpha=0.15, lw=0)
    x, y = x[kept], y[kept]
    if one.style == "stems":
        axis.vlines(x, min(y.min(initial=np.inf) / 3, 1e-3) if log_y else 0, y, color=colour, lw=2)
    dots = "" if one.style == "line" else "o"
    axis.plot(x, y, marker=dots, ls="" if one.style == "stems" else "-", color=colour, label=one.name or None)


def heat(values: np.ndarray, names: Sequence[str]) -> str:
    """A square table of numbers between -1 and 1, coloured."""
    with _figure(height=0.5 + 0.7 * len(names)) as (figure, text):
        axis = figure.subplots()
        axis.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
        axis.grid(visible=False)
        axis.set_xticks(range(len(names)), [short(name, 12) for name in names])
        axis.set_yticks(range(len(names)), [short(name, 17) for name in names])
        for (i, j), value in np.ndenumerate(values):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if abs(value) > 0.55 else "#222222")
        return text()


@contextmanager
def _figure(height: float = 2.6) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A figure, and what turns it into SVG text."""
    require("matplotlib", extra="app")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.8, height), layout="constrained")
        yield figure, lambda: svg_text(figure)
