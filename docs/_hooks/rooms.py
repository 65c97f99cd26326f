"""Rooms, chambers and public names, as the package itself gives them."""

import ast
import dataclasses
import functools
import importlib
import inspect
import types
import typing
from typing import Any

import nablax


@dataclasses.dataclass(frozen=True)
class Public:
    """A public name.

    Attributes:
        room: that exports it.
        chamber: folder of the room that defines it, without the underscore; empty where it is the room itself.
        name: as exported.
        thing: what it names.
    """

    room: str
    chamber: str
    name: str
    thing: Any

    @property
    def address(self) -> str:
        """Where a person imports it from."""
        return f"nablax.{self.room}.{self.name}"

    @property
    def kind(self) -> str:
        """The part of a page that it stands in."""
        if typing.get_origin(self.thing) is not None:
            return "types"
        if not inspect.isclass(self.thing):
            return "functions"
        return "states" if self.name.endswith("State") and issubclass(self.thing, tuple) else "records"

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return (inspect.getdoc(self.thing) or "").partition("\n")[0]


def rooms() -> list[str]:
    """List the rooms that the package exports, by name."""
    return [name for name in nablax.__all__ if not name.startswith("_")]


@functools.cache
def public(room: str) -> tuple[Public, ...]:
    """List a room's public names: functions, records, types, and states at the end.

    Args:
        room: one of `rooms`.

    Returns:
        One `Public` for each name in the room's ``__all__``.
    """
    module = importlib.import_module(f"nablax.{room}")
    inside = _chambers(module)
    names = [Public(room, inside.get(name, ""), name, getattr(module, name)) for name in module.__all__]
    order = ("functions", "records", "types", "states")
    return tuple(sorted(names, key=lambda entry: (order.index(entry.kind), entry.name)))


def chambers(room: str) -> list[str]:
    """List the chambers that export something, by name; the room's own names first, as the empty one."""
    return sorted({entry.chamber for entry in public(room)})


def described(room: str, chamber: str = "") -> str:
    """Read what a room, or a chamber of it, says of itself in its ``__init__``."""
    return inspect.getdoc(importlib.import_module(f"nablax.{room}" + (f"._{chamber}" if chamber else ""))) or ""


def address(name: str, room: str) -> str | None:
    """Find where a name is documented.

    Args:
        name: short, dotted from a room or a class, or in full.
        room: whose docstring says it.

    Returns:
        The address of its entry, or None for what is no public name.
    """
    parts = name.removeprefix("nablax.").split(".")
    if parts[0] in rooms() and len(parts) > 1:
        room, *parts = parts
    # A private room exports its names through others, and has none of its own.
    found = {entry.name: entry for entry in (public(room) if room in rooms() else ())}.get(parts[0])
    if found is None or len(parts) > 2:
        return None
    if len(parts) == 2:
        methods = vars(found.thing) if inspect.isclass(found.thing) else {}
        if parts[1] not in methods or not callable(getattr(found.thing, parts[1])):
            return None
    return ".".join([found.address, *parts[1:]])


def _chambers(room: types.ModuleType) -> dict[str, str]:
    """Say which chamber each name is imported from: a type's own ``__module__`` may be that of ``typing``."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(inspect.getsource(room))):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and "." in (node.module or ""):
            chamber = node.module.partition(".")[0].removeprefix("_")
            found |= {name.asname or name.name: chamber for name in node.names}
    return found
