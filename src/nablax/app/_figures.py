"""Pictures of a report: each function returns one figure as SVG text or PNG bytes, the same for the same input.

Vector figures carry their inks as CSS variables, so that one picture serves light, dark and print. Data is blue
and samples orange throughout, a pair that colour-blind readers tell apart.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._core import svg_text

DATA, SAMPLES, THIRD = "#3B82C4", "#E0762B", "#7A8794"
_INKS = {"#010203": "var(--ink)", "#040506": "var(--muted)", "#070809": "var(--rule)"}
_INK, _MUTED, _RULE = _INKS
_WIDTH = 4.6  # inches: a half-width column on a desk, the full width on a phone, the same text size on both
_STYLE = {
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _RULE,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    **{"xtick.color": _RULE, "ytick.color": _RULE, "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED},
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "nablax",
}


def drawn(images: np.ndarray, limits: tuple[float, float]) -> bool:
    """Whether grey images are ink on a blank ground: most pixels are exactly the lower limit."""
    return (images.ndim == 3 or images.shape[-1] == 1) and float(np.mean(images <= limits[0])) > 0.4


def image_grid(images: np.ndarray, *, limits: tuple[float, float], columns: int = 8, invert: bool = False) -> bytes:
    """Tile images into one PNG, every tile on the same scale.

    Args:
        images: ``[n, height, width]`` or ``[n, height, width, channels]`` with 1, 3 or 4 channels.
        limits: values shown as black and white.
        columns: tiles in a row.
        invert: swap black and white, for ink on paper.

    Returns:
        PNG with transparent gaps, enlarged by a whole number.
    """
    from PIL import Image

    pixels = np.asarray(images, np.float64)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    low, high = limits
    pixels = np.clip((pixels - low) / max(high - low, 1e-12), 0.0, 1.0)
    pixels = 1.0 - pixels if invert else pixels
    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    count, height, width = pixels.shape[:3]
    rows, gap = -(-count // columns), max(1, round(min(height, width) / 10))
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for index, tile in enumerate(pixels):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width, :3] = tile[..., :3]
        sheet[top : top + height, left : left + width, 3] = tile[..., 3] if tile.shape[-1] == 4 else 1.0
    scale = max(1, 900 // sheet.shape[1])
    picture = Image.fromarray(np.round(255 * sheet).astype(np.uint8), "RGBA")
    buffer = io.BytesIO()
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def pair_plot(data: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]) -> str:
    """Scatter every pair of the columns given, data and samples over each other, histograms on the diagonal.

    Args:
        data: numeric columns, two to about six.
        samples: the same columns of the samples.
    """
    names = list(data)
    size = len(names)
    with _figure(1.2 * size + 0.55, 1.12 * size + 0.45) as (figure, show):
        axes = figure.subplots(size, size, squeeze=False)
        for row, below in enumerate(names):
            limits_y = _limits(data[below], samples[below])
            for column, across in enumerate(names):
                axis = axes[row, column]
                if column > row:
                    axis.set_visible(False)
                    continue
                limits_x = _limits(data[across], samples[across])
                if row == column:
                    _histogram(axis, data[across], samples[across])
                    axis.set_yticks([])
                    axis.spines["left"].set_visible(False)
                else:
                    points = np.concatenate(
                        [np.stack([source[across], source[below]], axis=1) for source in (data, samples)]
                    )
                    colours = np.repeat([DATA, SAMPLES], [len(data[across]), len(samples[across])])
                    # In random order: a colour drawn last would hide the other.
                    order = np.random.default_rng(0).permutation(len(points))
                    axis.scatter(*points[order].T, s=7, color=list(colours[order]), alpha=0.55, lw=0, rasterized=True)
                    axis.set_ylim(limits_y)
                axis.set_xlim(limits_x)
                axis.tick_params(labelsize=7.5)
                axis.locator_params(axis="x", nbins=3)
                if row == size - 1:
                    axis.set_xlabel(_short(across, 17))
                else:
                    axis.tick_params(labelbottom=False)
                if column == 0 and row > 0:
                    axis.locator_params(axis="y", nbins=3)
                    axis.set_ylabel(_short(below, 17))
                else:
                    axis.tick_params(labelleft=False)
        figure.align_labels()
        width, height = figure.get_size_inches()
        figure.subplots_adjust(0.55 / width, 0.45 / height, 0.99, 0.99, wspace=0.12, hspace=0.12)
        return show()


def marginal(data: np.ndarray, samples: np.ndarray) -> str:
    """Draw one column in data and samples: a histogram, or bars for categories."""
    with _figure(2.5, 1.5) as (figure, show):
        axis = figure.subplots()
        if numeric(data):
            _histogram(axis, data, samples)
        else:
            shares = category_shares(data, samples)
            names = list(shares)[:8]
            place = np.arange(len(names))
            axis.bar(place - 0.2, [shares[name][0] for name in names], 0.38, color=DATA)
            axis.bar(place + 0.2, [shares[name][1] for name in names], 0.38, color=SAMPLES)
            axis.set_xticks(place, [_short(name, max(3, 28 // len(names))) for name in names])
            axis.tick_params(axis="x", length=0)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.tick_params(labelsize=8)
        figure.subplots_adjust(left=0.04, right=0.96, top=0.97, bottom=0.19)
        return show()


def correlation(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Draw a correlation matrix: violet is negative, green positive, paper zero."""
    from matplotlib.colors import LinearSegmentedColormap

    violet, green = "#7B4BA8", "#2F8F5B"
    shades = LinearSegmentedColormap.from_list(
        "signed", [(0.0, violet), (0.5, violet + "00"), (0.5, green + "00"), (1.0, green)]
    )
    with _figure(3.0, 3.0) as (figure, show):
        axis = figure.subplots()
        axis.imshow(matrix, vmin=-1, vmax=1, cmap=shades, interpolation="nearest")
        axis.spines[["top", "right"]].set_visible(True)
        axis.tick_params(length=0, labelsize=7.5)
        shown = [_short(name, 13) for name in names] if len(names) <= 12 else []
        axis.set_xticks(range(len(shown)), shown, rotation=90)
        axis.set_yticks(range(len(shown)), shown)
        if len(names) <= 7:
            for (row, column), value in np.ndenumerate(matrix):
                if np.isfinite(value):
                    # Adding zero turns a rounded -0.0 into 0.0.
                    text = f"{round(float(value), 2) + 0.0:.2f}"
                    axis.text(column, row, text, ha="center", va="center", fontsize=7.5)
        figure.subplots_adjust(left=0.31, right=0.99, top=0.99, bottom=0.31)
        return show()


