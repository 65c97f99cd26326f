"""Cells and rows to which the model gives no probability, in words."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from .._data._codec import Codec
from .._data._relations import AbstractComputed
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


def unused(codec: Codec, frame: pl.DataFrame, gone: Mapping[str, np.ndarray], rows: np.ndarray) -> list[str]:
    """Say which cells are there and tell the model nothing of the others in their rows.

    Args:
        codec: of the table.
        frame: the rows, as they were read.
        gone: which cells are missing [n], by column.
        rows: those that are filled.

    Returns:
        One line for each column that has such cells, which shows the first of them.
    """
    lines = []
    filled = frame[rows]
    for kind in codec.modelled if len(rows) else ():
        cells, lost = kind.parse(filled[kind.name])
        odd = np.flatnonzero(~gone[kind.name][rows] & (lost | (kind.encode(cells)[0] < 0)))
        if len(odd):
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            cell = filled[kind.name][int(odd[0])]
            lines.append(f"not used in row {rows[odd[0]] + 1}{more}: '{kind.name}' is {cell!r}, unseen in training")
    return lines


def breaking(model: Model, frame: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Which rows break a relation that is kept, and say so.

    Args:
        model: the opened run.
        frame: the rows, as they were read.

    Returns:
        Booleans [n], and one line for each relation that is broken, which shows the first row that does.
    """
    codec = model.codec
    lines: list[str] = []
    lost = np.zeros(len(frame), bool)
    if not isinstance(codec, Codec):
        return lost, lines
    for relation, breaks in codec.broken(frame).items():
        odd = np.flatnonzero(breaks)
        if not len(odd):
            continue
        lost |= breaks
        row = frame[int(odd[0])]
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        told = f"breaks '{relation}'"
        if isinstance(relation, AbstractComputed):
            typed = row.select(codec.column(name).parse(row[name])[0].alias(name) for name in relation.inputs)
            said = codec.spell(codec.work_out(typed).select(relation.target))[relation.target][0]
            gives = "nothing" if said is None else said
            told = f"'{relation.target}' is {row[relation.target][0]}, and {relation.formula} gives {gives}"
        lines.append(f"likelihood -inf in row {odd[0] + 1}{more}: {told}")
    if codec.orders:
        lines.append(
            "rows that break an order are drawn anew; likelihoods are those before, which are too low by the logarithm "
            "of the share that obeys"
        )
    return lost, lines


__all__ = ["breaking", "unseen", "unused"]
