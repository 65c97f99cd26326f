"""`nablax complete`: missing cells filled by draws from their distribution given the others."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from .._data._codec import Codec
from .._data._kept import solved
from .._errors import UserError
from .._kinds._kind import AbstractKind
from .._kinds._types import numbers
from .._runs._run import Model
from ._draw import draw
from ._follow import certain, nearest, odd, put_right, said, tied
from ._given import Given, all_states, drawn_states, present
from ._names import free_name
from ._score import encode_frame
from ._unseen import unused

DRAWS = 64  # behind each filled cell: its quantiles are then good to a twentieth of the probability
_CELLS_AT_ONCE = 2**20  # rows times draws
_POOL = 8  # draws of which one is kept where a target is known that they should come to
_CHUNK = 2048  # rows that are drawn by one program
_AGAIN = 30  # times that draws which break an order are drawn anew
_NUMBER = "completion"  # the column that numbers the draws of a long table


@dataclasses.dataclass(frozen=True)
class Completed:
    """A table with its holes filled.

    Attributes:
        frame: the table. With one line a row, each column that had holes is followed by columns that say how sure the
            filling is, empty where the cell was there: for a number ``COLUMN_spread``, the standard deviation of the
            draws in its own unit (days for dates and times), or the ends of the interval asked for, ``COLUMN_low`` and
            ``COLUMN_high``; else ``COLUMN_probability``, the share of draws that agree with the value filled in.
        notices: one line each.
    """

    frame: pl.DataFrame
    notices: tuple[str, ...]


def complete(
    model: Model, frame: pl.DataFrame, *, draws: int | None = None, interval: float | None = None, seed: int = 0
) -> Completed:
    """Fill missing cells by draws from their joint distribution given the row's other cells.

    A number becomes the mean of the draws, on its column's own grid, for that is off by least (in mean squares: of a
    skewed column the median is far off); another cell becomes the most frequent one. What was there is left untouched,
    and so is its column's type where that can hold what is filled in. Where relations are kept, a cell that follows
    from the others of its row is worked out, and so is one that alone is missing in a sum; the rest of the row is drawn
    given these.

    Args:
        model: the opened run of a table.
        frame: rows with missing cells.
        draws: write so many completions of every row, each a draw, one below the other; by default one line a row.
        interval: share of the draws between ``COLUMN_low`` and ``COLUMN_high``, such as 0.8.
        seed: the same seed gives the same completions.

    Returns:
        The filled table.

    Raises:
        UserError: images, a table that does not fit the model or has none of its columns, nothing to fill, both
            ``draws`` and ``interval``, or one of them out of its range.
    """
    codec = model.table("complete")
    if draws is not None and interval is not None:
        raise UserError("--draws writes the draws themselves, --interval sums them up: ask for one of them")
    if draws is not None and draws < 1:
        raise UserError(f"--draws should be at least 1, not {draws}")
    if interval is not None and not 0.0 < interval < 1.0:
        raise UserError(f"--interval should lie between 0 and 1, such as 0.8, not {interval:g}")
    kinds = [kind for kind in codec.columns if kind in codec.modelled or kind.name in codec.computed]
    absent = [kind.name for kind in kinds if kind.name not in frame.columns]
    if len(absent) == len(kinds):
        raise UserError(
            f"none of the columns was learnt: the table has {', '.join(map(repr, frame.columns))}, and the model "
            f"{', '.join(map(repr, absent))}"
        )
    frame = frame.with_columns([pl.lit(None, pl.String).alias(name) for name in absent])
    gone = {kind.name: kind.spelling.absent(frame[kind.name]) for kind in kinds}
    holes = {name: missing for name, missing in gone.items() if missing.any()}
    if not holes:
        raise UserError("there is nothing to fill: no cell is missing")
    notices = [f"not in the table, so filled throughout: {', '.join(absent)}"] if absent else []
    typed = pl.DataFrame([kind.parse(frame[kind.name])[0] for kind in kinds])
    typed, follows = solved(codec.by_name, codec.relations, typed, gone)
    notices += said(codec, frame, follows)
    frame = _with(codec, frame, _some(follows), np.arange(len(frame)), typed)
    gone = {name: missing & ~follows[name] for name, missing in gone.items()}
    rows = np.flatnonzero(np.any([gone[kind.name] for kind in codec.modelled], axis=0))
    notices += unused(codec, frame, gone, rows)
    known = typed[rows] if codec.computed or codec.orders else None
    filled = [typed[rows]] * (draws or DRAWS)
    if len(rows):
        base, _ = encode_frame(model, frame[rows], True)
        filled = completions(model, base, draws or DRAWS, seed, known=known)
    if known is not None:
        notices += _left_over(codec, filled, known, gone, rows)
    if draws:
        number = free_name(_NUMBER, frame.columns)
        tables = [
            _with(codec, frame, _some(gone), rows, table).with_columns(pl.lit(k + 1).alias(number))
            for k, table in enumerate(filled)
        ]
        line = f"filled {len(rows)} rows, {draws} draws of each; the column {number} numbers them"
        return Completed(pl.concat(tables), (line, *notices))
    line = (
        f"filled {len(rows)} rows from {DRAWS} draws each, numbers by their mean and other cells by the most frequent; "
    )
    line += "the columns beside say how sure that is"
    centre = {name: codec.column(name).centre([table[name] for table in filled]).alias(name) for name in holes}
    if known is not None:
        # What follows from other cells does so from those that are filled in.
        put = put_right(codec, pl.DataFrame(list(centre.values())), known)
        centre = {name: put[name] for name in centre}
    found = _with(codec, frame, _some(gone), rows, pl.DataFrame(list(centre.values())))
    columns: list[pl.Series] = []
    for name in found.columns:
        columns.append(found[name])
        if name in holes:
            here, kind, exact = gone[name][rows], codec.column(name), np.flatnonzero(follows[name])
            for series in _sure([table[name] for table in filled], centre[name], kind, interval):
                sure = _at(len(frame), rows[here], series.filter(pl.Series(here, dtype=pl.Boolean)))
                sure = sure.scatter(exact, certain(kind, typed[name].gather(exact), sure))
                columns.append(sure.alias(free_name(sure.name, frame.columns)))
    return Completed(pl.DataFrame(columns), (line, *notices) if len(rows) else tuple(notices))


def completions(
    model: Model, base: np.ndarray, draws: int, seed: int, *, known: pl.DataFrame | None = None
) -> list[pl.DataFrame]:
    """Draw the unknown cells of encoded rows, none of them missing.

    Args:
        model: the opened run of a table.
        base: encoded rows [rows, columns, 2]; a state of NaN is unknown.
        draws: how many of each row.
        seed: of the draws.
        known: where relations are kept, the rows' typed cells, null where unknown. What follows from other cells does
            so from these; draws that break a relation with them are drawn anew, thirty times at most.

    Returns:
        One table a draw.
    """
    codec = model.table("complete")
    given = Given(base, ~np.isnan(base[..., 0]))
    tables: list[pl.DataFrame] = []
    at_once = max(1, _CELLS_AT_ONCE // max(len(base), 1))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        # All draws of a row side by side: the flow then carries rows that are alike together.
        every = given.repeated(count)
        cells = _drawn(model, every, seed, start, 0)
        if known is not None:
            beside = known[np.repeat(np.arange(len(known)), count)]
            bound = np.flatnonzero(tied(codec, known))
            most = max(1, _CELLS_AT_ONCE // (_POOL * count))
            for number, part in enumerate(bound[at : at + most] for at in range(0, len(bound), most)):
                many = given.at(part).repeated(_POOL * count)
                pool = _drawn(model, many, seed, start, _AGAIN + number, like=len(cells))
                near = nearest(codec, pool, known[part], count)
                cells = _replaced(cells, (part[:, None] * count + np.arange(count)).ravel(), pool[near.ravel()])
            cells = put_right(codec, cells, beside)
            for again in range(1, _AGAIN):
                wrong = np.flatnonzero(odd(codec, cells, beside))
                if not len(wrong):
                    break
                anew = _drawn(model, every.at(wrong), seed, start, again, like=len(cells))
                cells = _replaced(cells, wrong, put_right(codec, anew, beside[wrong]))
        tables += [cells[np.arange(k, len(cells), count)] for k in range(count)]
    return tables


def _drawn(model: Model, given: Given, seed: int, start: int, again: int, *, like: int = 0) -> pl.DataFrame:
    """The rows with what is not given drawn as the model has it, and of that what is missing drawn given the rest.

    Taken for one that is there from the first, an empty cell would speak for the others: of storms, a category is there
    for hurricanes alone.
    """
    codec = model.table("complete")
    cells = _in_chunks(model, given, all_states(codec), [seed, start, 2 * again], like)
    lost = np.flatnonzero(np.any([cells[kind.name].is_null().to_numpy() for kind in codec.modelled], axis=0))
    if not len(lost):
        return cells
    base, _ = encode_frame(model, cells[lost], True)
    rest = Given(base, ~np.isnan(base[..., 0]))
    return _replaced(cells, lost, _in_chunks(model, rest, present(codec), [seed, start, 2 * again, 1], len(cells)))


def _in_chunks(model: Model, given: Given, allowed: np.ndarray, seeds: list[int], like: int) -> pl.DataFrame:
    """What is not given drawn, in chunks of the size that so many rows are drawn in: one program serves both."""
    rows, parts = len(given.base), []
    size = like if 0 < like < _CHUNK else rows
    seed, start, which, *more = seeds
    for number, at in enumerate(range(0, rows, size)):
        # A chunk that is filled up draws its last row several times: these draws are left aside.
        chunk = given.at(np.minimum(np.arange(at, at + size), rows - 1))
        vectors = drawn_states(model, chunk, seed=_seed(seed, start, which, number, *more), allowed=allowed)
        y = draw(model, size, seed=_seed(seed, start, which + 1, number, *more), condition=vectors)
        parts.append(model.decode(y, vectors)[: rows - at])
    return pl.concat(parts)


def _replaced(cells: pl.DataFrame, rows: np.ndarray, by: pl.DataFrame) -> pl.DataFrame:
    """Rows of which some stand for others."""
    place = np.arange(len(cells))
    place[rows] = len(cells) + np.arange(len(rows))
    return pl.concat([cells, by])[place]


def _some(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns in which there are any."""
    return {name: here for name, here in cells.items() if here.any()}