def training_curve(
    step: np.ndarray, loss: np.ndarray, validation_step: np.ndarray, validation: np.ndarray, best_step: int | None
) -> str:
    """Draw the loss (faint as it came, firm when smoothed) and the validation loss, the best step marked."""
    with _figure() as (figure, show):
        axis = figure.subplots()
        axis.plot(step, loss, color=THIRD, lw=0.6, alpha=0.45, rasterized=len(step) > 2000)
        axis.plot(step, smooth(loss), color=THIRD, label="training")
        if len(validation):
            axis.plot(validation_step, validation, color=DATA, label="validation", marker=".", ms=3.5, lw=1.2)
        # The first steps fall from far above; what matters is seen by scaling to the rest.
        settled = 0.1 * step[-1] if len(step) else 0.0
        seen = np.concatenate([smooth(loss)[step >= settled], validation[validation_step >= settled]])
        if len(seen := seen[np.isfinite(seen)]):
            span = max(float(np.ptp(seen)), 1e-9)
            axis.set_ylim(seen.min() - 0.15 * span, seen.max() + 0.2 * span)
        if best_step is not None:
            axis.axvline(best_step, color=_MUTED, lw=0.9, ls=(0, (3, 2)))
            axis.annotate(
                f" best, step {best_step:,}",
                (best_step, 0.97),
                xycoords=("data", "axes fraction"),
                va="top",
                ha="right" if len(step) and best_step > 0.6 * step[-1] else "left",
                fontsize=8.5,
                color=_MUTED,
            )
        axis.grid(axis="y")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.16))
        figure.subplots_adjust(left=0.14, right=0.97, top=0.88, bottom=0.16)
        return show()


