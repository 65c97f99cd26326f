"""A step of PSGD by Kronecker factors on large matrices."""

from pathlib import Path

from . import _matrix_steps

TITLE = "PSGD step, 16 × (256²), one fit in 10"
PEER = "pytorch_optimizer 4.1.0, Kron: triangular factors"
UNIT = _matrix_steps.UNIT
TARGET = "1×"
BETTER = "lower"
LEAVES, SIDE = 16, 256


def prepare(folder: Path) -> dict:
    return {}


def ours(folder: Path) -> dict:
    def rule():
        import jax

        from nablax import optimize

        return optimize.psgd(1e-4, probability=0.1, momentum=0.9, key=jax.random.key(0))

    return _matrix_steps.ours(rule, LEAVES, SIDE)


def peer(folder: Path) -> dict:
    def rule(weights):
        import pytorch_optimizer

        return pytorch_optimizer.Kron(weights, lr=1e-4, pre_conditioner_update_probability=0.1)

    return _matrix_steps.peer(rule, LEAVES, SIDE)
