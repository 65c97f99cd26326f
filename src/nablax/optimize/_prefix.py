"""A setting for each leaf, given for a whole tree, for parts of it, or leaf by leaf."""

from typing import Any

import jax
from jaxtyping import PyTree

from .._core import fault


def by_leaf(settings: PyTree, tree: PyTree, *, kind: type | tuple[type, ...], what: str, fix: str) -> list[Any]:
    """The setting of each leaf of a tree, in the order of its leaves.

    Args:
        settings: in a tree that the other begins with; None, where nothing is said, is a setting too.
        tree: parameters or updates, masked places and None in it or not.
        kind: type of a setting.
        what: the settings in words, such as "norms".
        fix: what the user can do.

    Raises:
        ValueError: the settings are no prefix of the tree, or one is of another type.
    """
    parts, structure = _flat(settings, kind)
    try:
        places = structure.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        raise fault(
            expected=f"{what} in a tree that the parameters' tree begins with",
            got=f"{structure} for parameters of {jax.tree.structure(tree)}",
            fix=fix,
        ) from error
    for part in parts:
        if not (part is None or (isinstance(part, kind) and not isinstance(part, bool))):
            raise fault(expected=f"{what}, or None", got=repr(part), fix=fix)
    return [part for part, place in zip(parts, places) for _ in jax.tree.leaves(place)]


def _flat(settings: PyTree, kind: type | tuple[type, ...]) -> tuple[list, Any]:
    """Leaves and structure, in a type that mypy knows the methods of."""
    return jax.tree.flatten(settings, is_leaf=lambda part: part is None or isinstance(part, kind))
