"""A trained run, opened from Python."""

from pathlib import Path
from typing import TYPE_CHECKING

from .._core import require

if TYPE_CHECKING:
    from ._runs._run import Model

# What every command and every opened run needs, of the extra.
NEEDED = ("typer", "rich", "polars")


def open_run(path: Path | str) -> "Model":
    """Open a trained run of the command line; no code in it is executed.

    Args:
        path: the run folder that ``nablax learn`` wrote.

    Returns:
        The model: ``transport`` is the learned field, ``encode`` and ``decode`` lead from rows to its points and
        back, ``config`` holds every choice that was made.

    Raises:
        UserError: no such folder, no configuration, not trained yet, or weights that cannot be read.
        ImportError: the extra is not installed.

    Example:
        >>> import jax
        >>> from nablax.app import open_run
        >>> def others_like(folder, rows):  # of the same categories, with values drawn anew
        ...     model, key = open_run(folder), jax.random.key(0)
        ...     _, condition = model.encode(rows, key=key)
        ...     return model.decode(model.transport.sample(len(rows), key=key, args=condition), condition)

    Cost: reading the weights.
    """
    for package in NEEDED:
        require(package, extra="app")
    from ._runs._run import load

    return load(path)


__all__ = ["NEEDED", "open_run"]
