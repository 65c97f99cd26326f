"""Descent in which some units learn by the opposite sign: a field that is no gradient of anything."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._core import check_like, fault, split
from .._frame import Objective, ValueAndGrad, estimator, shaped_as


def rule_flipped(loss: Callable[..., Any], signs: PyTree, *, has_aux: bool = False) -> ValueAndGrad:
    r"""The gradient with the sign of some entries turned: curl descent, where they are a unit's outgoing weights.

    .. math:: \hat g = D\odot\nabla L, \qquad D_{ij} = d_j \in \{-1, 1\}

    with one sign for each *presynaptic* unit j. Fixed points are the gradient's own. Their stability is not: with both
    signs present the Jacobian :math:`D\,\nabla^2L` is not symmetric, the flow has a curl and no potential, and
    solutions may repel. Of a two-layer linear net :math:`w^{\top}Wx` with error :math:`\delta=W^{\top}w-\beta`,
    near a solution :math:`\dot\delta=-M\delta` with

    .. math:: M = \lVert w\rVert^2D_x + W^{\top}D_hW

    which is stable where the least eigenvalue of M is positive: a few flipped units do where the layer above them is
    wide enough, and any of them does not where the net narrows.

    Args:
        loss: ``loss(params, *args) -> scalar``, differentiable by `jax.grad`.
        signs: 1 and −1, shaped like the parameters: for a weight ``[outputs, inputs]``
            ``jnp.broadcast_to(d, weight.shape)``; ones for biases.
        has_aux: whether the loss returns ``(scalar, aux)``.

    Returns:
        ``(params, *args, key=None) -> (value, grads)`` as `jax.value_and_grad` has it; the key is not used.

    Raises:
        ValueError: the loss is no function, or other numbers than 1 and −1; when called: signs are shaped otherwise.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> flipped = estimate.rule_flipped(lambda w: jnp.sum(w ** 2), jnp.array([1.0, -1.0]))
        >>> flipped(jnp.array([3.0, 4.0]))[1].tolist()
        [6.0, -8.0]

    Cost: that of `jax.value_and_grad`.

    References:
        - Ninou, Kadmon and Cayco-Gajic, "Curl Descent: Non-Gradient Learning Dynamics with Sign-Diverse Plasticity",
          2025, https://arxiv.org/abs/2510.02765, and the authors' code (signs by column, presynaptic; M is derived
          here, and tested)
    """
    given = split(signs)[0]
    for leaf in jax.tree.leaves(given):
        if not isinstance(leaf, jax.core.Tracer) and not np.all(np.abs(np.asarray(leaf)) == 1):
            raise fault(
                expected="signs, floating-point numbers that are 1 or −1",
                got=f"others among {leaf.dtype}{list(leaf.shape)}",
                fix="Make them by jnp.where(flipped, -1.0, 1.0).",
            )

    def estimate(objective: Objective, trained: PyTree, key: object) -> tuple[Array, PyTree, PyTree]:
        check_like(
            given, trained, what="signs that", fix="Make them by jnp.broadcast_to(d, weight.shape), a leaf for a leaf."
        )
        (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        return value, aux, shaped_as(jax.tree.map(jnp.multiply, given, grads), trained)

    return estimator(loss, estimate, has_aux=has_aux, by=None)


__all__ = ["rule_flipped"]
