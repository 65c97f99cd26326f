"""The line that a measured quantity lies on: its grid, its unit, and its standardised coordinate."""

import dataclasses
from typing import TypeVar

import numpy as np
import polars as pl

from ._types import family

Number = TypeVar("Number", float, np.ndarray)
# A cell of a finer grid is narrower than float32 can keep apart from its neighbours after standardising.
MAXIMUM_LEVELS = 65_536
_BEYOND = 100.0  # standard deviations outside of the training range where no density is left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Where numbers lie and how they are standardised; every field survives JSON.

    A number x is (low_tick + step_ticks · index) / denominator on a grid, and any float off one. Its measure w is the
    index on a grid and the number itself off one; its coordinate is (w - mean) / scale, or the same of log(w + shift).

    Attributes:
        grid: whether the cells sit on a grid of few enough steps to be counted rather than measured.
        low: least value seen, in the column's own unit (days for dates, times and durations).
        high: greatest value seen.
        mean: of w, or of its logarithm.
        scale: standard deviation of the same.
        log: whether the coordinate is of a logarithm.
        shift: what is added before the logarithm, in the unit of w.
        low_tick: least value as an integer, when all values are integers / ``denominator``.
        step_ticks: greatest common divisor of the differences; 0 when the values have no last decimal.
        denominator: 1 for integers, 10^d for decimals, ticks per day for times.
    """

    grid: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    log: bool = False
    shift: float = 0.0
    low_tick: int = 0
    step_ticks: int = 0
    denominator: int = 1

    @property
    def step(self) -> float:
        """Width of a grid cell in the column's own unit; 1 off the grid."""
        return self.step_ticks / self.denominator if self.grid else 1.0

    @property
    def margin(self) -> float:
        """What noise keeps off a grid cell's edges, in cells: a few roundings of float32, more through a logarithm."""
        if not self.grid:
            return 0.0
        return (self.to_index(self.high) + 1.0) * (2.0**-20 if self.log else 2.0**-22)

    def to_index(self, value: Number) -> Number:
        """The grid index of numbers in the column's own unit, not rounded."""
        return (value * self.denominator - self.low_tick) / self.step_ticks

    def from_index(self, index: Number) -> Number:
        """Undo ``to_index``."""
        return (index * self.step_ticks + self.low_tick) / self.denominator

    def to_coordinate(self, value: Number) -> Number:
        """Standardise numbers given in the column's own unit."""
        measure = self.to_index(value) if self.grid else value
        if self.log:
            # Below the support of the logarithm the density is zero: far out in the tail stands for it.
            with np.errstate(divide="ignore"):  # of an atom at zero, which is asked for no value
                measure = np.log(np.maximum(measure + self.shift, self._floor))
        return (measure - self.mean) / self.scale

    def from_coordinate(self, coordinate: Number) -> Number:
        """Undo ``to_coordinate``: numbers in the column's own unit, rounded to no grid yet."""
        with np.errstate(over="ignore"):  # clipped to the observed range by whoever prints it
            measure = coordinate * self.scale + self.mean
            if self.log:
                measure = np.exp(measure) - self.shift
        if self.grid:
            measure = self.from_index(measure)
        return measure

    def measure(self, value: np.ndarray) -> np.ndarray:
        """What an encoded cell holds: the whole index on a grid, the coordinate off one."""
        return np.rint(self.to_index(value)) if self.grid else self.to_coordinate(value)

    def reaches(self, value: np.ndarray) -> np.ndarray:
        """Whether numbers lie where the density can be asked for.

        Beyond a hundred standard deviations outside of the training range, and at and below the least number that has
        a logarithm, it is nothing; NaN and infinities lie nowhere.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            ends = self.to_coordinate(np.array([self.low, self.high]))
            coordinate = self.to_coordinate(value)
            inside = (coordinate > ends[0] - _BEYOND) & (coordinate < ends[1] + _BEYOND)
            if self.log:
                inside &= (np.rint(self.to_index(value)) - 0.5 if self.grid else value) + self.shift > self._floor
        return inside & np.isfinite(value)

    @property
    def _floor(self) -> float:
        return 1e-6 * (self.shift if self.grid else self.low + self.shift)

    def series(self, name: str, dtype: pl.DataType, value: np.ndarray, present: np.ndarray) -> pl.Series:
        """Numbers in the column's own unit back as cells of its own type, with no more decimals than it has.

        Args:
            name: of the column.
            dtype: of the cells.
            value: array [n], within the observed range.
            present: array [n] of booleans; the other cells become null.

        Returns:
            The series, rounded to the grid where there is one, else to the last decimal where there is one.
        """
        kind = family(dtype)
        if self.step_ticks:
            step = self.step_ticks if self.grid or kind != "float" else 1
            index = np.rint(np.where(present, (value * self.denominator - self.low_tick) / step, 0.0)).astype(np.int64)
            tick = self.low_tick + step * index
            series = pl.Series(name, tick if kind != "float" else tick / self.denominator)
        else:
            series = pl.Series(name, np.where(present, value, self.low))
        if kind in ("time", "duration"):
            series = series.cast(pl.Int32 if isinstance(dtype, pl.Date) else pl.Int64)
        elif kind == "integer" and series.dtype.is_float():
            series = series.round()
        return pl.select(pl.when(pl.Series(present)).then(series.cast(dtype))).to_series().alias(name)
