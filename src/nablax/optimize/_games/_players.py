"""Who descends and who ascends, as a factor for each part of the parameters."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from ..._core import fault

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
    parts: list = jax.tree.leaves(flags)
    if not all(isinstance(flag, bool) for flag in parts):
        raise fault(expected="ascends, a tree of True and False", got=repr(flags), fix="Pass (False, True), for one.")
    structure: Any = jax.tree.structure(flags)
    try:
        places = structure.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        raise fault(
            expected="ascends in a tree that the parameters' tree begins with",
            got=f"{structure} for parameters of {jax.tree.structure(tree)}",
            fix="Give a boolean for each part: {'generator': False, 'critic': True}.",
        ) from error
    factors = [jax.tree.map(lambda leaf, f=ascent if flag else descent: f, place) for flag, place in zip(parts, places)]
    return structure.unflatten(factors)
