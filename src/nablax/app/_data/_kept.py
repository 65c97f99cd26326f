"""Relations that are kept: columns worked out instead of modelled, and rows that break what they say."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import dtype_from_json, family
from ._cells import cells_of
from ._readings import cells_as_numbers, cells_as_states, half_unit, halves_for
from ._relations import EQUAL, AbstractComputed, AbstractRelation, Formula, Lookup, Order, percent

_UNFOUNDED = 0.01  # share of the rows whose target is there for nothing that it follows from
_OPEN = 3.0  # halves of its unit by which rounding may leave a cell open that is solved for
_TO_THE_DIGIT = 0.99  # below this share it is said how often a formula gives the very cell
_LAST_DAY = 2.9e6  # days since 1970 that a date can be
_EXACT = 2.0**53  # beyond which whole numbers are no longer told apart


def keep(relations: Sequence[AbstractRelation]) -> tuple[AbstractRelation, ...]:
    """The relations, those that can be kept marked so.

    A column that is there in many rows where what it follows from is missing says more than the relation: it stays
    modelled.
    """
    return tuple(dataclasses.replace(relation, kept=not why_not(relation)) for relation in relations)


def why_not(relation: AbstractRelation) -> str:
    """Why a relation cannot be kept; empty where it can."""
    if not isinstance(relation, AbstractComputed):
        return ""
    if relation.unfounded <= _UNFOUNDED * (relation.rows + relation.unfounded):
        return ""
    return f"{relation.target} is there in {relation.unfounded} rows where what it follows from is missing"


def instead(relation: AbstractComputed) -> str:
    """What to say to somebody who gives a column that follows from others."""
    return (
        f"column '{relation.target}' is kept as {relation.formula} and not modelled: it follows from "
        f"{' and '.join(relation.inputs)}, which can be given; rows by their '{relation.target}' take a --guide"
    )


def lines(relations: Sequence[AbstractRelation], *, kept: bool, most: int) -> Iterator[str]:
    """What ``learn`` says of the relations found: one line each, and how to keep them.

    Args:
        relations: found.
        kept: whether they were asked to be kept.
        most: lines of them at most.
    """
    for relation in relations[:most]:
        line = f"relation: {relation} in {percent(relation.share)} of {relation.rows} rows"
        if isinstance(relation, Order):
            line = f"relation: {relation}, in any of {relation.rows} rows"
        if isinstance(relation, Formula) and relation.to_the_digit < _TO_THE_DIGIT:
            line += f" within rounding, to the digit in {percent(relation.to_the_digit)}"
        if relation.broken:
            shown = ", ".join(str(row + 1) for row in relation.examples)
            line += f"; not in {relation.broken}, such as row {shown}"
        if relation.kept and isinstance(relation, AbstractComputed):
            line += f"; '{relation.target}' is worked out, not modelled, and may leave the observed range"
            if relation.silent:
                line += f", though {relation.silent} rows leave it empty"
        elif relation.kept:
            line += "; kept by drawing rows anew"
        elif kept and (why := why_not(relation)):
            line += f"; not kept: {why}"
        yield line
    if len(relations) > most:
        yield f"and {len(relations) - most} more relations, in the report"
    if relations and not kept:
        yield "samples keep these as well as they are learnt; --keep-relations keeps them exactly"


def computed(
    kinds: Mapping[str, AbstractKind], relations: Sequence[AbstractRelation], frame: pl.DataFrame
) -> pl.DataFrame:
    """Typed rows with the columns that follow from others worked out anew, each on its own grid.

    Args:
        kinds: every column, by name.
        relations: kept; the others count for nothing.
        frame: typed cells, the inputs among them.

    Returns:
        The rows. A column is empty where one of its inputs is, or where it cannot be worked out.
    """
    for relation in relations:
        if isinstance(relation, AbstractComputed) and relation.kept and set(relation.inputs) <= set(frame.columns):
            frame = frame.with_columns(_column(kinds, relation, frame))
    return frame


def _column(kinds: Mapping[str, AbstractKind], relation: AbstractComputed, frame: pl.DataFrame) -> pl.Series:
    kind = kinds[relation.target]
    if isinstance(relation, Lookup):
        state = relation.states(cells_as_states(kinds[relation.source], frame))
        return kind.decode(np.where(state < 0, kind.levels, state), np.zeros(len(state)))
    assert isinstance(relation, Formula) and isinstance(kind, AbstractQuantity)
    x = {name: cells_as_numbers(kinds[name], frame) for name in relation.inputs}
    return on_grid(kind, relation.value(x))


def on_grid(kind: AbstractQuantity, value: np.ndarray) -> pl.Series:
    """Numbers as cells of a column, on its grid; null where they are none that it can hold."""
    dtype = dtype_from_json(kind.dtype)
    least, most = _range(dtype, kind.scale.denominator)
    there = np.isfinite(value) & (np.nan_to_num(value) >= least) & (np.nan_to_num(value) <= most)
    return kind.scale.series(kind.name, dtype, np.where(there, value, kind.scale.low), there)


def _range(dtype: pl.DataType, denominator: int) -> tuple[float, float]:
    """The least and the greatest number that cells of a type can hold and tell apart, in the column's own unit."""
    if isinstance(dtype, pl.Time):
        return 0.0, 1.0 - 1.0 / denominator
    if family(dtype) == "time":
        return -_LAST_DAY, _LAST_DAY
    most = _EXACT / denominator
    if isinstance(dtype, pl.Decimal):
        most = min(most, 10.0 ** ((dtype.precision or 38) - dtype.scale) - 1.0)
    if family(dtype) == "integer" and type(dtype).__name__ not in ("Int64", "Int128", "UInt64", "UInt128"):
        bits = int("".join(c for c in type(dtype).__name__ if c.isdigit()))
        most = 2.0 ** (bits - 1) - 1.0 if dtype.is_signed_integer() else 2.0**bits - 1.0
    signed = family(dtype) != "integer" or dtype.is_signed_integer()
    return (-most if signed else 0.0), most


