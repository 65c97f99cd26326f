"""Numbers off any grid, and numbers on one."""

import dataclasses
from typing import ClassVar, Self

from .._errors import UserError
from ._measured import on_grid
from ._quantity import AbstractQuantity
from ._summary import Summary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(AbstractQuantity):
    """A real number, with or without atoms; its value is its standardised coordinate."""

    word: ClassVar[str] = "number"

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Numbers of any sort."""
        return summary.family in ("integer", "float")

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        _require_numbers(summary, cls.word)
        return cls._measured(summary, grid=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(AbstractQuantity):
    """A number on a grid, such as a count or tenths, with or without atoms; its value is its grid index."""

    word: ClassVar[str] = "grid"

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Whole numbers, and decimals that repeat, on a grid of few enough steps."""
        whole = summary.family == "integer"
        return (whole or (summary.family == "float" and summary.tied)) and on_grid(summary)

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        _require_numbers(summary, cls.word)
        return cls._measured(summary, grid=True)


def _require_numbers(summary: Summary, word: str) -> None:
    if summary.family == "text":
        raise UserError(f"column '{summary.name}' holds text, which is no {word}")
