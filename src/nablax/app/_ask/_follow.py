"""Cells that follow from others, in rows that are being completed."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from .._data._codec import Codec
from .._data._kept import solved_input
from .._data._readings import half_unit
from .._data._relations import Formula
from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import numbers


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


def put_right(codec: Codec, drawn: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Drawn rows in which what follows from other cells does.

    Where a target is known and several of its inputs are not, the last of these that can be is solved for.

    Args:
        codec: of the table.
        drawn: typed rows, of some of the columns.
        known: the same rows of all columns, null where unknown.
    """
    rows = whole(drawn, known)
    for name, relation in codec.computed.items():
        left = known[name].is_not_null()
        for other in reversed(relation.inputs):
            here = left & known[other].is_null()
            if other not in drawn.columns or other in codec.computed or not here.any():
                continue
            found = solved_input(codec.by_name, relation, rows, other)
            if found is not None:
                rows = rows.with_columns(pl.when(here).then(found).otherwise(rows[other]).alias(other))
                left &= ~here
    rows = codec.work_out(rows)
    # A known cell that the column's type does not hold stands in the table already.
    return drawn.with_columns(
        rows[name].cast(drawn[name].dtype, strict=False) for name in drawn.columns if name in rows.columns
    )


def tied(codec: Codec, known: pl.DataFrame) -> np.ndarray:
    """Rows [n] in which a target is known and an input that could be drawn is not."""
    found = np.zeros(len(known), bool)
    for name, relation in codec.computed.items():
        drawn = [other for other in relation.inputs if other not in codec.computed]
        if isinstance(relation, Formula) and drawn:
            holes = pl.any_horizontal(pl.col(*drawn).is_null())
            found |= known.select(pl.col(name).is_not_null() & holes).to_series().to_numpy()
    return found


def nearest(codec: Codec, pool: pl.DataFrame, known: pl.DataFrame, count: int) -> np.ndarray:
    """Of several draws of each row those whose worked-out targets lie nearest to the known ones.

    Args:
        codec: of the table.
        pool: typed draws of some columns, those of a row one after the other.
        known: the rows' cells, one row for each.
        count: draws wanted of each row.

    Returns:
        Places [rows, count] in the pool, rising.
    """
    times = len(pool) // len(known)
    beside = known[np.repeat(np.arange(len(known)), times)]
    rows = codec.work_out(whole(pool, beside))
    off = np.zeros(len(pool))
    for name, relation in codec.computed.items():
        kind = codec.column(name)
        if isinstance(relation, Formula) and isinstance(kind, AbstractQuantity):
            # Of a row whose inputs are all there every draw is as far off.
            off += np.abs(
                np.nan_to_num((numbers(rows[name]) - numbers(beside[name])) / (kind.scale.high - kind.scale.low))
            )
    near = np.argsort(off.reshape(len(known), times), axis=1, kind="stable")[:, :count]
    return np.sort(near, axis=1) + times * np.arange(len(known))[:, None]


def odd(codec: Codec, drawn: pl.DataFrame, known: pl.DataFrame) -> np.ndarray:
    """Drawn rows [n] that break a relation, or hold a number out of its column's range, and not for what is known."""
    rows = whole(drawn, known)
    found = ~codec.obeys(rows)
    for breaks in codec.broken(rows).values():
        found |= breaks
    for kind in codec.modelled:
        if codec.computed and isinstance(kind, AbstractQuantity):
            value = numbers(rows[kind.name])
            beyond = (value < kind.scale.low - half_unit(kind)) | (value > kind.scale.high + half_unit(kind))
            found |= beyond & known[kind.name].is_null().to_numpy()
    for breaks in codec.broken(known).values():
        found &= ~breaks
    return found


def said(codec: Codec, frame: pl.DataFrame, follows: Mapping[str, np.ndarray]) -> list[str]:
    """Say which cells follow from their rows, and which rows break what is kept.

    Args:
        codec: of the table.
        frame: the rows as they were read.
        follows: the cells [n] that were worked out, by column.
    """
    lines = [
        f"cells of {name} that follow from their rows, worked out and not drawn: {int(cells.sum())}"
        for name, cells in follows.items()
        if cells.any()
    ]
    for relation, breaks in codec.broken(frame).items():
        rows = np.flatnonzero(breaks)
        if len(rows):
            more = f" and {len(rows) - 1} more break" if len(rows) > 1 else " breaks"
            lines.append(f"row {rows[0] + 1}{more} '{relation}': left as it is")
    return lines


def certain(kind: AbstractKind, cells: pl.Series, beside: pl.Series) -> pl.Series:
    """What stands beside cells that follow from their rows: no spread, full agreement, or ends that are the cells."""
    if beside.name in (f"{kind.name}_low", f"{kind.name}_high"):
        return kind.spell(cells).cast(beside.dtype)
    return pl.Series([0.0 if kind.valued else 1.0] * len(cells), dtype=pl.Float64)


__all__ = ["certain", "nearest", "odd", "put_right", "said", "tied"]
