"""A step of PSGD by Kronecker factors on large matrices."""

from pathlib import Path

from . import _matrix_steps

TITLE = "PSGD step, 16 × (256²), one fit in 10"
PEER = "pytorch_optimizer 4.1.0, Kron: triangular factors"
UNIT = _matrix_steps.UNIT
TARGET = "1×"
BETTER = "lower"
LEAVES, SIDE = 16, 256


def ours(folder: Path) -> dict:
    return _matrix_steps.ours(_matrix_steps.psgd, LEAVES, SIDE)


def peer(folder: Path) -> dict:
    return _matrix_steps.peer(_matrix_steps.peers_psgd, LEAVES, SIDE)
