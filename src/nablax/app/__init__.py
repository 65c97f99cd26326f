"""The command line, data files, run folders, reports, and the scikit-learn face. An extra: ``nablax[app]``.

Chambers:

- ``_ask``: what one asks of a run: samples, guided samples, scores, completions, a density.
- ``_data``: where data comes from: a source, its columns, and the code that turns cells into numbers and back.
- ``_kinds``: kinds of columns: how each is recognised, read, encoded as a state and a value, and spelled again.
- ``_model``: the model of a table: its cells' states by a network, their values by a field.
- ``_report``: what came of a run: the evidence, the verdict on it, and the page that shows both.
- ``_runs``: a run: its configuration, its folder, and the learning that fills it.
"""

import gc
from typing import TYPE_CHECKING, Any

from .._core import require
from ._open_run import NEEDED, open_run
from ._plot import plot_density, plot_field, plot_samples
from ._table import Page, Table

if TYPE_CHECKING:
    from ._ask._density import FlowDensity as FlowDensity
    from ._runs._run import Model as Model

__all__ = ["FlowDensity", "Model", "Page", "Table", "main", "open_run", "plot_density", "plot_field", "plot_samples"]


def main() -> None:
    """Run the command line, ``nablax``.

    Raises:
        ImportError: the extra is not installed.
    """
    # Tracing makes a million objects that stay. To look through them for garbage as often as Python does takes a
    # tenth of a short command's time.
    gc.set_threshold(100_000)
    for package in NEEDED:
        require(package, extra="app")
    from ._cli import run

    run()


def __getattr__(name: str) -> Any:
    # scikit-learn's base class is needed to define the estimator: it is loaded when the estimator is asked for.
    if name == "FlowDensity":
        require("sklearn", extra="app")
        from ._ask._density import FlowDensity

        return FlowDensity
    if name == "Model":
        for package in NEEDED:
            require(package, extra="app")
        from ._runs._run import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
