"""A rule written for one array, applied to every array of a tree, with as many trees coming out as it returns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._core import wide_dtype


def over_leaves(function: Callable[..., tuple], count: int, first: PyTree, *others: PyTree) -> tuple[PyTree, ...]:
    """Call ``function`` with the arrays of the first tree and what the others hold at their places.

    Args:
        function: of one leaf of the first tree and the part of each other tree in its place; it returns a tuple.
        count: length of that tuple.
        first: the tree whose leaves are gone through; None and masked places stay what they are.
        others: trees with the first's structure, whose leaves may be trees themselves.

    Returns:
        ``count`` trees with the first's structure.
    """
    structure: Any = jax.tree.structure(first)
    leaves = jax.tree.leaves(first)
    rest = [structure.flatten_up_to(tree) for tree in others]
    results = [function(*parts) for parts in zip(leaves, *rest)]
    return tuple(structure.unflatten([result[i] for result in results]) for i in range(count))


def wide_zeros(params: PyTree) -> PyTree:
    """Zeros shaped like the parameters, in single precision at least: averages drown in half precision."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, wide_dtype(leaf)), params)


def like(new: PyTree, old: PyTree) -> PyTree:
    """A tree in the types of another, so that a state keeps its own whatever the settings are made of."""
    return jax.tree.map(lambda one, other: one.astype(other.dtype), new, old)


def bias(decay: Any, steps: Any) -> Any:
    """What an average of so many steps, begun at zero, has seen of its weight: 1 minus the decay to their power."""
    return 1 - decay**steps
