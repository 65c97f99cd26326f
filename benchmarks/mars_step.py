"""A step of MARS on large matrices."""

from pathlib import Path

from . import _matrix_steps

TITLE = "MARS step, 16 × (256²)"
PEER = "pytorch_optimizer 4.1.0, MARS"
UNIT = _matrix_steps.UNIT
TARGET = "3×"
BETTER = "lower"
LEAVES, SIDE = 16, 256


def prepare(folder: Path) -> dict:
    return {}


def ours(folder: Path) -> dict:
    def rule():
        from nablax import optimize

        return optimize.mars(1e-4)

    return _matrix_steps.ours(rule, LEAVES, SIDE)


def peer(folder: Path) -> dict:
    def rule(weights):
        import pytorch_optimizer

        return pytorch_optimizer.MARS(weights, lr=1e-4)

    return _matrix_steps.peer(rule, LEAVES, SIDE)
