"""A step of SOAP on many small matrices."""

from pathlib import Path

from . import _matrix_steps

TITLE = "SOAP step, 64 × (64²), bases anew every 10"
PEER = "pytorch_optimizer 4.1.0, SOAP"
UNIT = _matrix_steps.UNIT
TARGET = "3×"
BETTER = "lower"
LEAVES, SIDE = 64, 64


def prepare(folder: Path) -> dict:
    return {}


def ours(folder: Path) -> dict:
    def rule():
        from nablax import optimize

        return optimize.soap(1e-4, weight_decay=0.0)

    return _matrix_steps.ours(rule, LEAVES, SIDE)


def peer(folder: Path) -> dict:
    def rule(weights):
        import pytorch_optimizer

        return pytorch_optimizer.SOAP(weights, lr=1e-4, weight_decay=0.0)

    return _matrix_steps.peer(rule, LEAVES, SIDE)
