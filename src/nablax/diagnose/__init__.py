"""Anything in, numbers with units and standard errors out; nothing is changed.

Each diagnostic returns a record whose ``table()`` prints it.
"""

from ._conservativity import Conservativity, conservativity
from ._continuity import Continuity, continuity
from ._path_geometry import PathGeometry, path_geometry

__all__ = [
    "Conservativity",
    "Continuity",
    "PathGeometry",
    "conservativity",
    "continuity",
    "path_geometry",
]
