"""Nablax (∇ in JAX): see, fix and follow the gradient fields inside your models."""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "app",
    "calculus",
    "diagnose",
    "estimate",
    "fields",
    "follow",
    "optimize",
    "papers",
    "regulate",
    "spaces",
    "transport",
)

__all__ = [*_ROOMS, "__version__"]


def __getattr__(name: str) -> ModuleType:
    # Rooms are imported when they are asked for: `import nablax` stays light.
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
