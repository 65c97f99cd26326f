"""Where points live: exponential and logarithm, metric, projection."""

from ._euclidean import Euclidean
from ._lorentz import Lorentz
from ._manifold import AbstractManifold
from ._poincare_ball import PoincareBall
from ._positive_definite import PositiveDefinite
from ._rotations import Rotations
from ._space import AbstractSpace
from ._sphere import Sphere
from ._stiefel import Stiefel

__all__ = [
    "AbstractManifold",
    "AbstractSpace",
    "Euclidean",
    "Lorentz",
    "PoincareBall",
    "PositiveDefinite",
    "Rotations",
    "Sphere",
    "Stiefel",
]