def likelihoods(names: Sequence[str], means: Sequence[float], errors: Sequence[float], unit: str) -> str:
    """Draw held-out scores with whiskers of two standard errors; the first name is the model."""
    with _figure(_WIDTH, 0.62 * len(names) + 0.85) as (figure, show):
        axis = figure.subplots()
        place = np.arange(len(names))[::-1]
        whisker = 2 * np.nan_to_num(np.asarray(errors))
        edges = np.concatenate([np.asarray(means) - whisker, np.asarray(means) + whisker])
        span = max(float(np.ptp(edges)), 1e-3)
        # Points, not bars: a log-density has no natural zero for a bar to start from.
        for index, (y, mean, error) in enumerate(zip(place, means, whisker)):
            colour = SAMPLES if index == 0 else THIRD
            axis.errorbar(mean, y, xerr=error, fmt="o", color=colour, ms=8, lw=2, capsize=4)
            label = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
            axis.annotate(f"{mean:.2f}", (mean, y), fontsize=9, **label)
        axis.set_yticks(place, names)
        axis.tick_params(axis="y", length=0, labelcolor=_INK)
        axis.set_xlim(edges.min() - 0.12 * span, edges.max() + 0.12 * span)
        axis.set_ylim(-0.5, len(names) - 0.3)
        axis.locator_params(axis="x", nbins=5)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        axis.set_xlabel(f"{unit} ({'← better' if unit.startswith('bits') else 'better →'})")
        figure.subplots_adjust(left=0.27, right=0.98, top=0.97, bottom=0.47 / (0.62 * len(names) + 0.85))
        return show()


def permutation_null(null: np.ndarray, statistic: float) -> str:
    """Draw the energy distance beside what relabelling gives."""
    with _figure(_WIDTH, 2.3) as (figure, show):
        axis = figure.subplots()
        axis.hist(null, bins=30, color=THIRD, alpha=0.75, label="if they were one distribution")
        axis.axvline(statistic, color=SAMPLES, lw=2.2, label="held-out rows and samples")
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("energy distance")
        axis.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.22), columnspacing=1.2, handlelength=1.4)
        figure.subplots_adjust(left=0.04, right=0.97, top=0.84, bottom=0.2)
        return show()


def accuracy_scale(accuracy: float, error: float, caution: float, bad: float) -> str:
    """Draw where the classifier stands between chance and certainty."""
    with _figure(_WIDTH, 1.15) as (figure, show):
        axis = figure.subplots()
        for left, right, alpha, name in (
            (0.5, caution, 0.12, "hard to tell"),
            (caution, bad, 0.3, "tellable"),
            (bad, 1.0, 0.55, "easy to tell"),
        ):
            axis.barh(0, right - left, 1.0, left=left, color=THIRD, alpha=alpha, lw=0)
            axis.text((left + right) / 2, 0.65, name, ha="center", va="bottom", fontsize=8, color=_MUTED)
        axis.errorbar(max(accuracy, 0.5), 0, xerr=2 * error, fmt="o", color=SAMPLES, ms=8, lw=2, capsize=3)
        axis.set_xlim(0.485, 1.0)
        axis.set_ylim(-0.5, 1.3)
        axis.set_yticks([])
        axis.set_xticks([0.5, caution, bad, 1.0], [f"{tick:.0%}" for tick in (0.5, caution, bad, 1.0)])
        axis.tick_params(length=0)
        axis.spines[["left", "bottom"]].set_visible(False)
        figure.subplots_adjust(left=0.03, right=0.95, top=0.97, bottom=0.2)
        return show()


