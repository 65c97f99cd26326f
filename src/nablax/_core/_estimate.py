"""A number and how far to trust it; those whose standard errors are by the delta method."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import wadler_lindig as wl
from jaxtyping import Array, Float

from ._numerics import nonzero, peak
from ._record import SHOWN, at_hand


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
        >>> estimate
        2.00 ± 0.58
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

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc | None:
        """The numbers, where they are at hand and few; Equinox calls this for every record that holds one."""
        parts = (self.value, self.standard_error)
        if not all(at_hand(part) for part in parts) or np.shape(parts[0]) != np.shape(parts[1]):
            return None
        value, error = (np.asarray(part, np.float64) for part in parts)
        if value.size > SHOWN or value.ndim > 1:
            return None
        shown = [_with_error(float(v), float(e)) for v, e in zip(value.ravel(), error.ravel())]
        return wl.TextDoc(f"[{', '.join(shown)}]" if value.ndim else shown[0])


def scaled_estimate(samples: Float[Array, " samples"]) -> Estimate:
    """The estimate of samples that are squares already, of which the standard error squares again."""
    scale = peak(samples)
    unit = Estimate.from_samples(samples / scale)
    return Estimate(unit.value * scale, unit.standard_error * scale)


def root_mean_square(samples: Float[Array, " samples"]) -> Estimate:
    """Root of the mean square; its error is that of the mean square over twice the root."""
    scale = peak(samples)
    square = Estimate.from_samples((samples / scale) ** 2)
    root = jnp.sqrt(square.value)
    return Estimate(scale * root, scale * square.standard_error / (2 * nonzero(root)))


def ratio_of_means(numerators: Float[Array, " samples"], denominators: Float[Array, " samples"]) -> Estimate:
    """Mean over mean of paired samples, covariance included; zero where the denominators are all zero."""
    safe = nonzero(jnp.mean(denominators))
    ratio = jnp.mean(numerators / safe)
    # Delta method: to first order the ratio's error is the mean of these residuals.
    residuals = numerators / safe - ratio * (denominators / safe)
    return Estimate(ratio, Estimate.from_samples(residuals).standard_error)


def _with_error(value: float, error: float) -> str:
    """The value to the second digit of its error; to six digits where that is zero or not known."""
    if not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        return f"{value:.6g} ± {error:.2g}"
    decimals = 1 - math.floor(math.log10(error))
    if not 0 <= decimals <= 6 or abs(value) >= 1e7:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
