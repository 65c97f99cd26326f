"""Tables of pandas as tables of Polars and back, with no package but those two."""

from typing import Any

import numpy as np
import polars as pl

from .._core import described, fault, require


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
    """
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    if not is_pandas(frame):
        fix = "Pass pl.DataFrame(...) or pd.DataFrame(...); for a file, its path to Table.learn."
        raise fault(expected="a DataFrame of Polars or of pandas", got=described(frame), fix=fix)
    return pl.DataFrame([_column(str(name), frame[name]) for name in frame.columns])


def like(frame: pl.DataFrame, given: Any) -> Any:
    """A table of Polars as one of the library, and with the index, that another table has.

    Args:
        frame: the table.
        given: the other; one of as many rows lends its index.

    Returns:
        The table.
    """
    if not is_pandas(given):
        return frame
    made = to_pandas(frame)
    if len(given) == len(frame):
        made.index = given.index
    return made


def to_pandas(frame: pl.DataFrame) -> Any:
    """A table of Polars as one of pandas: numbers with holes as floats, text and truth values with holes as objects.

    Raises:
        ImportError: pandas is not installed.
    """
    pandas = require("pandas", extra="app")
    columns = {}
    for series in frame:
        if series.dtype == pl.Date:
            series = series.cast(pl.Datetime("ms"))
        plain = series.dtype.is_numeric() or isinstance(series.dtype, pl.Datetime | pl.Duration)
        if plain or (series.dtype == pl.Boolean and not series.null_count()):
            columns[series.name] = series.to_numpy()
        else:
            columns[series.name] = np.array([*series.to_list(), None], dtype=object)[:-1]
    return pandas.DataFrame(columns)


def _column(name: str, series: Any) -> pl.Series:
    gone = series.isna().to_numpy()
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        column = pl.Series(name, series.to_numpy())
    elif isinstance(dtype, np.dtype) and dtype.kind in "mM":
        column = pl.Series(name, series.to_numpy().astype(f"{dtype.kind}8[us]"))
    else:
        values = [None if absent else value for absent, value in zip(gone, series.astype(object))]
        column = pl.Series(name, [value.item() if isinstance(value, np.generic) else value for value in values])
    return column if not gone.any() else column.zip_with(pl.Series(~gone), pl.Series([None], dtype=column.dtype))


__all__ = ["is_pandas", "like", "to_pandas", "to_polars"]
