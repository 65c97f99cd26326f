"""What the diagnostics that work on given samples check first."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import fault


def align(t: float | Float[Array, "..."], ys: PyTree, args: PyTree) -> tuple[Float[Array, " samples"], PyTree, int]:
    """Give every sample its time, and check that the leading axes agree.

    Args:
        t: one time for all, or one per sample.
        ys: samples, every leaf with leading axis ``samples``.
        args: conditions, every leaf with the same leading axis, or None.

    Returns:
        Times of shape ``[samples]`` in the dtype of ``ys``; ``ys`` as arrays; the number of samples.

    Raises:
        ValueError: no samples, or leading axes that disagree.
    """
    ys = jax.tree.map(jnp.asarray, ys)
    counts = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves((ys, args))}
    if len(counts) != 1 or 0 in counts:
        raise fault(
            expected="samples (and conditions) with one common, non-empty leading axis",
            got=f"shapes {[jnp.shape(leaf) for leaf in jax.tree.leaves((ys, args))]}",
            mend="Stack one sample a row and one condition a row; repeat a shared condition with jnp.tile.",
        )
    (count,) = counts
    times = jnp.asarray(t, jnp.result_type(*jax.tree.leaves(ys)))
    if times.shape not in ((), (count,)):
        raise fault(
            expected=f"one time, or {count} of them",
            got=f"times of shape {times.shape}",
            mend="Pass a scalar or one time per sample.",
        )
    return jnp.broadcast_to(times, (count,)), ys, count
