r"""The paths of score-based diffusion: variance preserving, sub-variance preserving, variance exploding.

Diffusion time $s$ runs from data to noise; here $t = 1 - s$, so that every path of this room starts at noise.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import fault
from ._affine import AbstractAffinePath


class VariancePreserving(AbstractAffinePath):
    r"""$a = e^{-B/2}$, $b = \sqrt{1 - e^{-B}}$, whose variance is constant for data of unit variance.

    $B(s) = \beta_{\min} s + \tfrac12(\beta_{\max} - \beta_{\min}) s^2$ with $s = 1 - t$.

    Args:
        beta_min: rate of noising at the data, per unit time. Default 0.1.
        beta_max: rate of noising at the noise. Default 20.
        margin: ``times`` ends this far from the data, where $\dot b$ is infinite. Default 1e-3.

    Raises:
        ValueError: not 0 < beta_min ≤ beta_max, or not 0 < margin < 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import VariancePreserving
        >>> path = VariancePreserving()
        >>> a, b, _, _ = path.coefficients(jnp.array(0.3))
        >>> round(float(a**2 + b**2), 6)
        1.0

    Cost:
        None of the model.

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations,
        https://arxiv.org/abs/2011.13456, appendix B and C.
    """

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_max: float = eqx.field(static=True, default=20.0)
    margin: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self) -> None:
        _check_rates(self.beta_min, self.beta_max, self.margin)

    def coefficients(self, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
        r"""Return $(a, b, \dot a, \dot b)$; $\dot b$ is infinite at $t = 1$."""
        integral, rate = _integral_and_rate(self.beta_min, self.beta_max, t)
        a = jnp.exp(-0.5 * integral)
        b = jnp.sqrt(-jnp.expm1(-integral))
        da = 0.5 * rate * a
        return a, b, da, -a * da / b

    @property
    def times(self) -> tuple[float, float]:
        """From 0 to ``1 - margin``."""
        return 0.0, 1.0 - self.margin


class SubVariancePreserving(AbstractAffinePath):
    r"""$a = e^{-B/2}$, $b = 1 - e^{-B}$: the variance stays below that of `VariancePreserving`.

    Args:
        beta_min: rate of noising at the data, per unit time. Default 0.1.
        beta_max: rate of noising at the noise. Default 20.
        margin: ``times`` ends this far from the data, where the score is infinite. Default 1e-3.

    Raises:
        ValueError: not 0 < beta_min ≤ beta_max, or not 0 < margin < 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import SubVariancePreserving
        >>> a, b, _, _ = SubVariancePreserving().coefficients(jnp.array(0.3))
        >>> bool(a**2 + b**2 < 1)
        True

    Cost:
        None of the model.

    References:
        Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix B and C.
    """

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_max: float = eqx.field(static=True, default=20.0)
    margin: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self) -> None:
        _check_rates(self.beta_min, self.beta_max, self.margin)

    def coefficients(self, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
        r"""Return $(a, b, \dot a, \dot b)$."""
        integral, rate = _integral_and_rate(self.beta_min, self.beta_max, t)
        a = jnp.exp(-0.5 * integral)
        return a, -jnp.expm1(-integral), 0.5 * rate * a, -rate * jnp.exp(-integral)

    @property
    def times(self) -> tuple[float, float]:
        """From 0 to ``1 - margin``."""
        return 0.0, 1.0 - self.margin


class VarianceExploding(AbstractAffinePath):
    r"""$a = 1$, $b = \sigma_{\min} (\sigma_{\max}/\sigma_{\min})^{s}$, $s = 1 - t$.

    The prior at $t=0$ is $N(0, \sigma_{\max}^2 I)$; at $t=1$ the data still carry noise of size $\sigma_{\min}$.

    Args:
        sigma_min: noise at the data, in units of the data. Default 0.01.
        sigma_max: noise at the prior; choose it as large as the largest distance between data. Default 50.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max.

    Example:
        >>> from nablax.transport import VarianceExploding
        >>> VarianceExploding(sigma_max=10.0).prior_scale
        10.0

    Cost:
        None of the model.

    References:
        Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix C, with $\sigma(0) = \sigma_{\min}$ kept.
    """

    sigma_min: float = eqx.field(static=True, default=0.01)
    sigma_max: float = eqx.field(static=True, default=50.0)

    def __check_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise fault(
                expected="0 < sigma_min < sigma_max",
                got=f"{self.sigma_min} and {self.sigma_max}",
                fix="sigma_max is about the largest distance between two data points.",
            )

    def coefficients(self, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
        r"""Return $(1, b, 0, \dot b)$."""
        logarithm = math.log(self.sigma_max / self.sigma_min)
        b = self.sigma_min * jnp.exp((1 - t) * logarithm)
        return jnp.ones_like(t), b, jnp.zeros_like(t), -logarithm * b

    @property
    def times(self) -> tuple[float, float]:
        """All of [0, 1]."""
        return 0.0, 1.0

    @property
    def prior_scale(self) -> float:
        """The largest noise, ``sigma_max``."""
        return self.sigma_max


def _integral_and_rate(beta_min: float, beta_max: float, t: Array) -> tuple[Array, Array]:
    s = 1 - t
    return beta_min * s + 0.5 * (beta_max - beta_min) * s**2, beta_min + (beta_max - beta_min) * s


def _check_rates(beta_min: float, beta_max: float, margin: float) -> None:
    if not 0 < beta_min <= beta_max:
        raise fault(
            expected="0 < beta_min ≤ beta_max", got=f"{beta_min} and {beta_max}", fix="Song et al. use 0.1, 20."
        )
    if not 0 < margin < 1:
        raise fault(expected="0 < margin < 1", got=margin, fix="The default 1e-3 is a usual choice.")


__all__ = ["SubVariancePreserving", "VarianceExploding", "VariancePreserving"]
