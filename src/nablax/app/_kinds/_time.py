"""Dates, moments and times of day, and how long something took."""

import dataclasses
import re
from typing import ClassVar, Self

import polars as pl

from .._errors import UserError
from ._measured import on_grid
from ._quantity import AbstractQuantity
from ._span_text import spans
from ._spelling import AsTyped
from ._summary import Summary
from ._types import dtype_from_json, ticks_per_unit

_DAYS = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?: days?)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Time(AbstractQuantity):
    """A date, a moment or a time of day, counted in days; on the grid of its smallest step where that is coarse."""

    word: ClassVar[str] = "time"

    @property
    def measured_in(self) -> str:
        """Days."""
        return "day"

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Dates, moments and times of day."""
        return summary.family == "time"

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        return cls._measured(summary, grid=_counted(summary, "time"))

    def one(self, value: object) -> pl.Series:
        """One cell, as text in the column's own way or in that of ISO 8601, or typed."""
        try:
            return super().one(value)
        except UserError:
            plain = AsTyped().parse(pl.Series([str(value)]), dtype_from_json(self.dtype))
            if plain.null_count():
                raise
            return plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duration(AbstractQuantity):
    """How long something took, counted in days."""

    word: ClassVar[str] = "duration"

    @property
    def measured_in(self) -> str:
        """Days."""
        return "day"

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Durations."""
        return summary.family == "duration"

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        return cls._measured(summary, grid=_counted(summary, "duration"))

    def one(self, value: object) -> pl.Series:
        """One cell, as text such as 2 days 01:30:00, 01:30 or a number of days, or typed."""
        if not isinstance(value, str):
            return super().one(value)
        text, dtype = value.strip(), dtype_from_json(self.dtype)
        if _DAYS.fullmatch(text):
            return pl.Series([round(float(text.split(" ")[0]) * ticks_per_unit(dtype))]).cast(dtype)
        found = spans(pl.Series([text]))
        if found.null_count():
            raise UserError(
                f"column '{self.name}' takes a duration, such as '2 days 01:30:00', 01:30 or a number of days, not "
                f"{value!r}"
            )
        return found.cast(dtype)


def _counted(summary: Summary, wanted: str) -> bool:
    """Whether to count its steps rather than measure: days always, finer steps where they repeat."""
    if summary.family != wanted:
        raise UserError(f"column '{summary.name}' holds {summary.dtype}, which is no {wanted}")
    return on_grid(summary) and (isinstance(summary.dtype, pl.Date) or summary.tied)
