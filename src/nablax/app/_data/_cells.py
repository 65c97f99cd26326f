"""Cells of a column to numbers and back, and the condition vector."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from .._errors import UserError
from ._columns import (
    Column,
    dtype_from_json,
    family,
    numbers,
    series_from_numbers,
)
from ._dequantise import vertices


def block_size(column: Column) -> int:
    """Length of a column's part of the condition vector."""
    return len(column.categories) if column.kind == "category" else 2


def listed(column: Column) -> str:
    """A category's values in words, the first dozen."""
    shown = ", ".join(str(value) for value in column.categories[:12])
    return shown + (", …" if len(column.categories) > 12 else "")


def number_of(column: Column, value: object) -> float:
    """A number or time given as text or typed, in the column's own unit.

    Raises:
        UserError: it is none.
    """
    dtype = dtype_from_json(column.dtype)
    try:
        if family(dtype) != "time":
            return float(value)  # type: ignore[arg-type]
        cell = pl.Series([value])
        cell = cell.str.strptime(dtype) if cell.dtype == pl.String else cell.cast(dtype)  # type: ignore[arg-type]
        return float(numbers(cell)[0])
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        raise UserError(f"column '{column.name}' takes {_wanted(dtype)}, not {value!r}") from None


def code_of(column: Column, value: object) -> int:
    """The number of a category's value, given as text or typed.

    Raises:
        UserError: it was not seen in training, or only its case differs from several; the message names the known
            ones.
    """
    # Exactly first: categories may differ by nothing but their case.
    for code, category in enumerate(column.categories):
        if value == category or str(value) == str(category):
            return code
    alike = [code for code, category in enumerate(column.categories) if _alike(value, category)]
    if len(alike) == 1:
        return alike[0]
    raise UserError(f"column '{column.name}' has no value {value!r}; the known ones are {listed(column)}")


def _alike(value: object, category: object) -> bool:
    if str(value).lower() == str(category).lower():
        return True
    return not isinstance(category, (str, bool)) and _as_float(value) == float(category)  # type: ignore[arg-type]


def _as_float(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _wanted(dtype: pl.DataType) -> str:
    return {"time": "a date or time", "text": "text"}.get(family(dtype), "a number")


def _cells(column: Column, frame: pl.DataFrame) -> pl.Series:
    if column.name not in frame.columns:
        raise UserError(f"column '{column.name}' is absent; the table has {', '.join(frame.columns)}")
    series, dtype = frame[column.name], dtype_from_json(column.dtype)
    if series.dtype.is_float():
        series = series.fill_nan(None)
    if series.null_count() == len(series):
        return pl.Series(column.name, [None] * len(series), dtype)
    alike = {family(series.dtype), family(dtype)}
    if column.kind != "category" and not (len(alike) == 1 or alike == {"integer", "float"}):
        raise UserError(f"column '{column.name}' should hold {_wanted(dtype)}, and holds {series.dtype}")
    return series


def encode_column(column: Column, frame: pl.DataFrame) -> np.ndarray:
    """A column's cells as floats: category number, grid index or coordinate; NaN where missing.

    Raises:
        UserError: the column is absent, of another type, infinite, or holds an unseen category.
    """
    if column.kind == "category":
        series = _cells(column, frame)
        distinct = series.unique().drop_nulls().to_list()
        codes = [float(code_of(column, value)) for value in distinct]
        return series.replace_strict(distinct, codes, default=None, return_dtype=pl.Float64).to_numpy()
    value = _finite(column, frame)
    return np.rint(column.to_index(value)) if column.kind == "grid" else column.to_coordinate(value)


def _finite(column: Column, frame: pl.DataFrame) -> np.ndarray:
    value = numbers(_cells(column, frame))
    if np.isinf(value).any():
        raise UserError(f"column '{column.name}' holds infinite values; remove those rows or cells")
    return value


def encode_conditions(columns: Sequence[Column], frame: pl.DataFrame) -> np.ndarray:
    """The condition vectors of rows: one-hot for a category, (1, standardised) for a number, zeros for missing.

    Args:
        columns: the condition columns.
        frame: the rows.

    Returns:
        float32 [n, condition_dim].

    Raises:
        UserError: a column is absent, of another type, infinite, or holds an unseen category.
    """
    blocks = [np.zeros((len(frame), 0))]
    for column in columns:
        block = np.zeros((len(frame), block_size(column)))
        if column.kind == "category":
            code = encode_column(column, frame)
            known = ~np.isnan(code)
            block[known, code[known].astype(np.int64)] = 1.0
        else:
            value = _finite(column, frame)
            known = ~np.isnan(value)
            block[known] = np.stack([np.ones(known.sum()), column.to_coordinate(value[known])], axis=1)
        blocks.append(block)
    return np.concatenate(blocks, axis=1).astype(np.float32)


def condition_vector(columns: Sequence[Column], values: Mapping[str, object], n: int) -> np.ndarray:
    """The condition vector for n equal rows; conditions that are not named are null (all zeros).

    Args:
        columns: the condition columns.
        values: column to value, as text from the command line or typed.
        n: rows.

    Returns:
        float32 [n, condition_dim].

    Raises:
        UserError: a name is no condition, or a value is unseen or no number.
    """
    names = [column.name for column in columns]
    for name in values:
        if name not in names:
            known = ", ".join(names) or "none: learn again with --condition COLUMN"
            raise UserError(f"'{name}' is no condition of this model; its conditions are {known}")
    blocks = [np.zeros(0)]
    for column in columns:
        block, value = np.zeros(block_size(column)), values.get(column.name)
        if value is not None and column.kind == "category":
            block[code_of(column, value)] = 1.0
        elif value is not None:
            block[:] = (1.0, float(column.to_coordinate(number_of(column, value))))
        blocks.append(block)
    return np.tile(np.concatenate(blocks).astype(np.float32), (n, 1))


def decode_conditions(columns: Sequence[Column], condition: np.ndarray) -> list[pl.Series]:
    """Condition vectors back to cells; null conditions become missing cells.

    Args:
        columns: the condition columns.
        condition: [n, condition_dim].

    Returns:
        One series a column.
    """
    made, at = [], 0
    for column in columns:
        block = np.asarray(condition, np.float64)[:, at : at + block_size(column)]
        at += block_size(column)
        present = np.any(block != 0.0, axis=1)
        if column.kind == "category":
            made.append(_category_series(column, np.argmax(block, axis=1), present))
        else:
            value = np.clip(column.from_coordinate(block[:, 1]), column.low, column.high)
            made.append(series_from_numbers(column, value, present))
    return made


def decode_column(column: Column, points: np.ndarray, present: np.ndarray) -> pl.Series:
    """A column's coordinates [n, dims] back to cells, within the observed range; null where not present."""
    if column.kind != "category":
        value = np.clip(column.from_coordinate(points[:, 0]), column.low, column.high)
        return series_from_numbers(column, value, present)
    # All vertices are equally far from the origin, so the nearest one has the largest inner product.
    codes = np.argmax(points @ vertices(len(column.categories)).T, axis=1)
    return _category_series(column, codes, present)


def _category_series(column: Column, codes: np.ndarray, present: np.ndarray) -> pl.Series:
    # Fitted without a type first: polars has no direct way from Python floats to every type.
    values = pl.Series(column.categories)
    cells = values.gather(pl.Series(codes.astype(np.uint32))).cast(dtype_from_json(column.dtype))
    return pl.select(pl.when(pl.Series(present)).then(cells)).to_series().alias(column.name)
