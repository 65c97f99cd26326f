"""Summaries over samples whose standard errors are by the delta method."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..calculus import Estimate


def root_mean_square(samples: Float[Array, " samples"]) -> Estimate:
    """Root of the mean square; its error is that of the mean square over twice the root."""
    # The largest is taken out first, since squares of squares leave float32 soon.
    scale = _positive(jnp.max(jnp.abs(samples)))
    square = Estimate.from_samples((samples / scale) ** 2)
    root = jnp.sqrt(square.value)
    return Estimate(scale * root, scale * square.standard_error / (2 * _positive(root)))


def ratio_of_means(numerators: Float[Array, " samples"], denominators: Float[Array, " samples"]) -> Estimate:
    """Mean over mean of paired samples, covariance included; zero where the denominators are all zero."""
    safe = _positive(jnp.mean(denominators))
    ratio = jnp.mean(numerators / safe)
    residuals = numerators / safe - ratio * (denominators / safe)
    return Estimate(ratio, Estimate.from_samples(residuals).standard_error)


def _positive(number: Float[Array, ""]) -> Float[Array, ""]:
    # NaN must stay NaN: only an exact zero is replaced.
    return jnp.where(number == 0, jnp.ones_like(number), number)
