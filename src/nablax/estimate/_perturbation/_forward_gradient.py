"""The forward gradient: a gradient without a backward pass, from one Jacobian-vector product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._core import Key, fault
from .._frame import Objective, ValueAndGrad, estimator, shaped_as
from ._directions import Directions, check_directions
from ._directions import directions as drawn_directions


def forward_gradient(
    loss: Callable[..., Any],
    *,
    has_aux: bool = False,
    directions: Directions = "gaussian",
    probes: int = 1,
) -> ValueAndGrad:
    r"""Estimate the gradient by derivatives along random directions, in forward mode alone.

    .. math:: \hat g = \frac1m\sum_{i=1}^{m} (\nabla L\cdot v_i)\,v_i, \qquad \operatorname{E} v v^{\top} = I

    is unbiased. Its covariance has trace :math:`(d+1)\lVert g\rVert^2/m` for Gaussian directions of d entries, and
    :math:`(d-1)\lVert g\rVert^2/m` for signs or on the sphere: at equal accuracy the number of probes grows with d.
    With d orthogonal directions it is the gradient.

    Args:
        loss: ``loss(params, *args) -> scalar``, differentiable in forward mode.
        has_aux: whether it returns ``(scalar, aux)``.
        directions: "gaussian" (the authors'), "rademacher" (signs), "sphere" (of radius √d), or "orthogonal" (on that
            sphere and at right angles; a QR factorisation of d·m numbers).
        probes: m, 1 by default, as the authors have it.

    Returns:
        ``(params, *args, key=key) -> (value, grads)`` as `jax.value_and_grad` has it; ``value`` is the loss at
        ``params``, ``grads`` are of its inexact leaves, None for the others.

    Raises:
        ValueError: an argument makes no sense; when called: no key, parameters without real floating leaves, a loss
            that is no real scalar or has no derivative in forward mode (`jax.custom_vjp`), more orthogonal directions
            than parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> loss = lambda w: jnp.sum(w ** 2)
        >>> every = estimate.forward_gradient(loss, directions="orthogonal", probes=3)
        >>> value, grads = every(jnp.array([1.0, 2.0, 3.0]), key=jax.random.key(0))
        >>> float(value), jnp.round(grads, 4).tolist()
        (14.0, [2.0, 4.0, 6.0])

    Cost:
        One forward pass, and m JVPs beside it at once: their memory is that of m forward passes' widest layer, and
        none of it grows with depth.

    References:
        - Baydin, Pearlmutter, Syme, Wood and Torr, "Gradients without Backpropagation", 2022,
          https://arxiv.org/abs/2202.08587, and code of others after the text, https://github.com/orobix/fwdgrad (the
          same: one Gaussian direction for all parameters, its derivative times it, then plain descent. Other
          directions, several of them, and the moments of all, which are derived here, are ours)
    """
    check_directions(directions, probes)

    def estimate(objective: Objective, params: PyTree, key: Key) -> tuple[Array, PyTree, PyTree]:
        drawn = drawn_directions(directions, key, params, probes)

        def along(direction: PyTree) -> tuple[Array, Array, PyTree]:
            tangent = jax.tree.map(lambda v, p: v.astype(p.dtype), direction, params)
            return jax.jvp(objective, (params,), (tangent,), has_aux=True)

        try:
            value, slopes, aux = jax.vmap(along, out_axes=(None, 0, None))(drawn)
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            raise fault(
                expected="a loss with a derivative in forward mode",
                got="one with a jax.custom_vjp in it",
                fix="Use nablax.estimate.spsa, or jax.custom_jvp in the loss.",
            ) from None

        def mean(drawn: Array) -> Array:
            return jnp.tensordot(slopes.astype(drawn.dtype), drawn, axes=1, precision="highest") / probes

        return value, aux, shaped_as(jax.tree.map(mean, drawn), params)

    return estimator(loss, estimate, has_aux=has_aux, by="forward_gradient")
