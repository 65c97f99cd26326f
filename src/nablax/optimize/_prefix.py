"""A setting for each leaf, given for a whole tree, for parts of it, or leaf by leaf."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from .._core import fault


def places(
    settings: PyTree, tree: PyTree, *, what: str, fix: str, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[Any, PyTree]]:
    """Each setting, with the part of a tree that it is for.

    Args:
        settings: in a tree that the other begins with.
        tree: parameters or updates, masked places and None in it or not.
        what: the settings in words, such as "norms".
        fix: what the user can do.
        is_leaf: whether something is a setting, where it could be a tree too.

    Raises:
        ValueError: the settings are no prefix of the tree.
    """
    parts: list = jax.tree.leaves(settings, is_leaf=is_leaf)
    structure: Any = jax.tree.structure(settings, is_leaf=is_leaf)
    try:
        return list(zip(parts, structure.flatten_up_to(tree)))
    except (ValueError, TypeError) as error:
        raise fault(
            expected=f"{what} in a tree that the parameters' tree begins with",
            got=f"{structure} for parameters of {jax.tree.structure(tree)}",
            fix=fix,
        ) from error


def by_leaf(settings: PyTree, tree: PyTree, *, kind: type | tuple[type, ...], what: str, fix: str) -> list[Any]:
    """The setting of each leaf of a tree, in the order of its leaves; None, where nothing is said, is one too.

    Args:
        settings: in a tree that the other begins with.
        tree: parameters or updates.
        kind: type of a setting.
        what: the settings in words.
        fix: what the user can do.

    Raises:
        ValueError: the settings are no prefix of the tree, or one is of another type.
    """

    def is_setting(part: Any) -> bool:
        return part is None or isinstance(part, kind)

    found = places(settings, tree, what=what, fix=fix, is_leaf=is_setting)
    for part, _ in found:
        if not is_setting(part) or isinstance(part, bool):
            raise fault(expected=f"{what}, or None", got=repr(part), fix=fix)
    return [part for part, place in found for _ in jax.tree.leaves(place)]
