"""Arithmetic at any scale: quotients, lengths and directions at zero, at 1e±30, and where they are differentiated.

The same rules hold in all of it. A divisor that is exactly zero becomes 1. NaN stays NaN and infinity is not hidden.
What is differentiated at zero has a finite derivative. Squares are taken of numbers up to 1, and summed in single
precision at least, so that neither leaves the range before the result does.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

P = ParamSpec("P")
T = TypeVar("T")
Axis = int | tuple[int, ...] | None


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """Have its products in the precision of their numbers, where accelerators by default round to ten bits or fewer."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapped


def wide_dtype(tree: PyTree) -> jnp.dtype:
    """The widest type of a tree's arrays, single precision at least: sums over a network leave half precision."""
    return jnp.result_type(jnp.float32, *jax.tree.leaves(tree))


def nonzero(x: ArrayLike) -> Array:
    """The number itself, and 1 in place of an exact zero: what may be divided by. NaN stays NaN."""
    x = jnp.asarray(x)
    return jnp.where(x == 0, jnp.ones_like(x), x)


def divide(numerator: ArrayLike, divisor: ArrayLike, otherwise: ArrayLike = 0) -> Array:
    """The quotient, and ``otherwise`` where the divisor is zero, with a derivative of zero there."""
    divisor = jnp.asarray(divisor)
    return jnp.where(divisor == 0, otherwise, numerator / nonzero(divisor))


def peak(x: Array, axis: Axis = None) -> Float[Array, "..."]:
    """The largest magnitude along the axes, which stay with length 1; 1 where it is zero or not finite.

    It is a unit to measure in, and constant where one differentiates: what is invariant to the unit has the right
    derivative all the same, without that of a maximum.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=axis is not None, initial=0))
    return jnp.where((largest > 0) & jnp.isfinite(largest), largest, jnp.ones_like(largest))


def scaled(tree: PyTree) -> tuple[PyTree, Float[Array, ""]]:
    """A tree over its largest magnitude, in `wide_dtype`, and that number: its `peak`. By rows under ``jax.vmap``."""
    dtype = wide_dtype(tree)
    size = peak(jnp.stack([jnp.max(jnp.abs(leaf), initial=0).astype(dtype) for leaf in jax.tree.leaves(tree)]))
    return jax.tree.map(lambda leaf: leaf.astype(dtype) / size, tree), size


def norm(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Float[Array, "..."]:
    """Euclidean norm along the axes, of all entries by default, in `wide_dtype`; its derivative at zero is zero."""
    unit, size, root = _measured(x, axis)
    length = size * root
    return length if keepdims or axis is None else jnp.squeeze(length, axis)


def unit_vector(x: Array, axis: Axis = None) -> Array:
    """The array over its norm along the axes, in its own type; zero stays zero, with the identity for a derivative."""
    scaled_x, _, root = _measured(x, axis)
    return (scaled_x / nonzero(root)).astype(x.dtype)


def tree_norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm of all entries of a tree, as `norm`."""
    dtype = wide_dtype(tree)
    return norm(jnp.stack([norm(leaf).astype(dtype) for leaf in jax.tree.leaves(tree)]))


def _measured(x: Array, axis: Axis) -> tuple[Array, Array, Array]:
    """An array in units of its peak, the peak, and its norm in these units."""
    wide = x.astype(wide_dtype(x))
    size = peak(wide, axis)
    wide = wide / size
    square = jnp.sum(jnp.square(wide), axis=axis, keepdims=axis is not None)
    # Twice, since a derivative goes through both branches: that of the root at zero is infinite.
    return wide, size, jnp.where(square == 0, 0, jnp.sqrt(nonzero(square)))
