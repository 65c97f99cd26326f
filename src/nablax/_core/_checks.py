"""What a signature declares — shapes, dtypes, counts, keys — checked at trace time, in words that say what to do."""

import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._errors import fault


def described(tree: PyTree) -> str:
    """A tree by the dtypes and shapes of its arrays, such as ``f32[3,2]`` or ``{'x': i32[5]}``."""
    return eqx.tree_pformat(tree, short_arrays=True).replace("\n", " ")


def check_like(value: PyTree, like: PyTree, *, what: str, mend: str) -> None:
    """Refuse a tree whose structure or shapes are not another's; nothing may be broadcast in silence.

    Args:
        value: arrays or `jax.ShapeDtypeStruct`.
        like: what it should be shaped like.
        what: the value in words, such as "a field whose value".
        mend: what the user can do.

    Raises:
        ValueError: they differ.
    """
    if str(jax.tree.structure(value)) != str(jax.tree.structure(like)) or any(
        jnp.shape(a) != jnp.shape(b) for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(like))
    ):
        raise fault(expected=f"{what} is shaped like {described(like)}", got=described(value), mend=mend)


def check_shape(value: Any, shape: tuple[int | None, ...], *, what: str, mend: str) -> Array:
    """An array of a declared shape, None standing for any length; everything else is refused.

    Args:
        value: what came; NumPy's and JAX's arrays, tracers and numbers are arrays, lists and strings are not.
        shape: declared.
        what: the value in words, such as "points".
        mend: what the user can do.

    Returns:
        The value as an array of JAX.

    Raises:
        ValueError: no array, or another shape.
    """
    wanted = f"{what} of shape [{', '.join('…' if n is None else str(n) for n in shape)}]"
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float)):
        raise fault(expected=wanted, got=f"a {type(value).__name__}", mend=mend)
    found = jnp.shape(value)
    if len(found) != len(shape) or any(n is not None and n != m for n, m in zip(shape, found)):
        raise fault(expected=wanted, got=described(value), mend=mend)
    return jnp.asarray(value)


def check_floats(tree: PyTree, *, what: str, mend: str) -> None:
    """Refuse a tree with an array of integers, booleans or complex numbers, or without any array.

    Raises:
        ValueError: it has one.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
        raise fault(expected=f"{what} of real floating-point numbers", got=described(tree), mend=mend)


def check_count(value: Any, *, what: str, least: int = 1) -> int:
    """A whole number that is not too small, of Python's or NumPy's; 40.0 and "40" are refused.

    Raises:
        ValueError: it is not.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < least:
        raise fault(
            expected=f"{what} as a whole number, at least {least}",
            got=repr(value),
            mend=f"Pass {what}={least} or more.",
        )
    return count


def check_key(key: Any, *, what: str = "key") -> None:
    """Refuse what is no key of JAX's, such as a seed.

    Raises:
        ValueError: it is none.
    """
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == jnp.uint32 and key.ndim >= 1
    if not (typed or raw):
        raise fault(expected=f"{what}: a random key", got=described(key), mend="Pass jax.random.key(0).")


def check_callable(value: Any, *, what: str, mend: str) -> Callable[..., Any]:
    """Refuse what cannot be called.

    Raises:
        ValueError: it cannot.
    """
    if not callable(value):
        raise fault(expected=f"{what}, a function", got=described(value), mend=mend)
    return value
