"""A batch of rows and their conditions at the door: shapes checked, and the solver kept clear of what is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._core import Key, check_count, check_floats, check_key, check_rows, check_shape, fault


def check_draws(count: Any, key: Key, args: PyTree) -> int:
    """What every sampler checks first: a count, a key, and one condition a draw.

    Raises:
        ValueError: one of them is not.
    """
    count = check_count(count, what="count")
    check_key(key)
    check_rows(args, count, what="args", fix="Give one condition a draw; repeat a shared one with jnp.tile.")
    return count


def check_batch(ys: Any, args: PyTree, shape: tuple[int, ...]) -> Float[Array, " rows *shape"]:
    """Rows of floats of one shape, at least one, and one condition a row.

    Raises:
        ValueError: they are not.
    """
    alone = isinstance(ys, (jax.Array, np.ndarray)) and ys.shape == shape
    fix = "A single sample needs a leading axis: ys[None]." if alone else "Pass an array with one sample a row."
    ys = check_shape(ys, (None, *shape), what="data", fix=fix)
    check_floats(ys, what="data", fix="Convert them to a float dtype.")
    if not len(ys):
        raise fault(expected="at least one row", got="none", fix="Pass an array with one sample a row.")
    check_rows(args, len(ys), what="args", fix="Give one condition a row; repeat a shared one with jnp.tile.")
    return ys


def check_times(t: Any, ys: Array) -> Float[Array, " rows"]:
    """One time a row, from one for all or as many; between noise and data.

    Raises:
        ValueError: there are others, or one is outside.
    """
    times = jnp.asarray(t, ys.dtype)
    if times.shape not in ((), (len(ys),)):
        raise fault(expected=f"one time, or {len(ys)}", got=f"times of shape {times.shape}", fix="One a row.")
    with jax.ensure_compile_time_eval():  # in the midst of a trace, times that are known stay numbers
        outside = not isinstance(times, jax.core.Tracer) and not bool(jnp.all((times >= 0) & (times <= 1)))
    if outside:
        raise fault(expected="times between 0 and 1", got=str(t), fix="Noise is at 0, data are at 1.")
    return jnp.broadcast_to(times, (len(ys),))


def finite_rows(tree: PyTree, rows: int) -> Bool[Array, " rows"]:
    """Which rows hold neither NaN nor infinity in any array of floats."""
    finite = jnp.ones((rows,), bool)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            finite &= jnp.all(jnp.isfinite(leaf).reshape(rows, -1), axis=1)
    return finite


def with_stand_ins(ys: Array, args: PyTree) -> tuple[Array, PyTree, Bool[Array, " rows"]]:
    """The batch with its first finite row in place of each that is not, and which rows are finite.

    The rows share the solver's step size: one that is not finite would stop it for all of them.
    """
    finite = finite_rows((ys, args), len(ys))
    rows = jnp.where(finite, jnp.arange(len(ys)), jnp.argmax(finite))

    def replaced(leaf: Array) -> Array:
        taken = jnp.asarray(leaf)[rows]
        return jnp.where(jnp.any(finite), taken, jnp.zeros_like(taken))

    ys, args = jax.tree.map(replaced, (ys, args))
    return ys, args, finite


__all__ = ["check_batch", "check_draws", "check_times", "finite_rows", "with_stand_ins"]
