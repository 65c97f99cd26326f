"""Pictures of data beside samples, as SVG text or PNG bytes, the same for the same input."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ._drawing import short, width
from ._style import (
    DATA,
    SAMPLES,
    axis_limits,
    canvas,
    histogram,
)
from ._ticks import readable_ticks

_CATEGORIES = 8  # shown of a column
_ACROSS = 26  # letters that fit under a column's picture


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


def pair_plot(data: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray], dates: Collection[str] = ()) -> str:
    """Scatter every pair of the columns given, data and samples over each other, histograms on the diagonal.

    Args:
        data: numeric columns, two to about six.
        samples: the same columns of the samples.
        dates: names of the columns that hold days since 1970.
    """
    with canvas(*pairs_size(len(data))) as (figure, show):
        draw_pairs(figure, data, samples, dates)
        return show()


def pairs_size(columns: int) -> tuple[float, float]:
    """Width and height in inches of the picture of so many columns."""
    return 1.2 * columns + 0.55, 1.12 * columns + 0.45


def draw_pairs(
    figure: Any,
    data: Mapping[str, np.ndarray],
    samples: Mapping[str, np.ndarray],
    dates: Collection[str] = (),
) -> None:
    """Fill a matplotlib figure with what `pair_plot` shows; ``data`` may hold columns without rows."""
    names = list(data)
    size = len(names)
    axes = figure.subplots(size, size, squeeze=False)
    for row, below in enumerate(names):
        limits_y = axis_limits(data[below], samples[below])
        for column, across in enumerate(names):
            axis = axes[row, column]
            if column > row:
                axis.set_visible(False)
                continue
            limits_x = axis_limits(data[across], samples[across])
            if row == column:
                histogram(axis, data[across], samples[across])
                axis.set_yticks([])
                axis.spines["left"].set_visible(False)
            else:
                scatter(axis, *(np.stack([source[across], source[below]], axis=1) for source in (data, samples)))
                axis.set_ylim(limits_y)
            axis.set_xlim(limits_x)
            axis.tick_params(labelsize=7.5)
            values = data if len(data[across]) else samples
            readable_ticks(axis.xaxis, np.asarray(values[across], float), count=3, room=12, dates=across in dates)
            if row == size - 1:
                axis.set_xlabel(short(across, 17))
            else:
                axis.tick_params(labelbottom=False)
            if column == 0 and row > 0:
                values = data if len(data[below]) else samples
                readable_ticks(axis.yaxis, np.asarray(values[below], float), count=3, dates=below in dates)
                axis.set_ylabel(short(below, 17))
            else:
                axis.tick_params(labelleft=False)
    figure.align_labels()
    width, height = figure.get_size_inches()
    figure.subplots_adjust(0.55 / width, 0.45 / height, 0.99, 0.99, wspace=0.12, hspace=0.12)


def scatter(axis: Any, data: np.ndarray, samples: np.ndarray) -> None:
    """Draw points [rows, 2] of data and of samples over each other."""
    points = np.concatenate([data, samples])
    colours = np.repeat([DATA, SAMPLES], [len(data), len(samples)])
    # In random order: a colour drawn last would hide the other.
    order = np.random.default_rng(0).permutation(len(points))
    axis.scatter(*points[order].T, s=7, color=list(colours[order]), alpha=0.55, lw=0, rasterized=True)


def marginal(data: np.ndarray, samples: np.ndarray, *, dates: bool = False) -> str:
    """Draw one column in data and samples: a histogram, or bars for categories.

    Args:
        data: the column.
        samples: the same of the samples.
        dates: it holds days since 1970.
    """
    with canvas(2.5, 1.5) as (figure, show):
        axis = figure.subplots()
        axis.tick_params(labelsize=8)
        left = 0.04
        if numeric(data):
            histogram(axis, data, samples)
            readable_ticks(axis.xaxis, np.asarray(data, float), count=4, room=30, dates=dates)
            axis.set_yticks([])
        else:
            left = _bars(axis, category_shares(data, samples))
        axis.spines["left"].set_visible(False)
        figure.subplots_adjust(left=left, right=0.96, top=0.97, bottom=0.19)
        return show()


def _bars(axis: Any, shares: Mapping[str, tuple[float, float]]) -> float:
    """Bars of the commonest categories, upright where their names fit beneath; the picture's left margin."""
    names = list(shares)[:_CATEGORIES]
    place = np.arange(len(names))
    data, samples = np.array([shares[name] for name in names]).reshape(-1, 2).T
    room = _ACROSS // max(1, len(names))
    if max(map(width, names), default=0) <= room:
        axis.bar(place - 0.2, data, 0.38, color=DATA)
        axis.bar(place + 0.2, samples, 0.38, color=SAMPLES)
        axis.set_xticks(place, [short(name, room) for name in names])
        axis.set_yticks([])
        axis.tick_params(axis="x", length=0)
        return 0.04
    axis.barh(place - 0.2, data, 0.38, color=DATA)
    axis.barh(place + 0.2, samples, 0.38, color=SAMPLES)
    axis.invert_yaxis()
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.set_yticks(place, [short(name, 16) for name in names])
    axis.tick_params(axis="y", length=0, labelsize=min(8.0, 56.0 / len(names)))
    return 0.43


def correlation(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Draw a correlation matrix: violet is negative, green positive, paper zero."""
    from matplotlib.colors import LinearSegmentedColormap

    violet, green = "#7B4BA8", "#2F8F5B"
    shades = LinearSegmentedColormap.from_list(
        "signed", [(0.0, violet), (0.5, violet + "00"), (0.5, green + "00"), (1.0, green)]
    )
    with canvas(3.0, 3.0) as (figure, show):
        axis = figure.subplots()
        axis.imshow(matrix, vmin=-1, vmax=1, cmap=shades, interpolation="nearest")
        axis.spines[["top", "right"]].set_visible(True)
        axis.tick_params(length=0, labelsize=7.5)
        shown = [short(name, 13) for name in names] if len(names) <= 12 else []
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
