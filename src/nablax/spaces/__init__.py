"""Where points live: exponential and logarithm, metric, projection."""

from ._euclidean import Euclidean
from ._space import AbstractSpace

__all__ = ["AbstractSpace", "Euclidean"]
