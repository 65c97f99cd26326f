"""Columns that are not modelled and carried through: identifiers and constants."""

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from .._errors import UserError
from ._category import MAXIMUM_CATEGORIES
from ._kind import UNSEEN, AbstractKind
from ._summary import Summary
from ._types import dtype_from_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractCarried(AbstractKind):
    """A column that says nothing of the others: no states, no part in the likelihood."""

    modelled: ClassVar[bool] = False

    @property
    def levels(self) -> int:
        """None."""
        return 0

    def encode(self, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """No state and no value."""
        return np.full(len(cells), UNSEEN), np.full(len(cells), np.nan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identifier(AbstractCarried):
    """A column that names its row: fresh numbers where it counts up, else left empty in samples.

    Attributes:
        next_number: the first number that no training row has; None where names are no whole numbers that count up.
        why: why it is taken for one.
    """

    next_number: int | None = None
    why: str = "nearly every row has its own value"

    word: ClassVar[str] = "identifier"

    @property
    def reason(self) -> str:
        """Why it is not modelled, and what samples get in its place."""
        drawn = "empty" if self.next_number is None else f"numbered on from {self.next_number}"
        return f"an identifier, as {self.why}; carried through, {drawn} in samples"

    def decode(self, state: np.ndarray, coordinate: np.ndarray) -> pl.Series:
        """Fresh numbers, or nothing."""
        dtype = dtype_from_json(self.dtype)
        if self.next_number is None:
            return pl.Series(self.name, [None] * len(state), dtype)
        return pl.Series(self.name, np.arange(self.next_number, self.next_number + len(state))).cast(dtype)

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Numbers that count rows, text that differs in most of them, and text of too many values for a category."""
        return _why(summary) is not None

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        following = int(summary.high) + 1 if summary.family == "integer" and summary.counts_up else None
        why = _why(summary) or "was said"
        return cls(**cls._common(summary), next_number=following, why=why)


def _why(summary: Summary) -> str | None:
    # Past a cap distinct values are not counted: where none has been seen twice, they all differ.
    many = len(summary.distinct) if summary.repeated else summary.count
    if summary.family == "integer":
        if summary.counts_up:
            return "it counts the rows"
        if not summary.on_grid and many > 50 and many > summary.count / 2:
            return "its whole numbers are larger than floats can tell apart"
        return None
    if summary.family != "text":
        return None
    if many > 50 and many > summary.count / 2:
        return "nearly every row has its own value"
    return f"it has more than {MAXIMUM_CATEGORIES} categories" if many > MAXIMUM_CATEGORIES else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(AbstractCarried):
    """A column that says the same in each row, or nothing in any: repeated.

    Attributes:
        cell: what it says, a time in its ticks; None for nothing.
        said: the same in words.
    """

    cell: Any = None
    said: str = ""

    word: ClassVar[str] = "constant"

    @property
    def reason(self) -> str:
        """Why it is not modelled, and what samples get in its place."""
        if self.cell is None:
            return "empty in each row; carried through"
        return f"the same in each row ({self.said}); carried through, repeated in samples"

    def decode(self, state: np.ndarray, coordinate: np.ndarray) -> pl.Series:
        """The cell, over and over."""
        dtype = dtype_from_json(self.dtype)
        cells = pl.Series(self.name, [self.cell] * len(state))
        return (cells.cast(pl.Int32) if isinstance(dtype, pl.Date) else cells).cast(dtype)

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """One value in all rows, or none in any."""
        once = len(summary.distinct) == 1 and (not summary.missing or summary.family in ("time", "duration"))
        return not summary.count or once

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        if len(summary.distinct) > 1:
            raise UserError(f"column '{summary.name}' is no constant: it has {len(summary.distinct)} values")
        if not summary.count:
            return cls(**cls._common(summary))
        value = next(iter(summary.distinct))
        cells = pl.Series([value], dtype=None if summary.family == "float" else summary.dtype)
        plain = cells.to_physical()[0] if summary.family in ("time", "duration") else value
        return cls(**cls._common(summary), cell=float(plain) if summary.family == "float" else plain, said=str(value))