def _left_over(
    codec: Codec, filled: Sequence[pl.DataFrame], known: pl.DataFrame, gone: dict[str, np.ndarray], rows: np.ndarray
) -> list[str]:
    """Say what no draw could put right."""
    lines = []
    broken = sum(int(np.sum(odd(codec, table, known))) for table in filled) if len(rows) else 0
    if broken:
        of = f"{broken} of {len(filled) * len(rows)} draws"
        lines.append(f"{of} break a relation that is kept, however often drawn: the cells there hardly allow it")
    for name in codec.computed:
        empty = int(gone[name].sum() - gone[name][rows].sum())
        if empty:
            lines.append(f"{empty} cells of {name} cannot be worked out from their rows, and stay empty")
    return lines


def _seed(seed: int, start: int, which: int, number: int, *second: int) -> int:
    more = [number, *second] if number or second else []
    return int(np.random.default_rng([seed % 2**64, 3, start, which, *more]).integers(2**31))


def _beside(kind: AbstractKind, interval: float | None) -> list[str]:
    if not kind.valued:
        return [f"{kind.name}_probability"]
    return [f"{kind.name}_spread"] if interval is None else [f"{kind.name}_low", f"{kind.name}_high"]


def _with(
    codec: Codec, frame: pl.DataFrame, holes: dict[str, np.ndarray], rows: np.ndarray, filled: pl.DataFrame
) -> pl.DataFrame:
    """The table with the holes filled by one cell each."""
    columns: list[pl.Series] = []
    for name in frame.columns:
        if name not in holes:
            columns.append(frame[name])
            continue
        here = holes[name][rows]
        value = filled[name].filter(pl.Series(here))
        if frame[name].dtype == pl.String:
            # The other cells stay as they came, and those filled in are spelled like the training table's.
            there, value = frame[name], codec.column(name).spell(value).cast(pl.String)
        else:
            there, value = _of_one_type(frame[name], value)
        columns.append(there.scatter(rows[here], value))
    return pl.DataFrame(columns)


