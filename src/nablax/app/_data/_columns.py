"""The columns of a source: each looked at once, batch by batch, and given its kind."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from .._errors import UserError
from .._kinds._kind import AbstractKind
from .._kinds._reading import Reading
from .._kinds._registry import OMIT, recognise
from .._kinds._spelling import AsTyped, Words
from .._kinds._summary import Summary
from .._kinds._types import family
from .._quoting import assignment

if TYPE_CHECKING:
    from ._sources import Source


@dataclasses.dataclass(frozen=True)
class Columns:
    """What was made of a source's columns.

    Attributes:
        kinds: the columns kept, in the source's order; some are carried through and not modelled.
        dropped: name of each column that is not modelled, and why.
        notices: one line for each thing to know.
    """

    kinds: tuple[AbstractKind, ...]
    dropped: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]


def choose_columns(
    source: "Source",
    names: Sequence[str],
    *,
    condition: Sequence[str],
    kinds: Mapping[str, str],
    look: Callable[[pl.DataFrame], None] | None = None,
) -> Columns:
    """Look at every row of a source once and choose the kind of each column.

    Args:
        source: the rows.
        names: the columns to look at.
        condition: those that condition the model.
        kinds: column to the word of the kind asked for, or "omit".
        look: called with every batch, for what else is to be gathered in the same pass.

    Returns:
        The columns.

    Raises:
        UserError: a name is no column, a column cannot be learnt, or a condition is not modelled.
    """
    for name in (*condition, *kinds):
        if name not in source.columns:
            raise UserError(f"no column '{name}' in {source.name}; the columns are {', '.join(source.columns)}")
    kept = [name for name in names if kinds.get(name) != OMIT]
    summaries, lines = _summaries(source, kept, kinds)
    for batch in source.batches():
        for summary in summaries:
            summary.add(summary.read(batch[summary.name]))
        if look is not None:
            look(batch)
    lines += [
        f"column '{s.name}' looks like dates written YYYYMMDD, and came as numbers: cast it to dates to have them so"
        for s in summaries
        if s.days_in_digits
    ]
    found = tuple(recognise(s, asked=kinds.get(s.name), label=s.name in condition) for s in summaries)
    dropped = {name: "left out, as asked" for name in names if name not in kept}
    dropped |= {kind.name: kind.reason for kind in found if not kind.modelled}
    for name in condition:
        if name in dropped:
            fix = f"force it with --kind {assignment(name, 'category')}"
            raise UserError(f"column '{name}' is {dropped[name]}, so it cannot be a condition; {fix}")
    ordered = tuple((name, dropped[name]) for name in names if name in dropped)
    return Columns(found, ordered, (*lines, *(f"column '{name}' is not modelled: {why}" for name, why in ordered)))


def _typed(source: "Source", name: str) -> Summary:
    dtype = source.schema[name]
    # Text that came typed says with null what is missing: every word in it is meant.
    spelling = Words(markers=()) if family(dtype) == "text" else AsTyped()
    return Summary(name, dtype, source.rows, spelling)


def _summaries(source: "Source", names: Sequence[str], kinds: Mapping[str, str]) -> tuple[list[Summary], list[str]]:
    """Empty statistics of columns, each with the way its cells are read; and one line for each that needs a word."""
    if source.place is None:
        return [_typed(source, name) for name in names], []
    readings = [Reading(name, source.locale) for name in names]
    for batch in source.batches():
        for reading in readings:
            reading.add(batch[reading.name])
    made, lines = [], []
    for reading in readings:
        spelling, dtype, line = reading.spelling(asked=kinds.get(reading.name), place=source.place)
        made.append(Summary(reading.name, dtype, source.rows, spelling))
        lines += [line] if line else []
    return made, lines
