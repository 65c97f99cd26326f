"""What a report shows that nobody has to measure: rows, the curves of training, commands to go on with."""

import json
from typing import Any

import numpy as np
import polars as pl

from .._runs._run import Model, Run
from ._evidence import Command, Training

_DAY = 86_400e6  # microseconds


def dates_of(frame: pl.DataFrame) -> tuple[str, ...]:
    """The columns that `shown` gives as days since 1970."""
    return tuple(name for name, dtype in frame.schema.items() if dtype in (pl.Date, pl.Datetime))


def shown(frame: pl.DataFrame) -> Any:
    """Rows as the report's pictures want them."""
    if isinstance(frame.schema.get("image"), pl.Array):
        return frame["image"].to_numpy()
    shown = {}
    for series in frame:
        if series.dtype in (pl.Date, pl.Datetime):
            series = series.cast(pl.Datetime("us")).to_physical() / _DAY
        elif series.dtype.is_temporal():
            series = series.to_physical().cast(pl.Float64)
        if series.dtype.is_numeric():
            shown[series.name] = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        else:
            shown[series.name] = np.array(series.cast(pl.String).to_list(), dtype=object)
    return shown


def training_of(run: Run) -> Training:
    curve = run.metrics()
    outcome = json.loads((run.path / "training.json").read_text())
    validated = np.isfinite(curve["validation"])
    return Training(
        step=curve["step"],
        loss=curve["loss"],
        validation_step=curve["step"][validated],
        validation=curve["validation"][validated],
        best_step=outcome["best_step"],
        result=outcome["result"],
    )


def commands_of(model: Model) -> list[Command]:
    run, images = model.run.path, model.config.kind == "images"
    new, other = ("new.png", "other.npz") if images else ("new.csv", "other.csv")
    commands = [
        Command(f"nablax sample {run} -n 500 -o {new}", "draw new rows"),
        Command(f"nablax score {run} {other} -o scored.csv", "log-likelihood of other rows; the unusual ones"),
    ]
    if not images:
        commands.append(Command(f"nablax complete {run} holes.csv -o filled.csv", "fill missing cells"))
    return commands


__all__ = ["commands_of", "dates_of", "shown", "training_of"]