def _quantile(drawn: Sequence[pl.Series], share: float) -> pl.Series:
    """That draw of each row below which so many of the others lie."""
    values = np.stack([numbers(series) for series in drawn], axis=1)
    rank = int(np.clip(np.ceil(share * len(drawn)) - 1, 0, len(drawn) - 1))
    pick = np.argsort(values, axis=1, kind="stable")[:, rank]
    return pl.concat(list(drawn)).gather(pick * len(values) + np.arange(len(values)))


def _sure(drawn: Sequence[pl.Series], centre: pl.Series, kind: AbstractKind, interval: float | None) -> list[pl.Series]:
    """How sure the filling of each row is, as the columns that are written beside it."""
    names = _beside(kind, interval)
    if not kind.valued:
        agree = np.mean([(series == centre).to_numpy() for series in drawn], axis=0)
        return [pl.Series(names[0], agree)]
    if interval is None:
        values = np.stack([numbers(series) for series in drawn], axis=1)
        return [pl.Series(names[0], values.std(axis=1, ddof=1))]
    tail = 0.5 * (1.0 - interval)
    # Of n draws the k-th is the quantile k / (n + 1), so the tails are cut a little further out.
    count = len(drawn)
    low, high = (q * (count + 1) / count for q in (tail, 1.0 - tail))
    return [kind.spell(_quantile(drawn, share)).alias(name) for name, share in zip(names, (low, high))]


def _at(count: int, rows: np.ndarray, values: pl.Series) -> pl.Series:
    """A column of so many rows with these values at these rows, and null elsewhere."""
    return pl.Series(values.name, [None] * count, dtype=values.dtype).scatter(rows, values)


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


__all__ = ["DRAWS", "Completed", "complete", "completions"]
