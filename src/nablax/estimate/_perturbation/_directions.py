"""Random directions in the space of a tree's leaves, each with E vvᵀ = I."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, check_count, exact, fault, normal, space, unit_vector, unrolled, wide_dtype

Directions = Literal["gaussian", "rademacher", "sphere", "orthogonal"]
KINDS: tuple[str, ...] = ("gaussian", "rademacher", "sphere", "orthogonal")


def check_directions(kind: str, probes: int, *, one_by_one: bool = False) -> None:
    """Refuse a kind of directions that there is not, or no number of them.

    Args:
        kind: its name.
        probes: how many.
        one_by_one: the directions are drawn apart, so that they cannot be orthogonal.

    Raises:
        ValueError: either.
    """
    known = KINDS[:2] if one_by_one else KINDS
    if kind not in known:
        raise fault(expected=f"directions among {', '.join(known)}", got=repr(kind), fix="Choose one of these names.")
    check_count(probes, what="probes")


def draw(kind: str, key: Key, like: PyTree) -> PyTree:
    """One direction, Gaussian or of signs, in single precision at least; a key of its own for each leaf.

    Leaves of one shape with one key would have one direction: right on average for each, wrong for what joins them.
    """
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [draw_leaf(kind, key, number, leaf) for number, leaf in enumerate(leaves)])


def draw_leaf(kind: str, key: Key, number: int | Array, leaf: Array) -> Array:
    """The leaf of that number of what `draw` draws."""
    key = jax.random.fold_in(key, number)
    if kind == "gaussian":
        return normal(key, leaf.shape, wide_dtype(leaf))
    return jax.random.rademacher(unrolled(key), leaf.shape, wide_dtype(leaf))


def directions(kind: str, key: Key, like: PyTree, probes: int) -> PyTree:
    """So many directions, stacked on a leading axis of every leaf, in single precision at least.

    On the sphere of radius √d, d the number of entries, lengths do not vary; orthogonal ones have that length too, and
    d of them are √d times a frame, so that Σ vvᵀ / d = I.

    Raises:
        ValueError: more orthogonal directions are asked for than there are dimensions.
    """
    if kind in ("gaussian", "rademacher"):
        return jax.vmap(lambda key: draw(kind, key, like))(jax.random.split(key, probes))
    vectors = space(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, wide_dtype(leaf)), like))
    dim = vectors.flat.size
    if kind == "orthogonal" and probes > dim:
        raise fault(
            expected=f"at most {dim} orthogonal directions, the number of parameters",
            got=probes,
            fix="Average over keys for more: nablax.estimate.average.",
        )
    block = normal(key, (dim, probes), vectors.flat.dtype)
    return vectors.rows(jnp.sqrt(jnp.asarray(dim, block.dtype)) * _normalised(kind, block).T)


@exact
def _normalised(kind: str, block: Float[Array, "dim probes"]) -> Float[Array, "dim probes"]:
    if kind == "orthogonal":
        return jnp.linalg.qr(block)[0]
    return unit_vector(block, 0)
