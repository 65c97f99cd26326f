"""Errors that speak to the user: what was expected, what came, what to do."""

import importlib
from types import ModuleType


def fault(*, expected: object, got: object, fix: str) -> ValueError:
    """Build the ``ValueError`` for a static fault, to be raised by the caller.

    Args:
        expected: what the function needs, in words.
        got: what it was given.
        fix: what the user can do about it.

    Returns:
        The exception; the caller writes ``raise fault(...)`` so that the traceback ends where the fault is.
    """
    return ValueError(f"expected {expected}, got {got}. {fix}")


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency where it is used.

    Args:
        module: dotted name of the module.
        extra: the extra of this package that installs it.

    Returns:
        The module.

    Raises:
        ImportError: the module is absent; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"this needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'nablax[{extra}]'"
        ) from error
