"""The types that cells come in: sorted by family, named in JSON, and taken as numbers."""

from typing import Any

import numpy as np
import polars as pl

from .._errors import UserError

_DAY = {"ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "Int128", "UInt8", "UInt16", "UInt32", "UInt64", "UInt128")
_TEXTS = ("String", "Categorical", "Enum", "Boolean")
_SIMPLE: dict[str, Any] = {
    name: getattr(pl, name)
    for name in (*_INTEGERS, "Float32", "Float64", "String", "Categorical", "Boolean", "Date", "Time", "Null")
}


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


def family(dtype: pl.DataType) -> str:
    """Sort a polars type into "integer", "float", "time", "duration", "text" or "other"."""
    name = type(dtype).__name__
    if name in _INTEGERS:
        return "integer"
    if name in ("Float32", "Float64", "Decimal"):
        return "float"
    if name in ("Date", "Datetime", "Time"):
        return "time"
    if name == "Duration":
        return "duration"
    return "text" if name in _TEXTS else "other"


def ticks_per_unit(dtype: pl.DataType) -> int:
    """Integers that make one of the column's own unit: ticks per day for times and durations, 1 otherwise."""
    if isinstance(dtype, (pl.Datetime, pl.Duration)):
        return _DAY[dtype.time_unit or "us"]
    return _DAY["ns"] if isinstance(dtype, pl.Time) else 1


def numbers(series: pl.Series) -> np.ndarray:
    """A column of numbers or times as float64 in its own unit, NaN where the cell is missing.

    Args:
        series: integers, floats, decimals, dates, times or durations.

    Returns:
        Array [n]; times are in days since 1970-01-01 (or midnight, for a time of day), durations in days.
    """
    if family(series.dtype) not in ("time", "duration"):
        return series.cast(pl.Float64).to_numpy().astype(np.float64)
    return series.to_physical().cast(pl.Float64).to_numpy() / float(ticks_per_unit(series.dtype))
