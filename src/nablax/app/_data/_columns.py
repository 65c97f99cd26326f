"""One column of a table: what it holds and how a cell becomes a number and comes back."""

import dataclasses
from typing import Any, TypeVar

import numpy as np
import polars as pl

from .._errors import UserError

Number = TypeVar("Number", float, np.ndarray)
KINDS = ("continuous", "grid", "category", "omit")
# A cell of a finer grid is narrower than float32 can keep apart from its neighbours after standardising.
MAXIMUM_LEVELS = 65_536
_DAY = {"ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}


@dataclasses.dataclass(frozen=True)
class Column:
    """What was learnt about a column from the training data; every field survives JSON.

    A number x is (low_tick + step_ticks · index) / denominator on a grid, and any float off one. Its coordinate is
    (w - mean) / scale where w is the number, measured from the lowest one and in steps on a grid, or its logarithm.

    Attributes:
        name: the column's name.
        kind: "continuous", "grid" or "category".
        dtype: the polars type, as JSON.
        missing: whether training cells were missing.
        low: least value seen, in the column's own unit (days for dates and times).
        high: greatest value seen.
        mean: of w.
        scale: standard deviation of w.
        log: whether w is a logarithm.
        shift: what is added before the logarithm, in the unit of w.
        low_tick: least value as an integer, when all values are integers / ``denominator``.
        step_ticks: greatest common divisor of the differences; 0 when the values sit on no grid.
        denominator: 1 for integers, 10^d for decimals, ticks per day for times.
        categories: the values of a category, in their order.
    """

    name: str
    kind: str
    dtype: Any
    missing: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    log: bool = False
    shift: float = 0.0
    low_tick: int = 0
    step_ticks: int = 0
    denominator: int = 1
    categories: tuple[Any, ...] = ()

    @property
    def step(self) -> float:
        """Width of a grid cell in the column's own unit; 1 off the grid."""
        return self.step_ticks / self.denominator if self.kind == "grid" else 1.0

    @property
    def dims(self) -> int:
        """Coordinates that a present cell takes: categories - 1 for a category, else 1."""
        return len(self.categories) - 1 if self.kind == "category" else 1

    def to_index(self, value: Number) -> Number:
        """The grid index of numbers in the column's own unit, not rounded."""
        return (value * self.denominator - self.low_tick) / self.step_ticks

    def to_coordinate(self, value: Number) -> Number:
        """Standardise numbers given in the column's own unit."""
        measure = self.to_index(value) if self.kind == "grid" else value
        if self.log:
            # Below the support of the logarithm the density is zero: far out in the tail stands for it.
            floor = 1e-6 * (self.shift if self.kind == "grid" else self.low + self.shift)
            measure = np.log(np.maximum(measure + self.shift, floor))
        return (measure - self.mean) / self.scale

    def from_coordinate(self, coordinate: Number) -> Number:
        """Undo ``to_coordinate``: numbers in the column's own unit, rounded to no grid yet."""
        with np.errstate(over="ignore"):  # clipped to the observed range by whoever prints it
            measure = coordinate * self.scale + self.mean
            if self.log:
                measure = np.exp(measure) - self.shift
        if self.kind == "grid":
            measure = (measure * self.step_ticks + self.low_tick) / self.denominator
        return measure

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self) | {"categories": list(self.categories)}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Column":
        """Rebuild from ``to_json``'s answer."""
        dtype = fields["dtype"]
        return Column(
            **{
                **fields,
                "categories": tuple(fields["categories"]),
                "dtype": tuple(dtype) if isinstance(dtype, list) else dtype,
            }
        )


def dtype_to_json(dtype: pl.DataType) -> str | tuple[Any, ...]:
    """Name a polars type by plain values."""
    if isinstance(dtype, pl.Datetime):
        return ("Datetime", dtype.time_unit, dtype.time_zone)
    if isinstance(dtype, pl.Duration):
        return ("Duration", dtype.time_unit)
    if isinstance(dtype, pl.Decimal):
        return ("Decimal", dtype.precision, dtype.scale)
    if isinstance(dtype, pl.Enum):
        return ("Enum", *dtype.categories.to_list())
    return type(dtype).__name__


def dtype_from_json(name: Any) -> pl.DataType:
    """Undo ``dtype_to_json``; only names of polars types are looked up, nothing is executed."""
    if isinstance(name, str):
        if name not in _SIMPLE:
            raise UserError(f"unknown column type {name!r} in the configuration")
        return _SIMPLE[name]()
    head, *rest = name
    if head == "Enum":
        return pl.Enum(rest)
    return {"Datetime": pl.Datetime, "Duration": pl.Duration, "Decimal": pl.Decimal}[head](*rest)


_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "Int128", "UInt8", "UInt16", "UInt32", "UInt64", "UInt128")
_TEXTS = ("String", "Categorical", "Enum", "Boolean")
_SIMPLE: dict[str, Any] = {
    name: getattr(pl, name)
    for name in (*_INTEGERS, "Float32", "Float64", "String", "Categorical", "Boolean", "Date", "Time")
}


def family(dtype: pl.DataType) -> str:
    """Sort a polars type into "integer", "float", "time", "text" or "other"."""
    name = type(dtype).__name__
    if name in _INTEGERS:
        return "integer"
    if name in ("Float32", "Float64", "Decimal"):
        return "float"
    if name in ("Date", "Datetime", "Time", "Duration"):
        return "time"
    return "text" if name in _TEXTS else "other"


def ticks_per_unit(dtype: pl.DataType) -> int:
    """Integers that make one of the column's own unit: ticks per day for times, 1 otherwise."""
    if isinstance(dtype, (pl.Datetime, pl.Duration)):
        return _DAY[dtype.time_unit or "us"]
    return _DAY["ns"] if isinstance(dtype, pl.Time) else 1


def numbers(series: pl.Series) -> np.ndarray:
    """A column of numbers or times as float64 in its own unit, NaN where the cell is missing.

    Args:
        series: integers, floats, decimals, dates, times or durations.

    Returns:
        Array [n]; times are in days since 1970-01-01 (or midnight, for a time of day).
    """
    if family(series.dtype) != "time":
        return series.cast(pl.Float64).to_numpy().astype(np.float64)
    return series.to_physical().cast(pl.Float64).to_numpy() / float(ticks_per_unit(series.dtype))


def series_from_numbers(column: Column, value: np.ndarray, present: np.ndarray) -> pl.Series:
    """Numbers in the column's own unit back as cells of its own type.

    Args:
        column: a continuous or grid column.
        value: array [n], within the observed range.
        present: array [n] of booleans; the other cells become null.

    Returns:
        The series, rounded to the grid where there is one.
    """
    dtype = dtype_from_json(column.dtype)
    if column.step_ticks and (column.kind == "grid" or family(dtype) != "float"):
        index = np.rint(np.where(present, column.to_index(value), 0.0)).astype(np.int64)
        tick = column.low_tick + column.step_ticks * index
        series = pl.Series(column.name, tick if family(dtype) != "float" else tick / column.denominator)
    else:
        series = pl.Series(column.name, np.where(present, value, column.low))
    if family(dtype) == "time":
        series = series.cast(pl.Int32 if isinstance(dtype, pl.Date) else pl.Int64)
    elif family(dtype) == "integer" and series.dtype.is_float():
        series = series.round()
    return pl.select(pl.when(pl.Series(present)).then(series.cast(dtype))).to_series().alias(column.name)
