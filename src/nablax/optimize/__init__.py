"""Gradient(s) in, update out, with a learning rate; problems with several objectives, players or levels."""

from ._ridge_rider import Branches, local_exponents, ridge_rider

__all__ = ["Branches", "local_exponents", "ridge_rider"]
