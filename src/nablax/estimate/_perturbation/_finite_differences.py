"""Gradients from values alone: differences of the loss along random directions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._core import Key, canonical_convolutions, check_rate
from .._frame import Objective, ValueAndGrad, estimator, shaped_as
from ._directions import Directions, check_directions
from ._directions import directions as drawn_directions


def spsa(
    loss: Callable[..., Any],
    *,
    has_aux: bool = False,
    step: float = 1e-3,
    directions: Directions = "rademacher",
    probes: int = 1,
) -> ValueAndGrad:
    r"""Estimate the gradient by simultaneous perturbation: all parameters moved at once, there and back.

    .. math:: \hat g = \frac1m\sum_{i=1}^{m}\frac{L(\theta+h\Delta_i)-L(\theta-h\Delta_i)}{2h}\,\Delta_i

    with signs :math:`\Delta`, whose reciprocals they are. The pair of opposite moves cancels every even derivative: the
    bias is of order h² times third derivatives, and none on a quadratic. The variance is that of
    `nablax.estimate.forward_gradient`, and the noise of rounding beside it, about
    :math:`\epsilon |L|\sqrt d/h`: in single precision a step below 1e-3 of a parameter's size is mostly that.

    Args:
        loss: ``loss(params, *args) -> scalar``; no derivative of it is taken, it may be any function.
        has_aux: whether it returns ``(scalar, aux)``.
        step: h, in units of the parameters. Default 1e-3, ours.
        directions: "rademacher", "gaussian", "sphere" or "orthogonal", as for `nablax.estimate.forward_gradient`.
        probes: m, 1 by default.

    Returns:
        ``(params, *args, key=key) -> (value, grads)`` as `jax.value_and_grad` has it; ``value`` and ``aux`` are those
        at ``params``.

    Raises:
        ValueError: an argument makes no sense; when called: no key, parameters without real floating leaves, or a loss
            that is no real scalar.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> loss = lambda w: jnp.sum(jnp.floor(100 * w) ** 2) / 1e4  # has no useful derivative
        >>> rough = estimate.spsa(loss, step=0.1, directions="orthogonal", probes=2)
        >>> value, grads = rough(jnp.array([1.0, -2.0]), key=jax.random.key(0))
        >>> bool(jnp.allclose(grads, jnp.array([2.0, -4.0]), atol=0.2))
        True

    Cost:
        2m + 1 forward passes, one after the other, in the memory of one and two copies of the parameters.

    References:
        - Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient Approximation",
          1992, https://doi.org/10.1109/9.119632
    """
    return _differences(loss, has_aux, step, directions, probes, by="spsa")


def gaussian_smoothing(
    loss: Callable[..., Any], *, has_aux: bool = False, step: float = 1e-3, probes: int = 1
) -> ValueAndGrad:
    r"""Estimate the gradient of the loss smoothed by a Gaussian of standard deviation ``step``.

    .. math::
        \hat g = \frac1m\sum_{i=1}^{m}\frac{L(\theta+\sigma v_i)-L(\theta-\sigma v_i)}{2\sigma}\,v_i,\qquad
        \operatorname{E}\hat g = \nabla_\theta \operatorname{E}_v L(\theta+\sigma v),\quad v\sim N(0, I)

    without bias for the smoothed loss at any σ, also where the loss itself jumps.

    Args:
        loss: ``loss(params, *args) -> scalar``, any function.
        has_aux: whether it returns ``(scalar, aux)``.
        step: σ, in units of the parameters. Default 1e-3, ours; where the loss jumps, the width that is to be looked
            across.
        probes: m, 1 by default.

    Returns:
        ``(params, *args, key=key) -> (value, grads)`` as `jax.value_and_grad` has it; ``value`` and ``aux`` are those
        at ``params``, not smoothed.

    Raises:
        ValueError: as for `nablax.estimate.spsa`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> jump = lambda w: jnp.where(w > 0, 1.0, 0.0)
        >>> slope = estimate.gaussian_smoothing(jump, step=0.5, probes=4000)(jnp.array(0.0), key=jax.random.key(0))[1]
        >>> bool(abs(slope - 0.798) < 0.03)  # density of N(0, 0.25) at 0
        True

    Cost:
        2m + 1 forward passes, one after the other.

    References:
        - Nesterov and Spokoiny, "Random Gradient-Free Minimization of Convex Functions", 2017,
          https://doi.org/10.1007/s10208-015-9296-2 (the smoothed loss; here with the symmetric difference)
    """
    return _differences(loss, has_aux, step, "gaussian", probes, by="gaussian_smoothing")


def _differences(
    loss: Callable[..., Any], has_aux: bool, step: float, kind: str, probes: int, *, by: str
) -> ValueAndGrad:
    check_directions(kind, probes)
    check_rate(step, what="step")

    def estimate(objective: Objective, params: PyTree, key: Key) -> tuple[Array, PyTree, PyTree]:
        value, aux = objective(params)
        drawn = drawn_directions(kind, key, params, probes)

        @canonical_convolutions
        def add(total: PyTree, direction: PyTree) -> tuple[PyTree, None]:
            def value_at(move: Array) -> Array:
                there = jax.tree.map(lambda p, v: (p + move * v).astype(p.dtype), params, direction)
                return objective(there)[0]

            slope = central_difference(value_at, step)
            return jax.tree.map(lambda t, v: t + slope.astype(v.dtype) * v, total, direction), None

        total, _ = jax.lax.scan(add, jax.tree.map(lambda v: jnp.zeros_like(v[0]), drawn), drawn)
        return value, aux, shaped_as(jax.tree.map(lambda t: t / probes, total), params)

    return estimator(loss, estimate, has_aux=has_aux, by=by)


def central_difference(value_at: Callable[[Array], Array], step: float) -> Array:
    """Slope of a function of one number at zero: two values, one after the other, in the memory of one."""
    ahead, behind = jax.lax.map(value_at, step * jnp.array([1.0, -1.0]))
    return (ahead - behind) / (2 * step)


__all__ = ["central_difference", "gaussian_smoothing", "spsa"]
