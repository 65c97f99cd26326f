"""Nablax (∇ in JAX): see, fix and follow the gradient fields inside your models."""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = ["__version__"]