def distances(held_out: np.ndarray, samples: np.ndarray, threshold: float) -> str:
    """Draw distances to the nearest training row: fresh real rows and samples."""
    with _figure(_WIDTH, 2.5) as (figure, show):
        axis = figure.subplots()
        _histogram(axis, held_out, samples)
        axis.axvline(threshold, color=_MUTED, lw=0.9, ls=(0, (3, 2)))
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("distance to the nearest training row (standard deviations)")
        figure.subplots_adjust(left=0.04, right=0.97, top=0.97, bottom=0.2)
        return show()


def solver_curve(evaluations: np.ndarray, error: np.ndarray, chosen: int | None, unit: str) -> str:
    """Draw the error of sampling against the field evaluations spent, both on logarithmic axes."""
    with _figure(_WIDTH, 2.6) as (figure, show):
        axis = figure.subplots()
        axis.loglog(evaluations, np.maximum(error, 1e-12), color=SAMPLES, marker="o", ms=4)
        axis.set_xticks(evaluations, [str(int(count)) for count in evaluations])
        axis.minorticks_off()
        if chosen is not None:
            axis.axvline(chosen, color=_MUTED, lw=0.9, ls=(0, (3, 2)), label=f"used here: {chosen} evaluations")
            axis.legend(loc="upper right")
        axis.grid()
        axis.set_xlabel("field evaluations for one sample")
        axis.set_ylabel(f"error ({unit})")
        figure.subplots_adjust(left=0.17, right=0.97, top=0.97, bottom=0.19)
        return show()


def conservativity(times: np.ndarray, ratio: np.ndarray, error: np.ndarray) -> str:
    """Draw the antisymmetric share of the Jacobian along t, with a band of two standard errors."""
    with _figure(_WIDTH, 2.5) as (figure, show):
        axis = figure.subplots()
        band = 2 * np.nan_to_num(error)
        axis.fill_between(times, np.maximum(ratio - band, 0), ratio + band, color=DATA, alpha=0.25, lw=0)
        axis.plot(times, ratio, color=DATA, marker="o", ms=4)
        axis.set_ylim(0, max(1.15 * float(np.nanmax(ratio + band)), 1e-6))
        axis.set_xlim(-0.02, 1.02)
        axis.grid(axis="y")
        axis.set_xlabel("time t (noise at 0, data at 1)")
        axis.set_ylabel("antisymmetric share")
        figure.subplots_adjust(left=0.15, right=0.97, top=0.97, bottom=0.19)
        return show()


def numeric(values: np.ndarray) -> bool:
    """Whether a column holds numbers (missing ones NaN); anything else is a category."""
    return bool(np.issubdtype(np.asarray(values).dtype, np.number))


def category_shares(data: np.ndarray, samples: np.ndarray) -> dict[str, tuple[float, float]]:
    """Share of each category in data and in samples, the most frequent first, missing cells by name."""
    left, right = (["missing" if cell is None else str(cell) for cell in column] for column in (data, samples))
    shares = {
        name: (left.count(name) / max(1, len(left)), right.count(name) / max(1, len(right))) for name in {*left, *right}
    }
    return dict(sorted(shares.items(), key=lambda item: (-item[1][0], -item[1][1], item[0])))


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a window of a twenty-fifth of the curve, shortened at the ends."""
    from scipy.ndimage import uniform_filter1d

    values = np.asarray(values, np.float64)
    return uniform_filter1d(values, max(1, len(values) // 25), mode="nearest") if len(values) else values


def _histogram(axis: Any, data: np.ndarray, samples: np.ndarray) -> None:
    data, samples = (values[np.isfinite(values)] for values in (np.asarray(data, float), np.asarray(samples, float)))
    low, high = _limits(data, samples)
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


def _limits(data: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """Range of the data a little widened, and of the samples but for their most extreme hundredth."""
    data, samples = (values[np.isfinite(values)] for values in (np.asarray(data, float), np.asarray(samples, float)))
    ends = [*([data.min(), data.max()] if len(data) else [])]
    ends += [*(np.quantile(samples, [0.005, 0.995]) if len(samples) else [])]
    low, high = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


@contextmanager
def _figure(width: float = _WIDTH, height: float = 2.8) -> Iterator[tuple[Any, Callable[[], str]]]:
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
    return re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", text)
