"""A step of MARS on large matrices."""

from pathlib import Path

from . import _matrix_steps

TITLE = "MARS step, 16 × (256²)"
PEER = "pytorch_optimizer 4.1.0, MARS"
UNIT = _matrix_steps.UNIT
TARGET = "3×"
BETTER = "lower"
LEAVES, SIDE = 16, 256


def ours(folder: Path) -> dict:
    return _matrix_steps.ours(_matrix_steps.mars, LEAVES, SIDE)


def peer(folder: Path) -> dict:
    return _matrix_steps.peer(_matrix_steps.peers_mars, LEAVES, SIDE)
