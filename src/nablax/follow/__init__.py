"""Follow a field: field + state → next state. Flows, and the training loop."""

from ._fit import Fit, fit
from ._flow import Solution, flow
from ._progress import History, Progress
from ._ridge_rider import Branches, local_exponents, ridge_rider

__all__ = [
    "Branches",
    "Fit",
    "History",
    "Progress",
    "Solution",
    "fit",
    "flow",
    "local_exponents",
    "ridge_rider",
]
