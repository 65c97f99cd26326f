"""Pixels of few levels, each made normal by its own histogram."""

import dataclasses
import functools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import Key

_TAIL = 1e-6  # kept off 0 and 1, where the normal quantile is infinite
_ROUNDING = 5e-7  # what single precision may move a cumulative probability by, there and back
_PSEUDO = 0.5  # added to each count, so that a level never seen is possible


@dataclasses.dataclass(frozen=True)
class Histogram:
    r"""The map from a level to a standard normal: $y = \Phi^{-1}(F_k + p_k u)$ with u uniform on (0, 1).

    With $p_k$ the share of level k at this pixel and $F_k$ the share below it, $x + u$ is spread over its level by
    uniform dequantisation, and then made normal by the pixel's own distribution function: $dy/dx = p_k / \varphi(y)$. A
    field need not learn the steps of each pixel's density, only how the pixels depend on each other.

    Attributes:
        counts: of each level at each pixel [pixels, levels], of the training rows.
    """

    counts: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def mass(self) -> Float[np.ndarray, "pixels levels"]:
        """Share of each level."""
        counts = np.array(self.counts, np.float64) + _PSEUDO
        return counts / counts.sum(axis=1, keepdims=True)

    @functools.cached_property
    def below(self) -> Float[np.ndarray, "pixels levels"]:
        """Share of the levels below each."""
        return np.cumsum(self.mass, axis=1) - self.mass

    @functools.cached_property
    def edges(self) -> Float[np.ndarray, "pixels edges"]:
        """Where each level but the first begins."""
        # From the standard library, for SciPy's takes a tenth of a second to import.
        quantile = np.vectorize(statistics.NormalDist().inv_cdf, otypes=[np.float64])
        return quantile(_TAIL + (1 - 2 * _TAIL) * self.below[:, 1:])

    def spread(self, levels: Int[Array, "n pixels"], key: Key) -> tuple[Float[Array, "n pixels"], Float[Array, " n"]]:
        """Draw y and log|dy/dx|, summed over pixels, in nats.

        Args:
            levels: whole numbers.
            key: for the uniform noise.

        Returns:
            y, and the correction for each row.
        """
        pixel = jnp.arange(levels.shape[1])[None, :]
        mass = jnp.asarray(self.mass, jnp.float32)[pixel, levels]
        below = jnp.asarray(self.below, jnp.float32)[pixel, levels]
        # The noise keeps off the cell's edges by what rounding could carry over them; its density is higher for it.
        margin = jnp.minimum(_ROUNDING / mass, 0.25)
        noise = margin + (1 - 2 * margin) * jax.random.uniform(key, levels.shape)
        y = jax.scipy.special.ndtri(_TAIL + (1 - 2 * _TAIL) * (below + mass * noise))
        normal = -0.5 * jnp.square(y) - 0.5 * math.log(2 * math.pi)
        terms = jnp.log(mass) + math.log(1 - 2 * _TAIL) + jnp.log1p(-2 * margin) - normal
        return y, jnp.sum(terms, axis=1)

    def levels_of(self, y: Float[np.ndarray, "n pixels"]) -> Int[np.ndarray, "n pixels"]:
        """Levels of points: undoes ``spread``."""
        return np.sum(y[:, :, None] >= self.edges[None], axis=2)


def count_levels(pixels: Int[np.ndarray, "n ..."], levels: int) -> Histogram:
    """Count levels at each pixel.

    Args:
        pixels: whole numbers below ``levels``.
        levels: how many there are.

    Returns:
        The histogram.
    """
    flat = np.asarray(pixels).reshape(len(pixels), -1)
    counts = np.stack([(flat == level).sum(axis=0) for level in range(levels)], axis=1)
    return Histogram(tuple(tuple(int(count) for count in row) for row in counts))


__all__ = ["Histogram", "count_levels"]
