"""Dates, moments and times of day, and how long something took."""

import dataclasses
from typing import ClassVar, Self

import polars as pl

from .._errors import UserError
from ._measured import on_grid
from ._quantity import AbstractQuantity
from ._summary import Summary


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


def _counted(summary: Summary, wanted: str) -> bool:
    """Whether to count its steps rather than measure: days always, finer steps where they repeat."""
    if summary.family != wanted:
        raise UserError(f"column '{summary.name}' holds {summary.dtype}, which is no {wanted}")
    return on_grid(summary) and (isinstance(summary.dtype, pl.Date) or summary.tied)
