"""Who descends and who ascends, as a factor for each part of the parameters."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from ..._core import fault
from .._prefix import places

Ascends = PyTree | Callable[[PyTree], PyTree]


def by_player(ascends: Ascends | None, tree: PyTree, descent: Any, ascent: Any) -> PyTree:
    """One of two factors for each leaf of a tree: of who descends, or of who ascends.

    Args:
        ascends: a tree of booleans that the tree begins with, or a function of it that returns one; of None all
            descend.
        tree: shaped like the parameters.
        descent: the factor of who descends.
        ascent: that of who ascends.

    Returns:
        A tree of factors, shaped like ``tree``.

    Raises:
        ValueError: the booleans are none, or in a tree that the parameters' does not begin with.
    """
    # A module of booleans can be called as well, and is meant as the tree that it is.
    flags: Any = False if ascends is None else ascends
    if callable(flags) and jax.tree_util.all_leaves([flags]):
        flags = flags(tree)
    if not all(isinstance(flag, bool) for flag in jax.tree.leaves(flags)):
        raise fault(expected="ascends, a tree of True and False", got=repr(flags), fix="Pass (False, True), for one.")
    found = places(
        flags, tree, what="ascends", fix="Give a boolean for each part: {'generator': False, 'critic': True}."
    )
    factors = [ascent if flag else descent for flag, place in found for _ in jax.tree.leaves(place)]
    structure: Any = jax.tree.structure(tree)
    return structure.unflatten(factors)
