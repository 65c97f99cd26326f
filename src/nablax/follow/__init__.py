"""Follow a field: field + state → next state. Flows, and the training loop."""

from ._fit import Fit, fit
from ._flow import Solution, flow
from ._progress import History, Progress

__all__ = [
    "Fit",
    "History",
    "Progress",
    "Solution",
    "fit",
    "flow",
]
