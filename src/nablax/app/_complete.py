"""`nablax complete`: missing cells filled by draws from their distribution given the others."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array

from .._core import Key
from ..transport import Transport
from ..transport import complete as complete_row
from ._errors import UserError
from ._run import Model
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
            draws for a number, in its own unit, or the share of draws that disagree with the value filled in.
            Spreads are empty where the cell was there.
        notices: one line each.
    """

    frame: pl.DataFrame
    notices: tuple[str, ...]


def complete(model: Model, frame: pl.DataFrame, *, draws: int = 8, seed: int = 0) -> Completed:
    """Fill missing cells.

    A number becomes the median of the draws, a category the most frequent one; what was there is left untouched.

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
    absent = [column.name for column in codec.modelled if column.name not in frame.columns]
    frame = frame.with_columns([pl.lit(None).alias(name) for name in absent])
    modelled = [column.name for column in codec.modelled]
    cells = frame.select(modelled).with_columns(pl.selectors.float().fill_nan(None))
    holes = {name: cells[name].is_null().to_numpy() for name in modelled if cells[name].null_count()}
    if not holes:
        raise UserError("there is nothing to fill: no cell is missing")
    wanting = [name for name in codec.condition if name in frame.columns and frame[name].null_count()]
    if wanting:
        raise UserError(f"column '{wanting[0]}' conditions the model, so its missing cells cannot be filled")
    rows = np.flatnonzero(np.any(list(holes.values()), axis=0))
    base, condition = encode_frame(model, cells.with_columns(frame.select(_there(frame, codec.condition)))[rows], True)
    vectors = np.zeros((len(rows), codec.condition_dim), np.float32) if condition is None else condition
    known = codec.observed(base)
    filled, lineages = _draw(model, base, vectors, known, draws, seed)
    return Completed(_put_back(model, frame, cells, holes, rows, filled), _notices(len(rows), draws, lineages, absent))


def _there(frame: pl.DataFrame, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in frame.columns]


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
    return [model.codec.decode(points[:, draw]) for draw in range(draws)], np.concatenate(lineages)


@eqx.filter_jit
def _draw_chunk(
    transport: Transport, codec: object, base: Array, condition: Array, known: Array, key: Key, draws: int
) -> tuple[Array, Array]:
    noise_key, draw_key = jax.random.split(key)
    y, _ = codec.dequantise(base, noise_key, to_fill=True)  # type: ignore[attr-defined]

    def one(y: Array, known: Array, condition: Array, key: Key) -> tuple[Array, Array]:
        args = condition if condition.size else None
        posterior = complete_row(
            transport, y, known, key=key, draws=draws, particles=max(_PARTICLES, draws), steps=_STEPS, args=args
        )
        return posterior.draws, posterior.lineages

    return jax.vmap(one)(y, known, condition, jax.random.split(draw_key, len(base)))


def _put_back(
    model: Model,
    frame: pl.DataFrame,
    cells: pl.DataFrame,
    holes: dict[str, np.ndarray],
    rows: np.ndarray,
    filled: list[pl.DataFrame],
) -> pl.DataFrame:
    kinds = {column.name: column.kind for column in model.codec.columns}
    columns: list[pl.Series] = []
    for name in frame.columns:
        if name not in holes:
            columns.append(frame[name])
            continue
        drawn = pl.DataFrame({str(i): table[name] for i, table in enumerate(filled)})
        if kinds[name] == "category":
            votes = [pl.Series(row).mode().sort()[0] for row in drawn.rows()]
            value = pl.Series(name, votes, dtype=filled[0][name].dtype)
            spread = np.array([np.mean([cell != vote for cell in row]) for row, vote in zip(drawn.rows(), votes)])
        else:
            numbers = drawn.with_columns(pl.all().to_physical().cast(pl.Float64)).to_numpy()
            # The lower median of the draws is one of them, so it keeps the column's type and grid.
            middle = np.argsort(numbers, axis=1, kind="stable")[:, (numbers.shape[1] - 1) // 2]
            value = pl.Series(name, [row[i] for row, i in zip(drawn.rows(), middle)], dtype=filled[0][name].dtype)
            spread = numbers.std(axis=1, ddof=1)
        hole = holes[name]
        full = cells[name] if cells[name].dtype != pl.Null else pl.Series(name, [None] * len(frame), value.dtype)
        here = hole[rows]
        full = full.cast(value.dtype).scatter(rows[here], value.filter(pl.Series(here)))
        spreads = np.full(len(frame), np.nan)
        spreads[rows[here]] = spread[here]
        columns += [full.alias(name), pl.Series(f"{name}_spread", spreads).fill_nan(None)]
    return pl.DataFrame(columns)


def _notices(rows: int, draws: int, lineages: np.ndarray, absent: list[str]) -> tuple[str, ...]:
    lines = [f"filled {rows} rows by {draws} draws each; the columns ..._spread say how far the draws differ"]
    if absent:
        lines.append(f"not in the table, so filled throughout: {', '.join(absent)}")
    few = int((lineages < _FEW_LINEAGES).sum())
    if few:
        lines.append(f"{few} rows are unlike the training data: their draws descend from one particle: too alike")
    return tuple(lines)


__all__ = ["Completed", "complete"]
