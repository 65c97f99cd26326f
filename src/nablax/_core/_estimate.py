"""A number and how far to trust it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Estimate(eqx.Module):
    """A Monte-Carlo estimate with its standard error, in the same unit.

    Attributes:
        value: the mean of the samples.
        standard_error: standard deviation of the mean; zero for an exact value, NaN when it cannot be known
            (a single sample).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import Estimate
        >>> estimate = Estimate.from_samples(jnp.array([1.0, 2.0, 3.0]))
        >>> float(estimate.value)
        2.0
    """

    value: Float[Array, "..."]
    standard_error: Float[Array, "..."]

    @staticmethod
    def from_samples(samples: Float[Array, "samples ..."]) -> "Estimate":
        """Average independent samples along their first axis.

        Args:
            samples: independent draws, leading axis ``samples``.

        Returns:
            Mean and ``std(samples, ddof=1) / sqrt(samples)``; the error is NaN for one sample.
        """
        count = samples.shape[0]
        value = jnp.mean(samples, axis=0)
        if count == 1:
            return Estimate(value, jnp.full_like(value, jnp.nan))
        return Estimate(value, jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(jnp.asarray(count, value.dtype)))
