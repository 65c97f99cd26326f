"""Cells to which the training data give no probability, in words."""

import numpy as np
import polars as pl

from .._runs._run import Model


def unseen(model: Model, frame: pl.DataFrame, base: np.ndarray) -> list[str]:
    """Say which cells leave their row without probability.

    Args:
        model: the opened run.
        frame: the rows, as they were read.
        base: the same, encoded.

    Returns:
        One line for each column that has such cells, which shows the first of them; none for images.
    """
    if not model.codec.impossible(base).any():
        return []
    lines = []
    for j, kind in enumerate(model.table("score").modelled):
        odd = np.flatnonzero(base[:, j, 0] < 0)
        if len(odd):
            cell = frame[kind.name][int(odd[0])]
            told = "is missing, and was in no training row" if cell is None else f"is {cell!r}, unseen in training"
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            lines.append(f"likelihood -inf in row {odd[0] + 1}{more}: '{kind.name}' {told}")
    return lines
