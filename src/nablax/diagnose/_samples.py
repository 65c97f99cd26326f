"""What the diagnostics that work on given samples check first."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import check_finite, check_floats, described, fault, wide_dtype


def align(t: float | Float[Array, "..."], ys: PyTree, args: PyTree) -> tuple[Float[Array, " samples"], PyTree, int]:
    """Give every sample its time, and check that the leading axes agree.

    Args:
        t: one time for all, or one per sample.
        ys: samples, every leaf with leading axis ``samples``.
        args: conditions, every leaf with the same leading axis, or None.

    Returns:
        Times of shape ``[samples]`` in the dtype of ``ys``; ``ys`` as arrays, halves widened to single precision; the
        number of samples.

    Raises:
        ValueError: no samples, leading axes that disagree, samples of integers, or one that is not finite.
    """
    ys = jax.tree.map(jnp.asarray, ys)
    counts = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves((ys, args))}
    if len(counts) != 1 or 0 in counts:
        raise fault(
            expected="samples (and conditions) with one common, non-empty leading axis",
            got=f"samples {described(ys)} and conditions {described(args)}",
            fix="Stack one sample a row and one condition a row; repeat a shared condition with jnp.tile. "
            "The order is (field, t, ys, args): the time first.",
        )
    (count,) = counts
    check_floats(ys, what="samples", fix="Convert them to a float dtype.")
    check_finite(ys, what="samples", fix="Leave those rows out.")
    ys = jax.tree.map(lambda leaf: leaf.astype(wide_dtype(leaf)), ys)
    times = jnp.asarray(t, jnp.result_type(*jax.tree.leaves(ys)))
    if times.shape not in ((), (count,)):
        raise fault(
            expected=f"one time, or {count} of them",
            got=f"times of shape {times.shape}",
            fix="Pass a scalar or one time per sample.",
        )
    return jnp.broadcast_to(times, (count,)), ys, count
