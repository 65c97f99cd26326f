"""Cells that follow from others, in rows that are being completed."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from .._data._codec import Codec
from .._kinds._kind import AbstractKind


def whole(drawn: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Known cells as they stand, and drawn ones where none is known.

    Args:
        drawn: typed rows, of some of the columns.
        known: the same rows of all columns, null where unknown.
    """
    return known.with_columns(
        pl.when(known[series.name].is_null()).then(series).otherwise(known[series.name]).alias(series.name)
        for series in drawn
        if series.name in known.columns
    )


def worked(codec: Codec, drawn: pl.DataFrame, known: pl.DataFrame, names: Sequence[str]) -> dict[str, pl.Series]:
    """The columns of these names that follow from others, worked out from known cells and drawn ones."""
    rows = codec.work_out(whole(drawn, known))
    return {name: rows[name] for name in names}


def put_right(codec: Codec, drawn: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Drawn rows in which what follows from other cells does so from the known ones."""
    return drawn.with_columns(list(worked(codec, drawn, known, list(codec.computed)).values()))


def said(codec: Codec, frame: pl.DataFrame, follows: Mapping[str, np.ndarray]) -> list[str]:
    """Say which cells follow from their rows, and which rows break what is kept.

    Args:
        codec: of the table.
        frame: the rows as they were read.
        follows: the cells [n] that were worked out, by column.
    """
    lines = [
        f"{int(cells.sum())} cells of {name} follow from their rows: worked out, not drawn"
        for name, cells in follows.items()
        if cells.any()
    ]
    for relation, breaks in codec.broken(frame).items():
        odd = np.flatnonzero(breaks)
        if len(odd):
            more = f" and {len(odd) - 1} more rows break" if len(odd) > 1 else " breaks"
            lines.append(f"row {odd[0] + 1}{more} '{relation}': their cells stay as they are")
    return lines


def certain(kind: AbstractKind, cells: pl.Series, beside: pl.Series) -> pl.Series:
    """What stands beside cells that follow from their rows: no spread, full agreement, or ends that are the cells."""
    if beside.name in (f"{kind.name}_low", f"{kind.name}_high"):
        return kind.spell(cells).cast(beside.dtype)
    return pl.Series([0.0 if kind.valued else 1.0] * len(cells), dtype=pl.Float64)


__all__ = ["certain", "put_right", "said", "whole", "worked"]
