"""What every kind of column answers: the face that the codec, the model and the commands know."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from .._errors import UserError
from ._spelling import AbstractSpelling, AsTyped
from ._summary import Summary
from ._types import dtype_from_json, dtype_to_json

UNSEEN = -1  # the state of a cell to which the training data give no probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractKind(abc.ABC):
    """A column: what was learnt of it from the training data, as plain values that survive JSON.

    **An encoded cell is a pair, a state and a value.** The states of a column are 0 … ``states`` - 1. Those of a
    category are its levels. A quantity has state 0, the smooth part, the one state that carries a value, and one state
    for each of its atoms, the numbers that recur. A column that had missing cells in training has one more state, the
    last: missing. A kind that is not modelled has no states; it is carried through.

    Attributes:
        name: the column's name.
        dtype: the polars type of a parsed cell, as JSON.
        missing: whether training cells were missing.
        spelling: how a cell of text is read, and how a cell is spelled again.
        shares: share of each state among the training cells, [states].
    """

    name: str
    dtype: Any = "String"
    missing: bool = False
    spelling: AbstractSpelling = AsTyped()
    shares: tuple[float, ...] = ()

    word: ClassVar[str]  # what --kind and the configuration call it
    modelled: ClassVar[bool] = True
    valued: ClassVar[bool] = False  # whether state 0 carries a value

    @classmethod
    @abc.abstractmethod
    def suits(cls, summary: Summary, *, label: bool) -> bool:
        """Whether a column is of this kind, those tried before it aside; ``label``: it conditions the model."""

    @classmethod
    @abc.abstractmethod
    def of(cls, summary: Summary) -> Self:
        """Learn the column from its statistics.

        Raises:
            UserError: it cannot be of this kind.
        """

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Rebuild from the fields of ``to_json``, whose lists have become tuples."""
        return cls(**fields)

    @property
    @abc.abstractmethod
    def levels(self) -> int:
        """States of a cell that is there."""

    @property
    def states(self) -> int:
        """All states: ``levels``, and one more where training cells were missing; 0 for what is not modelled."""
        return self.levels + self.missing if self.modelled else 0

    @property
    def counted(self) -> bool:
        """Whether its value is an index on a grid, which noise spreads over its cell."""
        return False

    @property
    def reason(self) -> str:
        """Why it is not modelled; empty for what is."""
        return ""

    @property
    def known(self) -> str:
        """What a cell may be, in words that end a message; empty where that is no list."""
        return ""

    @property
    def unit(self) -> str:
        """What the likelihood of a cell is measured in."""
        return "probability"

    @abc.abstractmethod
    def encode(self, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """The state (int64 [n], ``UNSEEN`` where the training data give no probability) and value (float64 [n]).

        Args:
            cells: from ``parse``; null is missing.

        Returns:
            States, and values: a grid index on a grid, else a standardised coordinate; NaN where the state carries
            none.
        """

    @abc.abstractmethod
    def decode(self, state: np.ndarray, coordinate: np.ndarray) -> pl.Series:
        """Cells of states [n] and standardised coordinates [n], within the observed range; null where missing."""

    def parse(self, cells: pl.Series) -> tuple[pl.Series, np.ndarray]:
        """Read cells, text or typed, as cells of the column's own type.

        Args:
            cells: as they came.

        Returns:
            Typed cells, null where missing or not understood, and which were there and are not understood [n].

        Raises:
            UserError: the cells are of another type altogether.
        """
        typed = self.spelling.read(cells, dtype_from_json(self.dtype))
        if typed is None:
            raise UserError(
                f"column '{self.name}' should hold {self.spelling.wanted(self.dtype)}, and holds {cells.dtype}"
            )
        lost = typed.is_null().to_numpy() & ~self.spelling.absent(cells)
        return typed.alias(self.name), lost

    def spell(self, cells: pl.Series) -> pl.Series:
        """Spell typed cells as the column's cells came: text where it was text."""
        return self.spelling.write(cells).alias(self.name)

    def centre(self, drawn: Sequence[pl.Series]) -> pl.Series:
        """What several draws of some cells come to, cell by cell: the most frequent of them, the first by order of two.

        Args:
            drawn: typed cells, one series a draw.
        """
        votes = [pl.Series(row).mode().sort()[0] for row in zip(*(series.to_list() for series in drawn))]
        return pl.Series(self.name, votes, dtype=drawn[0].dtype)

    def features(self, state: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Encoded cells as numbers that distances make sense of [n, features]; NaN where missing or unseen."""
        indicators = (state[:, None] == np.arange(self.levels)).astype(np.float64)
        gone = (state < 0) | (state >= self.levels)
        return np.where(gone[:, None], np.nan, indicators)

    def standard(self, value: np.ndarray) -> np.ndarray:
        """Encoded values [n] as standardised coordinates; nothing to standardise where no state carries one."""
        return value

    def coordinate_of(self, value: object) -> float:
        """The standardised coordinate of a number, in the column's own unit or spelled as its cells are.

        Raises:
            UserError: the column has no numbers, or this is none.
        """
        raise UserError(f"column '{self.name}' is not modelled: {self.reason}")

    def state_of(self, value: object) -> tuple[int, float]:
        """State and encoded value of one cell, given as text or typed.

        Raises:
            UserError: it is unseen, or no cell of this column.
        """
        state, measured = self.encode(self.one(value))
        if state[0] < 0:
            raise UserError(f"column '{self.name}' has no value as far out as {value!r}")
        return int(state[0]), float(measured[0])

    def one(self, value: object) -> pl.Series:
        """One cell from the command line or from Python, as a typed series of length one.

        Raises:
            UserError: it cannot be read as a cell of this column.
        """
        cells = pl.Series([value])
        try:
            typed = self.spelling.read(cells, dtype_from_json(self.dtype))
        except (TypeError, ValueError, pl.exceptions.PolarsError):
            typed = None
        if typed is None or typed.null_count():
            raise UserError(f"column '{self.name}' takes {self.spelling.wanted(self.dtype)}, not {value!r}")
        return typed

    def _absent(self, cells: pl.Series, state: np.ndarray) -> np.ndarray:
        """States with the missing cells put in."""
        return np.where(cells.is_null().to_numpy(), self.states - 1 if self.missing else UNSEEN, state)

    @staticmethod
    def _common(summary: Summary) -> dict[str, Any]:
        """The fields that every kind takes from the statistics."""
        return {
            "name": summary.name,
            "dtype": dtype_to_json(summary.dtype),
            "missing": summary.missing > 0,
            "spelling": summary.spelling,
        }

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, with the word of the kind."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        nested = {name: vars(value) if dataclasses.is_dataclass(value) else value for name, value in fields.items()}
        return {"kind": self.word, **nested, "spelling": self.spelling.to_json()}
