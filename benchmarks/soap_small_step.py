"""A step of SOAP on many small matrices."""

from pathlib import Path

from . import _matrix_steps

TITLE = "SOAP step, 64 × (64²), bases anew every 10"
PEER = "pytorch_optimizer 4.1.0, SOAP"
UNIT = _matrix_steps.UNIT
TARGET = "3×"
BETTER = "lower"
LEAVES, SIDE = 64, 64


def ours(folder: Path) -> dict:
    return _matrix_steps.ours(_matrix_steps.soap, LEAVES, SIDE)


def peer(folder: Path) -> dict:
    return _matrix_steps.peer(_matrix_steps.peers_soap, LEAVES, SIDE)
