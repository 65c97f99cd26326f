"""`nablax complete`: missing cells filled by draws from their distribution given the others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array

from ..._core import Key, guarded_jit
from ...transport import Transport
from ...transport import complete as complete_row
from .._data._codec import Codec
from .._errors import UserError
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import numbers
from .._runs._run import Model
from ._names import free_name
from ._score import encode_frame

_PARTICLES = 32
_STEPS = 24
_ROWS_AT_ONCE = 8  # few: batched factorisations of thousands of matrices can lock up a pool of two threads
_FEW_LINEAGES = 2.0


@dataclasses.dataclass(frozen=True)
class Completed:
    """A table with its holes filled.

    Attributes:
        frame: the table; each column that had holes is followed by ``COLUMN_spread``: the standard deviation of the
            draws for a number, in its own unit (days for dates and times), or the share of draws that disagree with
            the value filled in. Spreads are empty where the cell was there.
        notices: one line each.
    """

    frame: pl.DataFrame
    notices: tuple[str, ...]


def complete(model: Model, frame: pl.DataFrame, *, draws: int = 8, seed: int = 0) -> Completed:
    """Fill missing cells.

    A number becomes the median of the draws, a category the most frequent one. What was there is left untouched, and so
    is its column's type where that can hold what is filled in.

    Args:
        model: the opened run of a table.
        frame: rows with missing cells.
        draws: completions for each row.
        seed: the same seed gives the same completions.

    Returns:
        The filled table, with the spread of every filled cell.

    Raises:
        UserError: images, a table that does not fit the model, or nothing to fill.
    """
    codec = model.table("complete")
    modelled = [kind.name for kind in codec.modelled]
    absent = [name for name in modelled if name not in frame.columns]
    frame = frame.with_columns([pl.lit(None, pl.String).alias(name) for name in absent])
    gone = {kind.name: kind.spelling.absent(frame[kind.name]) for kind in codec.modelled}
    holes = {name: missing for name, missing in gone.items() if missing.any()}
    if not holes:
        raise UserError("there is nothing to fill: no cell is missing")
    given = [kind for kind in codec.conditioned if kind.name in frame.columns]
    wanting = [kind.name for kind in given if kind.spelling.absent(frame[kind.name]).any()]
    if wanting:
        raise UserError(f"column '{wanting[0]}' conditions the model, so its missing cells cannot be filled")
    rows = np.flatnonzero(np.any(list(holes.values()), axis=0))
    base, condition = encode_frame(model, frame[rows], True)
    vectors = np.zeros((len(rows), codec.condition_dim), np.float32) if condition is None else condition
    known = codec.observed(base)
    filled, lineages = _draw(model, base, vectors, known, draws, seed)
    return Completed(_put_back(codec, frame, holes, rows, filled), _notices(len(rows), draws, lineages, absent))


def _draw(
    model: Model, base: np.ndarray, condition: np.ndarray, known: np.ndarray, draws: int, seed: int
) -> tuple[list[pl.DataFrame], np.ndarray]:
    """Completions of every row as tables, one a draw, and the lineages of each row."""
    key = jax.random.key(seed)
    parts, lineages = [], []
    for number, start in enumerate(range(0, len(base), _ROWS_AT_ONCE)):
        take = np.minimum(np.arange(start, start + _ROWS_AT_ONCE), len(base) - 1)  # the last chunk repeats a row
        y, kin = _draw_chunk(
            model.transport,
            model.codec,
            jnp.asarray(base[take]),
            jnp.asarray(condition[take]),
            jnp.asarray(known[take]),
            jax.random.fold_in(key, number),
            draws,
        )
        parts.append(np.asarray(y)[: len(base) - start])
        lineages.append(np.asarray(kin)[: len(base) - start])
    points = np.concatenate(parts)
    codec = model.table("complete")
    return [codec.decode(points[:, draw], filled=True) for draw in range(draws)], np.concatenate(lineages)


@guarded_jit
def _draw_chunk(
    transport: Transport, codec: object, base: Array, condition: Array, known: Array, key: Key, draws: int
) -> tuple[Array, Array]:
    noise_key, draw_key = jax.random.split(key)
    y, _ = codec.dequantise(base, noise_key, to_fill=True)  # type: ignore[attr-defined]

    def one(y: Array, known: Array, condition: Array, key: Key) -> tuple[Array, Array]:
        args = condition if condition.size else None
        posterior = complete_row(
            transport, y, known, draws, key=key, particles=max(_PARTICLES, draws), steps=_STEPS, args=args
        )
        return posterior.samples, posterior.lineages

    return jax.vmap(one)(y, known, condition, jax.random.split(draw_key, len(base)))


def _put_back(
    codec: Codec, frame: pl.DataFrame, holes: dict[str, np.ndarray], rows: np.ndarray, filled: list[pl.DataFrame]
) -> pl.DataFrame:
    columns: list[pl.Series] = []
    for name in frame.columns:
        if name not in holes:
            columns.append(frame[name])
            continue
        kind = codec.column(name)
        value, spread = _middle([table[name] for table in filled], isinstance(kind, AbstractQuantity))
        here = holes[name][rows]
        value = value.filter(pl.Series(here))
        if frame[name].dtype == pl.String:
            # The other cells stay as they came, and those filled in are spelled like the training table's.
            there, value = frame[name], kind.spell(value).cast(pl.String)
        else:
            there, value = _of_one_type(frame[name], value)
        spreads = np.full(len(frame), np.nan)
        spreads[rows[here]] = spread[here]
        columns += [
            there.scatter(rows[here], value),
            pl.Series(free_name(f"{name}_spread", frame.columns), spreads).fill_nan(None),
        ]
    return pl.DataFrame(columns)


def _middle(drawn: list[pl.Series], quantity: bool) -> tuple[pl.Series, np.ndarray]:
    """What is filled in for each row, and its spread."""
    if not quantity:
        cells = list(zip(*(series.to_list() for series in drawn)))
        votes = [pl.Series(row).mode().sort()[0] for row in cells]
        spread = [np.mean([cell != vote for cell in row]) for row, vote in zip(cells, votes)]
        return pl.Series(votes, dtype=drawn[0].dtype), np.array(spread)
    values = np.stack([numbers(series) for series in drawn], axis=1)
    # The lower median of the draws is one of them, so it keeps the column's type and grid.
    middle = np.argsort(values, axis=1, kind="stable")[:, (len(drawn) - 1) // 2]
    return pl.concat(drawn).gather(middle * len(values) + np.arange(len(values))), values.std(axis=1, ddof=1)


def _of_one_type(there: pl.Series, fills: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Cells and fills in the cells' own type where it can hold the fills, else in the least that holds both."""
    if there.dtype.is_float():
        there = there.fill_nan(None)
    if there.null_count() == len(there):
        return there.cast(fills.dtype, strict=False), fills  # no cell speaks for the type it was read with
    types = (there.dtype, _supertype(there, fills))
    dtype = next((dtype for dtype in types if _holds(dtype, there) and _holds(dtype, fills)), pl.String())
    return there.cast(dtype), fills.cast(dtype)


def _supertype(one: pl.Series, other: pl.Series) -> pl.DataType:
    try:
        return pl.concat([one.to_frame("cell"), other.to_frame("cell")], how="vertical_relaxed")["cell"].dtype
    except pl.exceptions.PolarsError:
        return pl.String()


def _holds(dtype: pl.DataType, series: pl.Series) -> bool:
    """Whether cells survive this type; a draw that is rounded to another type of floats is as good a draw."""
    try:
        return (dtype.is_float() and series.dtype.is_float()) or series.cast(dtype).cast(series.dtype).equals(series)
    except pl.exceptions.PolarsError:
        return False


def _notices(rows: int, draws: int, lineages: np.ndarray, absent: list[str]) -> tuple[str, ...]:
    lines = [f"filled {rows} rows by {draws} draws each; the columns ..._spread say how far the draws differ"]
    if absent:
        lines.append(f"not in the table, so filled throughout: {', '.join(absent)}")
    few = int((lineages < _FEW_LINEAGES).sum())
    if few:
        lines.append(f"{few} rows are unlike the training data: their draws descend from one particle: too alike")
    return tuple(lines)


__all__ = ["Completed", "complete"]
