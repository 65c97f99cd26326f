"""Noise over signal from a few numbers a row, with standard errors by leaving rows out."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import nonzero
from ...calculus import Estimate


class Curved(NamedTuple):
    """What the curved scale needs: curvatures of the signed sums, of the mean, and rows' slopes along its image.

    Sums, mean and image are in units of the rows' gradients, the numbers in that of the loss.
    """

    signed: Float[Array, " groups"]
    mean: Float[Array, ""]
    slopes: Float[Array, " rows"]


def jackknifed(squares: Float[Array, " rows"], inner: Float[Array, " rows"]) -> tuple[Estimate, Estimate, Estimate]:
    """Noise over signal, noise, signal; leaving out each row in turn needs no gradient again."""
    count = squares.shape[0]
    scale = nonzero(jnp.max(squares))
    a, b = squares / scale, inner / scale
    total, length = jnp.sum(a), jnp.mean(b)

    def parts(total: Array, length: Array, n: int) -> tuple[Array, Array]:
        noise = (total - n * length) / (n - 1)
        return noise, length - noise / n

    noise, signal = parts(total, length, count)
    rest = count - 1
    noises, signals = parts(total - a, (count**2 * length - 2 * count * b + a) / rest**2, rest)

    def error(each: Float[Array, " rows"]) -> Float[Array, ""]:
        return jnp.sqrt((count - 1) * jnp.mean((each - jnp.mean(each)) ** 2))

    return (
        Estimate(noise / signal, error(noises / signals)),
        Estimate(scale * noise, scale * error(noises)),
        Estimate(scale * signal, scale * error(signals)),
    )


def curved_scale(parts: Curved, unit: Float[Array, ""], count: int) -> Estimate:
    """Noise over signal, both weighted by curvature; the error by the delta method."""
    noise = Estimate.from_samples(parts.signed / unit * count / (count - 1))
    signal = parts.mean / unit - noise.value / count
    signal_error = jnp.hypot(
        2 * Estimate.from_samples(parts.slopes / unit).standard_error, noise.standard_error / count
    )
    value = noise.value / signal
    return Estimate(value, jnp.abs(value) * jnp.hypot(noise.standard_error / noise.value, signal_error / signal))
