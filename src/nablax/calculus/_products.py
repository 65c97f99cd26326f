"""Jacobian products of a field."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PyTree

from .._core import Field, check_like


def jvp(field: Field) -> Callable[..., tuple[PyTree, PyTree]]:
    r"""Push a direction through the Jacobian of a field: :math:`v \mapsto J(t, y)\,v`.

    Args:
        field: ``field(t, y, args) -> dy``; ``y`` and ``dy`` any pytrees.

    Returns:
        ``product(t, y, v, args=None) -> (dy, Jv)``: ``v`` is shaped like ``y``; ``dy`` and ``Jv`` like the
        field's value. The Jacobian is taken in ``y`` alone; ``t`` and ``args`` are held.

    Raises:
        ValueError: ``v`` does not have the tree and shapes of ``y``.
        TypeError: it has other dtypes (raised by JAX).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import jvp
        >>> square = lambda t, y, args: y**2
        >>> dy, jv = jvp(square)(0.0, jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
        >>> jv.tolist()
        [2.0, 6.0]

    Cost:
        One JVP: about two forward passes, no stored activations.

    References:
        - Wengert, "A simple automatic derivative evaluation program", 1964,
          https://doi.org/10.1145/355586.364791
    """

    def product(t: Float[Array, ""], y: PyTree, v: PyTree, args: PyTree = None) -> tuple[PyTree, PyTree]:
        check_like(v, y, what="a direction that", fix="Give it the tree, shapes and dtypes of the point.")
        return jax.jvp(lambda z: field(t, z, args), (y,), (v,))

    return product


def vjp(field: Field) -> Callable[..., tuple[PyTree, PyTree]]:
    r"""Pull a covector back through the Jacobian of a field: :math:`w \mapsto J(t, y)^{\top} w`.

    Args:
        field: ``field(t, y, args) -> dy``; ``y`` and ``dy`` any pytrees.

    Returns:
        ``product(t, y, w, args=None) -> (dy, JTw)``: ``w`` is shaped like the field's value, ``JTw`` like
        ``y``. The Jacobian is taken in ``y`` alone; ``t`` and ``args`` are held.

    Raises:
        ValueError: ``w`` does not have the tree and shapes of ``dy``, or (raised by JAX) its dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import vjp
        >>> shear = lambda t, y, args: jnp.array([y[1], 0.0])
        >>> dy, pulled = vjp(shear)(0.0, jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0]))
        >>> pulled.tolist()
        [0.0, 1.0]

    Cost:
        One VJP: about three forward passes, activations stored.

    References:
        - Griewank and Walther, "Evaluating Derivatives", 2008, https://doi.org/10.1137/1.9780898717761
    """

    def product(t: Float[Array, ""], y: PyTree, w: PyTree, args: PyTree = None) -> tuple[PyTree, PyTree]:
        dy, pull = jax.vjp(lambda z: field(t, z, args), y)
        check_like(w, dy, what="a covector that", fix="Give it the tree, shapes and dtypes of the field's value.")
        (pulled,) = pull(w)
        return dy, pulled

    return product
