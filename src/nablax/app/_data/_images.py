"""Images to points and back, the likelihood in units of integer pixel levels."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float

from ..._core import Key
from .._errors import UserError
from .._kinds._kind import AbstractKind
from .._kinds._registry import kind_from_json
from ._cells import (
    block_size,
    condition_vector,
    decode_conditions,
    encode_conditions,
)
from ._columns import choose_columns
from ._histogram import Histogram, count_levels

if TYPE_CHECKING:
    from ._sources import Source


# Counting levels pays where they are few and the rows many: then a histogram is a better map than a line.
_FEW_LEVELS = 32
_ROWS_A_LEVEL = 20
_MOST_COUNTS = 65_536


@dataclasses.dataclass(frozen=True)
class ImageCodec:
    """How images become arrays and come back; the same face as ``Codec``.

    A pixel i of L levels becomes y = 2 (i + u) / L - 1 with u uniform on [0, 1), so that
    log P(image) >= E[log p(y)] + D log(2 / L); a float pixel x becomes y = 2 (x - low) / (high - low) - 1, and the
    density is with respect to its own unit. Constant pixels are fine.

    Attributes:
        shape: (height, width, channels).
        dtype: NumPy's name of the pixels' type.
        levels: number of values of a whole-numbered pixel; 0 for floats.
        low: least pixel.
        high: greatest pixel.
        conditioned: the condition columns.
        notices: what was left aside.
        histogram: of each pixel, by which few levels are made normal; None for the affine map above.

    References:
        Theis, van den Oord & Bethge, "A note on the evaluation of generative models" (2016).
    """

    shape: tuple[int, int, int]
    dtype: str
    levels: int
    low: float
    high: float
    conditioned: tuple[AbstractKind, ...] = ()
    notices: tuple[str, ...] = ()
    histogram: Histogram | None = None

    @property
    def dim(self) -> int:
        """Pixels times channels."""
        return math.prod(self.shape)

    @property
    def cells(self) -> int:
        """What bits per dimension are divided by: ``dim``."""
        return self.dim

    @property
    def condition(self) -> tuple[str, ...]:
        """Names of the condition columns."""
        return tuple(column.name for column in self.conditioned)

    @functools.cached_property
    def columns(self) -> tuple[AbstractKind, ...]:
        """The condition columns; the image itself is no column of cells."""
        return self.conditioned

    @property
    def condition_dim(self) -> int:
        """Length of the condition vector; 0 without conditions."""
        return sum(block_size(column) for column in self.conditioned)

    @property
    def noisy(self) -> bool:
        """Whether ``dequantise`` draws noise: whole-numbered pixels only."""
        return self.levels > 0

    @property
    def margin(self) -> float:
        """What the noise keeps off a level's edges, so that float32 cannot round a pixel into the next level."""
        return self.levels * 2.0**-22

    def encode(self, frame: pl.DataFrame, *, holes: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Encode images of the training images' shape.

        Args:
            frame: a column ``image``, and the condition columns where there are any.
            holes: for the same face as ``Codec``; pixels are never missing.

        Returns:
            base [n, height, width, channels] (bytes where the levels allow, else float32) and condition float32
            [n, condition_dim].

        Raises:
            UserError: no images, of another shape, or outside the range of levels.
        """
        dtype = frame.schema.get("image")
        if not isinstance(dtype, pl.Array):
            raise UserError("the model was learnt from images, and these data are none")
        if tuple(dtype.shape) != self.shape:
            raise UserError(f"the images are {_by(dtype.shape)}, the model's are {_by(self.shape)}")
        pixels = frame["image"].to_numpy()
        if self.levels:
            # Which of the levels a fraction of a level meant is not known, nor what a brighter pixel means.
            if len(pixels) and (pixels.min() < 0 or pixels.max() >= self.levels or np.any(pixels % 1)):
                raise UserError(f"pixels must be whole numbers from 0 to {self.levels - 1}, as in training")
            base = pixels.astype(np.uint8 if self.levels <= 256 else np.float32)
        else:
            base = (2.0 * (pixels.astype(np.float64) - self.low) / (self.high - self.low) - 1.0).astype(np.float32)
        return base, encode_conditions(self.conditioned, frame)

    def encode_condition(self, values: Mapping[str, object], n: int) -> np.ndarray:
        """The condition vector for n equal rows; conditions that are not named are null (all zeros)."""
        return condition_vector(self.conditioned, values, n)

    def dequantise(
        self, base: Array, key: Key, *, to_fill: bool = False
    ) -> tuple[Float[Array, "n height width channels"], Float[Array, " n"]]:
        """Draw y and the correction c with log p(image) >= E[log p(y) + c]; pure JAX, fit for jit.

        Args:
            base: encoded images.
            key: for the noise.
            to_fill: for the same face as ``Codec``; pixels are never missing.

        Returns:
            y, about within [-1, 1], and c [n] in nats an image: dim · log(2 / levels), less what
            the noise gives up at the edges of a level (10⁻⁴ a pixel at 256 levels).
        """
        if self.histogram is not None:
            flat = jnp.asarray(base, jnp.int32).reshape(len(base), -1)
            normal, terms = self.histogram.spread(flat, key)
            return normal.reshape(-1, *self.shape), terms
        y = jnp.asarray(base, jnp.float32)
        if self.levels:
            noise = jax.random.uniform(key, y.shape, y.dtype)
            noise = self.margin + (1.0 - 2.0 * self.margin) * noise
            y = (y + noise) * (2.0 / self.levels) - 1.0
        correction = math.log(2.0 / (self.levels or self.high - self.low)) + math.log(1.0 - 2.0 * self.margin)
        return y, jnp.full(y.shape[:1], self.dim * correction, y.dtype)

    def observed(self, base: np.ndarray) -> np.ndarray:
        """Which coordinates are known: NaN marks the unknown, so all of a byte image."""
        return ~np.isnan(np.asarray(base, np.float32))

    def impossible(self, base: np.ndarray) -> np.ndarray:
        """None of the images [n]: pixels out of range are refused."""
        return np.zeros(len(base), bool)

    def decode(self, y: Array | np.ndarray, condition: np.ndarray | None = None) -> pl.DataFrame:
        """Points back to images of the training images' type, within the observed range.

        Args:
            y: [n, height, width, channels].
            condition: the condition vectors; without them the condition columns are left out.

        Returns:
            Columns ``image`` and the conditions.
        """
        if self.histogram is not None:
            flat = np.asarray(y, np.float64).reshape(-1, self.dim)
            pixels = self.histogram.levels_of(flat).reshape(-1, *self.shape)
        else:
            pixels = np.floor(self._pixels(y)) if self.levels else self._pixels(y)
        pixels = np.clip(pixels, self.low, self.high).astype(np.dtype(self.dtype))
        frame = pl.DataFrame({"image": np.ascontiguousarray(pixels)})
        return frame if condition is None else frame.with_columns(decode_conditions(self.conditioned, condition))

    def spell(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The cells themselves."""
        return frame

    def out_of_range(self, y: Array | np.ndarray) -> dict[str, float]:
        """The fraction of pixels that ``decode`` clips to the observed range."""
        if self.histogram is not None:
            return {"image": 0.0}  # every point has a level
        pixels, top = self._pixels(y), self.high + (1.0 if self.levels else 0.0)
        return {"image": float(np.mean((pixels < self.low) | (pixels > top)))}

    def _pixels(self, y: Array | np.ndarray) -> np.ndarray:
        unit = 0.5 * (np.asarray(y, np.float64).reshape(-1, *self.shape) + 1.0)
        return unit * self.levels if self.levels else self.low + unit * (self.high - self.low)

    def to_json(self) -> str:
        """The codec as JSON text."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {"conditioned": [kind.to_json() for kind in self.conditioned]}
        fields["histogram"] = None if self.histogram is None else dataclasses.asdict(self.histogram)
        return json.dumps({"kind": "images", **fields})

    @staticmethod
    def from_json(text: str) -> "ImageCodec":
        """Undo ``to_json``."""
        fields = json.loads(text)
        del fields["kind"]
        conditioned = tuple(kind_from_json(column) for column in fields.pop("conditioned"))
        counts = fields.pop("histogram")
        histogram = None if counts is None else Histogram(tuple(tuple(row) for row in counts["counts"]))
        shape, notices = tuple(fields.pop("shape")), tuple(fields.pop("notices"))
        return ImageCodec(shape=shape, conditioned=conditioned, notices=notices, histogram=histogram, **fields)


@dataclasses.dataclass
class PixelSummary:
    """The range of the pixels, batch by batch, and the codec that follows from it."""

    low: float = np.inf
    high: float = -np.inf
    shape: tuple[int, ...] = ()
    dtype: np.dtype = dataclasses.field(default_factory=lambda: np.dtype(np.uint8))

    def add(self, frame: pl.DataFrame) -> None:
        """Take in the next batch of images."""
        pixels = frame["image"].to_numpy()
        self.shape, self.dtype = pixels.shape[1:], pixels.dtype
        self.low, self.high = min(self.low, float(pixels.min())), max(self.high, float(pixels.max()))

    def codec(self, levels: int | None, conditioned: tuple[AbstractKind, ...], notices: tuple[str, ...]) -> ImageCodec:
        """Choose the number of levels where it is not given: 256 for bytes that use them, else the greatest + 1.

        Args:
            levels: number of values of a pixel, where known.
            conditioned: the condition columns.
            notices: to be passed on.

        Returns:
            The codec.

        Raises:
            UserError: all pixels of all images are equal, or negative or large whole numbers.
        """
        height, width, channels = self.shape
        if self.low == self.high:
            raise UserError(f"all pixels of all images are equal ({self.low:g})")
        if self.dtype.kind == "f":
            levels = 0
        elif self.low < 0 or self.high > 65_535:
            raise UserError(
                f"whole-numbered pixels must lie within 0 and 65535; these reach {self.low:g}, {self.high:g}"
            )
        elif levels is None:
            levels = 256 if self.dtype == np.uint8 and self.high > 63 else int(self.high) + 1
        return ImageCodec((height, width, channels), self.dtype.name, levels, self.low, self.high, conditioned, notices)


def fit_image_codec(
    source: "Source", *, condition: Sequence[str] = (), training: np.ndarray | None = None
) -> ImageCodec:
    """Look at every image once and choose how the pixels, and what conditions them, are encoded.

    Args:
        source: images.
        condition: names of the columns that condition the model.
        training: positions of the training rows. Where they are given and each of few levels can be counted in them,
            pixels are made normal by their histograms.

    Returns:
        The codec.

    Raises:
        UserError: the pixels are all equal or out of range, or a condition cannot be used.
    """
    if "image" in condition:
        raise UserError("the images themselves cannot be the condition")
    pixels = PixelSummary()
    found = choose_columns(source, condition, condition=condition, kinds={}, look=pixels.add)
    codec = pixels.codec(source.levels, found.kinds, found.notices)
    few = 0 < codec.levels <= _FEW_LEVELS and codec.dim * codec.levels <= _MOST_COUNTS
    if training is None or source.frame is None or not few or len(training) < _ROWS_A_LEVEL * codec.levels:
        return codec
    rows = source.frame[training]["image"].to_numpy()
    return dataclasses.replace(codec, histogram=count_levels(rows, codec.levels))


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)
