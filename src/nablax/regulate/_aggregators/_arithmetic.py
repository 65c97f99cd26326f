"""Arithmetic of stacked gradients: cosines and norms, weighted sums, no square outside the number range."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import divide, exact, fault, nonzero, scaled, wide_dtype

# Columns that are multiplied at a time, at least, and pieces at most: long thin products run best from the cache,
# and sums of blocks round less than one long sum.
_BLOCK, _BLOCKS = 2**16, 64


def split(gramian: Float[Array, "K K"]) -> tuple[Float[Array, "K K"], Float[Array, " K"]]:
    """Cosines (zero for a vanished gradient) and norms of a Gramian's rows."""
    gramian = jnp.asarray(gramian, wide_dtype(gramian))
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
        raise fault(expected="a square Gramian", got=f"shape {gramian.shape}", fix="Pass J @ J.T.")
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0))
    scales = divide(1, norms)
    cosines = (gramian * scales[:, None]) * scales[None, :]
    return jnp.where(jnp.eye(len(norms), dtype=bool), (norms > 0).astype(norms.dtype), cosines), norms


@jax.jit
@exact
def cosines_and_norms(grads: PyTree) -> tuple[Float[Array, "K K"], Float[Array, " K"]]:
    """Of stacked gradients. Rows whose squares would leave the number range are scaled first."""
    leaves = [jnp.reshape(leaf, (jnp.shape(leaf)[0], -1)) for leaf in jax.tree.leaves(grads)]
    dtype = wide_dtype(leaves)
    information = jnp.finfo(dtype)
    size = max(sum(leaf.shape[1] for leaf in leaves), 1)

    def products(leaves: list[Array]) -> Array:
        return sum((_products(leaf).astype(dtype) for leaf in leaves[1:]), _products(leaves[0]).astype(dtype))

    def careful(_: Array) -> tuple[Array, Array]:
        rows, peaks = scaled_rows(leaves)
        cosines, norms = split(products(rows))
        return cosines, norms * peaks

    gramian = products(leaves)
    squares = jnp.diagonal(gramian)
    # A sum of squares is trusted where even its average term, squared again by nobody, is well inside the range.
    low, high = size * float(information.tiny) / float(information.eps), float(information.max) ** 0.99
    safe = jnp.all((squares > low) & (squares < high))
    return jax.lax.cond(safe, split, careful, gramian)


def _products(leaf: Array) -> Float[Array, "K K"]:
    count, size = leaf.shape
    block = max(_BLOCK, -(-size // _BLOCKS))

    def add(total: Array, piece: Array) -> Array:
        return total + jnp.matmul(piece, piece.T, preferred_element_type=dtype)

    dtype = wide_dtype(leaf)
    whole = size // block if size > block else 0
    total = jnp.zeros((count, count), dtype)
    if whole:
        total = jax.lax.fori_loop(
            0, whole, lambda i, t: add(t, jax.lax.dynamic_slice(leaf, (0, i * block), (count, block))), total
        )
    return add(total, leaf[:, whole * block :])


def scaled_rows(tree: PyTree) -> tuple[list[Float[Array, "K size"]], Float[Array, " K"]]:
    """Each objective's row of every leaf over the objective's largest entry, and these."""
    dtype = wide_dtype(tree)
    rows = [jnp.reshape(leaf, (jnp.shape(leaf)[0], -1)).astype(dtype) for leaf in jax.tree.leaves(tree)]
    peaks = jnp.max(jnp.stack([jnp.max(jnp.abs(row), axis=1, initial=0) for row in rows]), axis=0)
    peaks = nonzero(peaks)
    return [row / peaks[:, None] for row in rows], peaks


def finite(leaf: Array, axis: int | tuple[int, ...] | None = None) -> Bool[Array, "..."]:
    """Whether all entries along the axes are: 0 · x is 0 or NaN, and summing these is quicker than a conjunction."""
    return jnp.isfinite(jnp.sum(0 * leaf, axis=axis))


def with_unit_diagonal(cosines: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """Vanished gradients get a 1, which leaves them out of every solve."""
    return cosines + jnp.diag(1 - jnp.diagonal(cosines))


@exact
def combine(grads: PyTree, weights: Float[Array, " K"]) -> PyTree:
    """Weighted sum over the leading axis, each leaf in its own dtype."""

    def leaf(value: Array) -> Array:
        flat = jnp.reshape(value, (value.shape[0], math.prod(value.shape[1:])))
        dtype = jnp.promote_types(weights.dtype, value.dtype)
        return (weights.astype(dtype) @ flat.astype(dtype)).reshape(value.shape[1:]).astype(value.dtype)

    return jax.tree.map(leaf, grads)


@exact
def slopes_along(
    gradients: PyTree, updates: PyTree, norms: Float[Array, " K"]
) -> tuple[Float[Array, " K"], Float[Array, ""]]:
    """Cosines of a vector with every gradient, and the vector's norm; no square leaves the number range."""
    dtype = norms.dtype
    flat, scale = scaled([jnp.ravel(leaf).astype(dtype) for leaf in jax.tree.leaves(updates)])
    length = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in flat))
    unit = [leaf / jnp.where(length > 0, length, 1) for leaf in flat]
    products = sum(
        jnp.matmul(jnp.reshape(row, (row.shape[0], -1)), u.astype(row.dtype), preferred_element_type=dtype)
        for row, u in zip(jax.tree.leaves(gradients), unit)
    )
    return divide(products, norms), length * scale
