"""Categories: a few values, each a state of its own."""

import dataclasses
import functools
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from .._errors import UserError
from .._quoting import quoted
from ._kind import UNSEEN, AbstractKind
from ._summary import DISTINCT_CAP, Summary
from ._types import dtype_from_json, family

MAXIMUM_CATEGORIES = DISTINCT_CAP  # past it distinct values are not counted
_LABELS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Category(AbstractKind):
    """A column of K values that are told apart and not measured: K states, no value.

    Attributes:
        categories: its values, in their order.
    """

    categories: tuple[Any, ...] = ()

    word: ClassVar[str] = "category"

    @property
    def levels(self) -> int:
        """One for each value."""
        return len(self.categories)

    @property
    def listed(self) -> str:
        """The values as a flag takes them, the first dozen."""
        shown = ", ".join(quoted(str(value)) for value in self.categories[:12])
        return shown + (", …" if len(self.categories) > 12 else "")

    @property
    def known(self) -> str:
        """What a cell may be, in words that end a message."""
        return f"; the known ones are {self.listed}"

    def coordinate_of(self, value: object) -> float:
        """There is none."""
        raise UserError(f"column '{self.name}' is a category: compare it with == and one of {self.listed}")

    def state_of(self, value: object) -> tuple[int, float]:
        """The state of one cell, given as text or typed; see `code_of`."""
        return self.code_of(value), float("nan")

    def one(self, value: object) -> pl.Series:
        """One cell from the command line or from Python, as the table's own cells have it; see `code_of`."""
        return self.decode(np.array([self.code_of(value)]), np.zeros(1))

    def code_of(self, value: object) -> int:
        """The number of a value, given as text or typed; exactly as it came first, then but for case and blanks.

        Raises:
            UserError: it was not seen in training, or several are like it; the message names the known ones.
        """
        code = self._code(value)
        if code == UNSEEN:
            raise UserError(f"column '{self.name}' has no value {value!r}{self.known}")
        return code

    def _code(self, value: object) -> int:
        # Exactly first: categories may differ by nothing but their case.
        code = self._exact.get(value, self._exact.get(str(value)))
        if code is not None:
            return code
        alike = [code for code, category in enumerate(self.categories) if _alike(value, category)]
        return alike[0] if len(alike) == 1 else UNSEEN

    @functools.cached_property
    def _exact(self) -> dict[Any, int]:
        """Codes by the value itself and by its text; the first where two are spelled the same."""
        found: dict[Any, int] = {}
        for code, category in enumerate(self.categories):
            found.setdefault(category, code)
            found.setdefault(str(category), code)
        return found

    def parse(self, cells: pl.Series) -> tuple[pl.Series, np.ndarray]:
        """Numbers are read; words stay as they came, null where missing: what is meant is found in encoding."""
        if family(dtype_from_json(self.dtype)) != "text" and cells.dtype == pl.String:
            return super().parse(cells)
        if cells.dtype == pl.Null:
            cells = cells.cast(pl.String)
        missing = pl.Series(self.spelling.absent(cells))
        kept = pl.select(pl.when(~missing).then(cells)).to_series().alias(self.name)
        return kept, np.zeros(len(cells), bool)

    def encode(self, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """States of cells; see ``AbstractKind.encode``."""
        distinct = cells.unique().drop_nulls()
        codes = [self._code(value) for value in distinct.to_list()]
        state = cells.replace_strict(distinct, codes, default=UNSEEN, return_dtype=pl.Int64).to_numpy()
        return self._absent(cells, state), np.full(len(cells), np.nan)

    def decode(self, state: np.ndarray, coordinate: np.ndarray) -> pl.Series:
        """Cells of states; null where missing."""
        there = state < self.levels
        # Fitted without a type first: polars has no direct way from Python floats to every type.
        values = pl.Series(list(self.categories))
        cells = values.gather(pl.Series(np.where(there, state, 0).astype(np.uint32))).cast(dtype_from_json(self.dtype))
        return pl.select(pl.when(pl.Series(there)).then(cells)).to_series().alias(self.name)

    @classmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Text; two different numbers; and, of what conditions the model, whole numbers of few values."""
        if summary.family == "text":
            return True
        few = len(summary.distinct) <= 2 or (label and summary.family == "integer" and len(summary.distinct) <= _LABELS)
        huge = summary.family == "integer" and not summary.on_grid and len(summary.distinct) <= MAXIMUM_CATEGORIES
        return (few and summary.family in ("integer", "float") and summary.on_grid) or huge

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics."""
        if not summary.count:
            raise UserError(f"column '{summary.name}' is empty in each row: no category")
        if len(summary.distinct) > MAXIMUM_CATEGORIES:
            raise UserError(f"column '{summary.name}' has more than {MAXIMUM_CATEGORIES} values: no category")
        if summary.family in ("time", "duration"):
            raise UserError(f"column '{summary.name}' holds dates or times, which cannot be a category")
        if isinstance(summary.dtype, pl.Enum):
            values = [value for value in summary.dtype.categories.to_list() if value in summary.distinct]
        else:
            values = sorted(summary.distinct)
        if isinstance(summary.dtype, pl.Decimal):
            values = [float(value) for value in values]
        text = summary.family == "text"
        total = summary.count + summary.missing
        counts = [summary.counts.get(value if text else float(value), 0) for value in values]
        missing = [summary.missing] if summary.missing else []
        shares = tuple(count / total for count in (*counts, *missing))
        return cls(**cls._common(summary), categories=tuple(values), shares=shares)


def _alike(value: object, category: object) -> bool:
    if str(value).strip().lower() == str(category).strip().lower():
        return True
    number = _as_float(value)
    return number is not None and not isinstance(category, bool) and number == _as_float(category)


def _as_float(value: object) -> float | None:
    if isinstance(value, str) and len(value) > 1 and value[0] == "0" and value[1].isdigit():
        return None  # a code, not a number
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
