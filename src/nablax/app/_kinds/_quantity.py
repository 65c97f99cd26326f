"""What numbers, times and durations share: a smooth part with a value, and atoms without."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from ._kind import UNSEEN, AbstractKind
from ._measured import measure
from ._scale import Scale
from ._summary import Summary
from ._types import dtype_from_json, numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractQuantity(AbstractKind, abc.ABC):
    """A column that is measured or counted: mixed, discrete at its atoms and smooth elsewhere.

    Attributes:
        scale: where its numbers lie, and how they are standardised.
        atoms: the numbers that recur, rising, in the column's own unit; state k is the k-th of them.
    """

    scale: Scale = Scale()
    atoms: tuple[float, ...] = ()

    valued: ClassVar[bool] = True

    @property
    def levels(self) -> int:
        """The smooth part and the atoms."""
        return 1 + len(self.atoms)

    @property
    def unit(self) -> str:
        """A density per unit of the column, or on a grid of step 1 a probability; a probability at an atom."""
        smooth = "probability" if self.scale.grid and self.scale.step == 1.0 else f"density per {self.measured_in}"
        return smooth if not self.atoms or smooth == "probability" else f"{smooth}, probability at an atom"

    @property
    def measured_in(self) -> str:
        """The unit of its numbers."""
        return f"unit of {self.name}"

    @property
    def counted(self) -> bool:
        """Whether its smooth part lies on a grid."""
        return self.scale.grid

    def value_of(self, value: object) -> float:
        """A number in the column's own unit, given as text or typed.

        Raises:
            UserError: it cannot be read as a cell of this column.
        """
        return float(numbers(self.one(value))[0])

    def coordinate_of(self, value: object) -> float:
        """The standardised coordinate of a number, in the column's own unit or spelled as its cells are."""
        number = self.value_of(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
        return float(self.scale.to_coordinate(number))

    def standard(self, value: np.ndarray) -> np.ndarray:
        """Encoded values [n] as standardised coordinates: a grid's index is in the middle of its cell."""
        return self.scale.to_coordinate(self.scale.from_index(value)) if self.scale.grid else value

    def encode(self, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """States and values of typed cells; see ``AbstractKind.encode``."""
        value = numbers(cells)
        state = np.where(self.scale.reaches(value), 0, UNSEEN)
        for number, atom in enumerate(self.atoms, start=1):
            state[value == atom] = number
        state = self._absent(cells, state)
        with np.errstate(invalid="ignore", over="ignore"):
            return state, np.where(state == 0, self.scale.measure(value), np.nan)

    def centre(self, drawn: Sequence[pl.Series]) -> pl.Series:
        """The mean of the draws of each cell, on the column's own grid: what has the least mean squared error."""
        mean = np.mean([numbers(series) for series in drawn], axis=0)
        return self.scale.series(self.name, drawn[0].dtype, mean, np.ones(len(mean), bool))

    def features(self, state: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Encoded cells as one number each, an atom where its own number lies; NaN where there is none."""
        placed = np.where(state == 0, value, np.nan)
        for number, atom in enumerate(self.scale.measure(np.array(self.atoms)), start=1):
            placed[state == number] = atom
        return placed[:, None]

    def decode(self, state: np.ndarray, coordinate: np.ndarray) -> pl.Series:
        """Cells of states and coordinates, within the observed range; null where missing."""
        value = np.clip(self.scale.from_coordinate(coordinate), self.scale.low, self.scale.high)
        known = np.array([np.nan, *self.atoms])
        there = state < self.levels
        at_atom = there & (state > 0)
        value[at_atom] = known[state[at_atom]]
        return self.scale.series(self.name, dtype_from_json(self.dtype), value, there)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Rebuild from the fields of ``to_json``."""
        return cls(**{**fields, "scale": Scale(**fields["scale"])})

    @classmethod
    def _measured(cls, summary: Summary, *, grid: bool) -> Self:
        found = measure(summary, grid=grid)
        return cls(**cls._common(summary), scale=found.scale, atoms=found.atoms, shares=found.shares)
