"""The same by directions of signs."""

from pathlib import Path

from . import forward_gradient

TITLE = "the same by directions of signs"
PEER, UNIT, TARGET, BETTER = forward_gradient.PEER, forward_gradient.UNIT, forward_gradient.TARGET, "lower"

prepare = forward_gradient.prepare


def ours(folder: Path) -> dict:
    forward_gradient.DIRECTIONS = "rademacher"
    return forward_gradient.ours(folder)


def peer(folder: Path) -> dict:
    forward_gradient.DIRECTIONS = "rademacher"
    return forward_gradient.peer(folder)