def broken(
    kinds: Mapping[str, AbstractKind], relations: Sequence[AbstractRelation], frame: pl.DataFrame
) -> dict[AbstractRelation, np.ndarray]:
    """Rows that break relations, as they were read or typed.

    Args:
        kinds: every column, by name.
        relations: those to look at.
        frame: the rows; a relation with a column that is absent counts for nothing.

    Returns:
        Relation to booleans [n]: its columns are there, and it does not hold.
    """
    found: dict[AbstractRelation, np.ndarray] = {}
    for relation in relations:
        if not set(relation.names) <= set(frame.columns):
            continue
        if isinstance(relation, Lookup):
            source, target = (cells_as_states(kinds[name], frame) for name in (relation.source, relation.target))
            # A target that was never seen is no state, and is none that the source says.
            there = ~cells_of(kinds[relation.target], frame)[0].is_null().to_numpy()
            found[relation] = (source >= 0) & there & (relation.states(source) != target)
            continue
        x = {name: cells_as_numbers(kinds[name], frame) for name in relation.names}
        assert isinstance(relation, Formula | Order)
        rounding = halves_for(relation.target, list(kinds.values())) if isinstance(relation, Formula) else {}
        found[relation] = relation.breaks(x, rounding)
    return found


def solved(
    kinds: Mapping[str, AbstractKind],
    relations: Sequence[AbstractRelation],
    frame: pl.DataFrame,
    holes: Mapping[str, np.ndarray],
) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Typed rows with the holes filled that relations leave no choice in.

    A target is worked out where all its inputs are there; an input that alone is missing is solved for where it stands
    in one place of the formula, and the rounding of the other cells leaves it open by no more than three halves of its
    unit.

    Args:
        kinds: every column, by name.
        relations: kept; the others count for nothing.
        frame: typed cells.
        holes: which cells [n] are to be filled, by column.

    Returns:
        The rows, and which cells [n] were filled, by column.
    """
    filled = {name: np.zeros(len(frame), bool) for name in holes}
    before = -1
    while (now := sum(int(part.sum()) for part in filled.values())) > before:
        before = now
        for relation in relations:
            if not (isinstance(relation, AbstractComputed) and relation.kept):
                continue
            for name in relation.names:
                left = holes[name] & frame[name].is_null().to_numpy()
                if not left.any():
                    continue
                found: pl.Series | None
                if name == relation.target:
                    found, sure = _column(kinds, relation, frame), left
                else:
                    found, sure = solved_input(kinds, relation, frame, name), _surely(kinds, relation, frame, name)
                if found is None:
                    continue
                here = left & sure & found.is_not_null().to_numpy()
                frame = frame.with_columns(pl.when(pl.Series(here)).then(found).otherwise(frame[name]).alias(name))
                filled[name] |= here
    return frame, filled


def solved_input(
    kinds: Mapping[str, AbstractKind], relation: AbstractComputed, frame: pl.DataFrame, name: str
) -> pl.Series | None:
    """An input worked out from the target and the other inputs, on its grid; None where it does not follow."""
    kind = kinds[name]
    if not (isinstance(relation, Formula) and isinstance(kind, AbstractQuantity)):
        return None
    value = relation.solved({other: cells_as_numbers(kinds[other], frame) for other in relation.names}, name)
    return None if value is None else on_grid(kind, value)


def _surely(
    kinds: Mapping[str, AbstractKind], relation: AbstractComputed, frame: pl.DataFrame, name: str
) -> np.ndarray:
    """Rows [n] in which rounding hardly leaves open what an input is."""
    kind = kinds[name]
    if not (isinstance(relation, Formula) and isinstance(kind, AbstractQuantity)):
        return np.zeros(len(frame), bool)
    x = {other: cells_as_numbers(kinds[other], frame) for other in relation.names}
    size = relation.solved(x, name)
    if size is None:
        return np.zeros(len(frame), bool)
    error = relation.solving_error(x, name, halves_for(relation.target, list(kinds.values())))
    with np.errstate(invalid="ignore"):
        return np.asarray(error <= _OPEN * half_unit(kind) + 10.0 * EQUAL * np.abs(size))


def obeys(kinds: Mapping[str, AbstractKind], relations: Sequence[AbstractRelation], frame: pl.DataFrame) -> np.ndarray:
    """Drawn rows [n] in which kept orders hold, and what is worked out has a value, not below zero if none ever was."""
    holds = np.ones(len(frame), bool)
    for breaks in broken(kinds, [r for r in relations if r.kept and isinstance(r, Order)], frame).values():
        holds &= ~breaks
    for relation in relations:
        if relation.kept and isinstance(relation, AbstractComputed):
            kind = kinds[relation.target]
            if isinstance(kind, AbstractQuantity) and kind.scale.low >= 0.0:
                # A count, a length or a duration does not become negative, whatever its inputs are drawn to be.
                with np.errstate(invalid="ignore"):
                    holds &= ~(cells_as_numbers(kind, frame) < 0.0)
            given = pl.all_horizontal(pl.col(*relation.inputs).is_not_null())
            holds &= ~frame.select(given & pl.col(relation.target).is_null()).to_series().to_numpy()
    return holds


def there(kinds: Mapping[str, AbstractKind], relation: AbstractRelation, frame: pl.DataFrame) -> np.ndarray:
    """Rows [n] in which all columns of a relation are there."""
    return np.all([~cells_of(kinds[name], frame)[0].is_null().to_numpy() for name in relation.names], axis=0)


__all__ = [
    "broken",
    "computed",
    "instead",
    "keep",
    "lines",
    "obeys",
    "on_grid",
    "solved",
    "solved_input",
    "there",
    "why_not",
]
