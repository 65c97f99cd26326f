"""Where points live: exponential and logarithm, metric, projection."""

from ._euclidean import Euclidean

__all__ = ["Euclidean"]
