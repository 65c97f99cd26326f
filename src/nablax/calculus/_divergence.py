"""The divergence of a field, exactly."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._core import Field
from ._linear import chunked_map, linearise


def value_and_divergence(field: Field) -> Callable[..., tuple[PyTree, Float[Array, ""]]]:
    r"""Evaluate a field and its exact divergence together, sharing the forward pass.

    .. math:: \nabla\cdot f = \sum_i \partial f_i / \partial y_i = \sum_i e_i^{\top} J e_i

    Args:
        field: ``field(t, y, args) -> dy``, ``dy`` shaped like ``y`` (any pytree).

    Returns:
        ``function(t, y, args=None) -> (dy, divergence)``; the divergence is a scalar in units of the field
        over units of ``y``.

    Raises:
        ValueError: the field's value is not shaped like ``y``; ``y`` is not floating-point.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import value_and_divergence
        >>> dy, div = value_and_divergence(lambda t, y, args: t * y)(2.0, jnp.ones(3))
        >>> float(div)
        6.0

    Cost:
        One forward pass and D JVPs, 64 of them at a time, so memory does not grow with D. Differentiable both
        ways.

    References:
        - Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", 2018,
          https://arxiv.org/abs/1806.07366 (where the divergence carries the log-density along a flow)
    """

    def function(t: Float[Array, ""], y: PyTree, args: PyTree = None) -> tuple[PyTree, Float[Array, ""]]:
        dy, push = linearise(field, t, y, args)
        flat, unravel = ravel_pytree(y)

        def diagonal_entry(index: Array) -> Float[Array, ""]:
            column, _ = ravel_pytree(push(unravel(jax.nn.one_hot(index, flat.size, dtype=flat.dtype))))
            return column[index]

        return dy, jnp.sum(chunked_map(diagonal_entry, jnp.arange(flat.size)))

    return function


def divergence(field: Field) -> Callable[..., Float[Array, ""]]:
    r"""Take the exact divergence of a field, :math:`\nabla\cdot f = \operatorname{tr} J`.

    Args:
        field: ``field(t, y, args) -> dy``, ``dy`` shaped like ``y`` (any pytree).

    Returns:
        ``function(t, y, args=None) -> divergence``, a scalar in units of the field over units of ``y``.

    Raises:
        ValueError: the field's value is not shaped like ``y``; ``y`` is not floating-point.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import divergence
        >>> float(divergence(lambda t, y, args: y**2)(0.0, jnp.array([1.0, 2.0])))
        6.0

    Cost:
        One forward pass and D JVPs; see :func:`value_and_divergence`, which also returns the value. For large
        D, :func:`stochastic_divergence` costs one JVP a probe.

    References:
        - Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", 2018,
          https://arxiv.org/abs/1806.07366
    """
    both = value_and_divergence(field)

    def function(t: Float[Array, ""], y: PyTree, args: PyTree = None) -> Float[Array, ""]:
        return both(t, y, args)[1]

    return function
