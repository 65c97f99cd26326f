"""The papers that are there, read from their files without importing any."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

from ._records import Paper

_ROOM = Path(__file__).parent


def available() -> list[Paper]:
    """List the papers whose claims run, in the order of their rows.

    Returns:
        The `Paper` of each module of this room.

    Example:
        >>> from nablax import papers
        >>> "rectified-flow" in [paper.slug for paper in papers.available()]
        True

    Cost:
        Each module is parsed, none is imported.
    """
    return sorted((_paper(path) for path in _ROOM.glob("[!_]*/[!_]*.py")), key=lambda paper: paper.row)


def module(paper: Paper) -> ModuleType:
    """Import the module that checks a paper's claims; it is named after the slug, in its first room's folder."""
    return importlib.import_module(f".{paper.rooms[0]}.{paper.slug.replace('-', '_')}", __package__)


def _paper(path: Path) -> Paper:
    """Build the record that the module builds, from the literals of its call."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PAPER":
            call = node.value
            assert isinstance(call, ast.Call), path
            return Paper(
                *(ast.literal_eval(value) for value in call.args),
                **{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords},
            )
    raise ValueError(f"{path} holds no PAPER")


__all__ = ["available", "module"]
