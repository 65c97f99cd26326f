"""The command line, data files, run folders, reports, and the scikit-learn face. An extra: ``nablax[app]``.

Chambers:

- ``_ask``: what one asks of a run: samples, guided samples, scores, completions, a density.
- ``_data``: where data comes from: a source, its columns, and the code that turns cells into numbers and back.
- ``_report``: what came of a run: the evidence, the verdict on it, and the page that shows both.
- ``_runs``: a run: its configuration, its folder, and the learning that fills it.
"""

from typing import TYPE_CHECKING, Any

from .._core import require

if TYPE_CHECKING:
    from ._ask._density import FlowDensity as FlowDensity

__all__ = ["FlowDensity", "main"]


def main() -> None:
    """Run the command line, ``nablax``.

    Raises:
        ImportError: the extra is not installed.
    """
    for package in ("typer", "rich", "polars"):
        require(package, extra="app")
    from ._cli import run

    run()


def __getattr__(name: str) -> Any:
    # scikit-learn's base class is needed to define the estimator: it is loaded when the estimator is asked for.
    if name == "FlowDensity":
        require("sklearn", extra="app")
        from ._ask._density import FlowDensity

        return FlowDensity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
