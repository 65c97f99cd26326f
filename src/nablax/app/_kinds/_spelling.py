"""How cells are spelled: as typed values, as words, as numbers in some country's way, as dates in some order."""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
import polars as pl

from ._markers import OF_NUMBERS, OF_WORDS, is_marker
from ._types import dtype_from_json, family

_WANTED = {"time": "a date or time", "duration": "a duration", "text": "text"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractSpelling(abc.ABC):
    """Between cells as they came and cells of a column's own type.

    Attributes:
        markers: words that stand for a missing cell.
    """

    markers: tuple[str, ...] = OF_NUMBERS

    word: ClassVar[str]

    @abc.abstractmethod
    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text, none of them a marker of missing, as cells of the type; null where not understood."""

    @abc.abstractmethod
    def write(self, cells: pl.Series) -> pl.Series:
        """Spell typed cells again."""

    def read(self, cells: pl.Series, dtype: pl.DataType) -> pl.Series | None:
        """Cells of text or typed ones as cells of the type; None where theirs cannot be meant."""
        if cells.dtype.is_float():
            cells = cells.fill_nan(None)
        if cells.null_count() == len(cells):
            return pl.Series(cells.name, [None] * len(cells), dtype)
        if cells.dtype == pl.String:
            return self.parse(cells.set(is_marker(cells, self.markers), None), dtype)
        there, wanted = family(cells.dtype), family(dtype)
        if there != wanted and {there, wanted} != {"integer", "float"}:
            return None
        return cells if wanted in ("integer", "float") else cells.cast(dtype, strict=False)

    def absent(self, cells: pl.Series) -> np.ndarray:
        """Which cells are missing ones [n]."""
        if cells.dtype == pl.String:
            return is_marker(cells, self.markers).to_numpy()
        missing = cells.is_null()
        return (missing | cells.is_nan().fill_null(True) if cells.dtype.is_float() else missing).to_numpy()

    def wanted(self, dtype: Any) -> str:
        """What a cell should be, in words."""
        return _WANTED.get(family(dtype_from_json(dtype)), "a number")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"as": self.word, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsTyped(AbstractSpelling):
    """Cells that came typed, as from Parquet and from arrays. Text is read as Python writes such values."""

    word: ClassVar[str] = "typed"

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text as cells of the type; null where not understood."""
        stripped = text.str.strip_chars()
        if isinstance(dtype, (pl.Date, pl.Datetime, pl.Time)):
            return stripped.str.strptime(dtype, strict=False)
        if family(dtype) == "integer":
            # A number that is none of the type's is still a number: 2.5 in a column of whole ones.
            whole, real = stripped.cast(pl.Int64, strict=False), stripped.cast(pl.Float64, strict=False)
            return whole if whole.null_count() == real.null_count() else real
        if family(dtype) == "float":
            return stripped.cast(pl.Float64, strict=False)
        return stripped.cast(pl.Int64, strict=False).cast(dtype) if family(dtype) == "duration" else text

    def write(self, cells: pl.Series) -> pl.Series:
        """The cells themselves."""
        return cells


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(AbstractSpelling):
    """Text that is taken as it is, blanks and leading zeros included."""

    markers: tuple[str, ...] = OF_WORDS
    word: ClassVar[str] = "words"

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """The cells themselves."""
        return text

    def write(self, cells: pl.Series) -> pl.Series:
        """The cells themselves."""
        return cells
