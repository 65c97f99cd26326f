"""Follow a field: field + state → next state. Flows, the training loop, and a model's arrays on disk."""

from ._fit import Fit, fit
from ._flow import Solution, flow
from ._momentum_field import momentum_field
from ._progress import History, Progress
from ._save import load, save
from ._solver import Solver
from ._step import train_step
from ._watched import LoweredState, lowered

__all__ = [
    "Fit",
    "History",
    "LoweredState",
    "Progress",
    "Solution",
    "Solver",
    "fit",
    "flow",
    "load",
    "lowered",
    "momentum_field",
    "save",
    "train_step",
]
