"""Tables of pandas as tables of Polars and back, with no package but those two."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from .._core import described, fault, require
from ._errors import UserError


def is_pandas(frame: Any) -> bool:
    """Whether a table is one of pandas, which need not be installed."""
    return type(frame).__module__.split(".")[0] == "pandas" and hasattr(frame, "columns")


def to_polars(frame: Any) -> pl.DataFrame:
    """A table of either library as one of Polars.

    Args:
        frame: a DataFrame; of pandas, without its index, names as text, whatever pandas calls missing as null.

    Returns:
        The table.

    Raises:
        ValueError: it is neither.
        UserError: two names are the same as text, or a column holds what has no type of its own.
    """
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        for name, dtype in frame.schema.items():
            if dtype == pl.Object:
                raise _untyped(name, frame[name].to_list())
        return frame
    if not is_pandas(frame):
        fix = "Pass pl.DataFrame(...) or pd.DataFrame(...); for a file, its path to Table.learn."
        raise fault(expected="a DataFrame of Polars or of pandas", got=described(frame), fix=fix)
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"the column name '{twice[0]}' occurs more than once, where names are taken as text")
    return pl.DataFrame([_column(name, frame.iloc[:, j]) for j, name in enumerate(names)])


def types_of(frame: Any) -> dict[str, Any]:
    """The types of a table's columns by name, where it is one of pandas."""
    return dict(zip(map(str, frame.columns), frame.dtypes)) if is_pandas(frame) else {}


def like(frame: pl.DataFrame, given: Any) -> Any:
    """A table of Polars as one of the library, and with the types and the index, that another table has.

    Args:
        frame: the table.
        given: the other; one of as many rows lends its index.

    Returns:
        The table.
    """
    if not is_pandas(given):
        return frame
    made = to_pandas(frame, types_of(given))
    if len(given) == len(frame):
        made.index = given.index
    return made


def to_pandas(frame: pl.DataFrame, types: Mapping[str, Any] | None = None) -> Any:
    """A table of Polars as one of pandas.

    Args:
        frame: the table.
        types: column to its type in pandas, such as one with a zone, of nullable integers or of categories. Where there
            is none, or it cannot hold the cells, numbers with holes come as floats, and text and truth values with
            holes as objects.

    Raises:
        ImportError: pandas is not installed.
    """
    pandas = require("pandas", extra="app")
    types = types or {}
    return pandas.DataFrame({series.name: _as(series, types.get(series.name), pandas) for series in frame})


def _as(series: pl.Series, dtype: Any, pandas: Any) -> Any:
    """A column as one of pandas, of a type that it had there before."""
    if isinstance(dtype, pandas.CategoricalDtype):
        known = {None, *dtype.categories}
        new = [value for value in series.unique(maintain_order=True).to_list() if value not in known]
        wider = pandas.CategoricalDtype(dtype.categories.append(pandas.Index(new)), dtype.ordered) if new else dtype
        return pandas.Categorical(series.to_list(), dtype=wider)
    if dtype == np.dtype(object):
        return _objects(series)
    plain = _plain(series, pandas)
    if dtype is None or (isinstance(dtype, np.dtype) and dtype.kind not in "mM"):
        return plain
    in_time = isinstance(series.dtype, pl.Datetime | pl.Date | pl.Duration)
    try:
        # Whole numbers not by way of floats, which holes would make them.
        return pandas.Series(plain).astype(dtype) if in_time else pandas.Series(series.to_list(), dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        return plain


def _plain(series: pl.Series, pandas: Any) -> Any:
    """A column as the type of pandas that is nearest."""
    if series.dtype == pl.Date:
        series = series.cast(pl.Datetime("ms"))
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
        moments = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()
        return pandas.Series(moments).dt.tz_localize("UTC").dt.tz_convert(series.dtype.time_zone)
    wide = series.dtype in (pl.Int128, pl.UInt128)
    numeric = (series.dtype.is_numeric() and not wide) or isinstance(series.dtype, pl.Datetime | pl.Duration)
    if numeric or (series.dtype == pl.Boolean and not series.null_count()):
        return series.to_numpy()
    return _objects(series)


def _objects(series: pl.Series) -> np.ndarray:
    return np.array([*series.to_list(), None], dtype=object)[:-1]


def _column(name: str, series: Any) -> pl.Series:
    gone = series.isna().to_numpy()
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.itemsize <= 8:
        column = pl.Series(name, series.to_numpy())
    elif isinstance(dtype, np.dtype) and dtype.kind in "mM":
        column = pl.Series(name, series.to_numpy().astype(f"{dtype.kind}8[us]"))
    elif zone := getattr(dtype, "tz", None):
        column = _zoned(pl.Series(name, series.dt.tz_convert(None).to_numpy().astype("M8[us]")), str(zone))
    else:
        values = [None if absent else value for absent, value in zip(gone, series.astype(object))]
        plain = [value.item() if isinstance(value, np.generic) else value for value in values]
        try:
            column = pl.Series(name, plain)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            raise _untyped(name, values) from None
        if column.dtype == pl.Object:
            raise _untyped(name, values)
    return column if not gone.any() else column.zip_with(pl.Series(~gone), pl.Series([None], dtype=column.dtype))


def _zoned(moments: pl.Series, zone: str) -> pl.Series:
    """Moments of UTC in a zone; in UTC where it has no name, but hours and minutes."""
    utc = moments.dt.replace_time_zone("UTC")
    try:
        return utc.dt.convert_time_zone(zone)
    except pl.exceptions.PolarsError:
        return utc


def _untyped(name: str, values: list[Any]) -> UserError:
    types = list(dict.fromkeys(type(value).__name__ for value in values if value is not None))
    return UserError(
        f"column '{name}' holds {' and '.join(types[:3])}, which is no column of numbers, text or dates: make it one, "
        f"such as frame[{name!r}].astype(str), or leave it out"
    )


__all__ = ["is_pandas", "like", "to_pandas", "to_polars", "types_of"]
