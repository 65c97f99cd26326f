"""Tables on disk: CSV and Parquet, whole or batch by batch with flat memory."""

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from .._errors import UserError

Batches = Callable[[int], Iterator[pl.DataFrame]]
_HEAD = 10_000
_NULLS = ["NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?"]


def parquet(path: Path) -> tuple[Batches, int]:
    """Open a Parquet file.

    Args:
        path: the file.

    Returns:
        Batch size to its batches, each a slice of row groups read anew, and the number of rows.

    Raises:
        UserError: it is no whole Parquet file.
    """
    try:
        rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(path, "no readable Parquet file, it may be cut short", _first(error)) from None

    def batches(size: int) -> Iterator[pl.DataFrame]:
        # Slices hold one batch at a time; polars' own batches hold several row groups, however large.
        for at in range(0, rows, size):
            try:
                yield pl.scan_parquet(path, glob=False).slice(at, size).collect(engine="in-memory")
            except pl.exceptions.PolarsError as error:
                raise UserError(path, "damaged Parquet file", _first(error)) from None

    return batches, rows


def comma_separated(path: Path, *, every_row: bool = False) -> tuple[Batches, int, tuple[str, ...]]:
    """Open a CSV file (or one separated by semicolons, tabs or bars), with or without a header.

    Args:
        path: the file.
        every_row: keep the rows whose cells are all missing. A blank line is such a row in a file of one column,
            and none in a wider one.

    Returns:
        Batch size to its batches, the number of rows, and what was noticed.

    Raises:
        UserError: the file is empty, has no rows, duplicate column names, rows of different lengths, or is not UTF-8.
    """
    separator, names, header = _first_line(path)
    notices = [] if header else [f"{path.name}: no header line, so the columns are called {names[0]}, …"]
    options: dict[str, Any] = {
        "separator": separator,
        "has_header": header,
        "with_column_names": lambda found: names[: len(found)],
        "null_values": _NULLS,
        "try_parse_dates": True,
        "glob": False,
    }
    try:
        try:
            schema = _schema(path, options, _HEAD)
            counts = _count(path, options, schema)
        except pl.exceptions.ComputeError as error:
            # The first rows may mislead (1, 2, … 3.5): look at every row before giving up.
            if "could not parse" not in str(error):
                raise
            schema = _schema(path, options, None)
            counts = _count(path, options, schema)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _fault(path, error) from None
    rows, empty, last_missing = counts
    skipped: list[int] | None = None
    if every_row and empty:
        skipped = _blank_lines(path, separator, header) if len(names) > 1 else []
        rows += empty - len(skipped)
    elif empty:
        notices.append(f"{path.name}: {empty} empty rows skipped")
    if rows == 0:
        raise UserError(path, "a header and no rows")
    if last_missing or skipped is not None:
        _require_even(path, separator, len(names))

    def batches(size: int) -> Iterator[pl.DataFrame]:
        try:
            yield from _batches(path, options, schema, size, skipped)
        except pl.exceptions.PolarsError as error:
            raise _fault(path, error) from None

    return batches, rows, tuple(notices)


def _first_line(path: Path) -> tuple[str, list[str], bool]:
    with path.open("rb") as file:
        raw = file.readline(1 << 20)
    if not raw.strip():
        raise UserError(path, "the file is empty")
    try:
        line = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(path, "the text is not UTF-8; save it as UTF-8") from None
    separator = max(",;\t|", key=line.count)
    names = next(csv.reader([line], delimiter=separator))
    if all(_is_number(name) for name in names):
        return separator, [f"x{j}" for j in range(len(names))], False
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(path, f"the column name '{twice[0]}' occurs more than once")
    return separator, names, True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _schema(path: Path, options: dict[str, Any], rows: int | None) -> pl.Schema:
    if rows is not None:
        head = pl.scan_csv(path, infer_schema_length=rows, n_rows=rows, **options).collect()
        unknown = any(head[name].null_count() == len(head) for name in head.columns)
        if not (unknown and len(head) == rows):
            return head.schema
    return pl.scan_csv(path, infer_schema_length=None, **options).collect_schema()


def _batches(
    path: Path, options: dict[str, Any], schema: pl.Schema, size: int, skipped: Sequence[int] | None
) -> Iterator[pl.DataFrame]:
    """The rows but those at these positions; by default but those with no cell."""
    scan = pl.scan_csv(path, schema_overrides=schema, infer_schema_length=0, **options)
    at = 0
    for batch in scan.collect_batches(chunk_size=size, lazy=True, engine="streaming"):
        empty = pl.all_horizontal(pl.all().is_null())
        yield batch.filter(~(empty if skipped is None else pl.int_range(at, at + len(batch)).is_in(skipped)))
        at += len(batch)


def _blank_lines(path: Path, separator: str, header: bool) -> list[int]:
    """Positions of the rows that are a line's end and nothing else."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [k - header for k, row in enumerate(csv.reader(file, delimiter=separator)) if not row]


def _count(path: Path, options: dict[str, Any], schema: pl.Schema) -> tuple[int, int, int]:
    """Rows, empty rows, and missing cells in the last column, where short rows leave theirs."""
    rows = empty = last_missing = 0
    scan = pl.scan_csv(path, schema_overrides=schema, infer_schema_length=0, **options)
    for batch in scan.collect_batches(chunk_size=65_536, lazy=True, engine="streaming"):
        kept = batch.filter(~pl.all_horizontal(pl.all().is_null()))
        rows += len(kept)
        empty += len(batch) - len(kept)
        last_missing += kept[kept.columns[-1]].null_count()
    return rows, empty, last_missing


def _require_even(path: Path, separator: str, width: int) -> None:
    # Polars fills short rows with nulls without a word, which would pass for missing cells.
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in (reader := csv.reader(file, delimiter=separator)):
            if row and len(row) != width:
                raise UserError(path, f"line {reader.line_num} has {len(row)} cells, the first line has {width}")


def _fault(path: Path, error: Exception) -> UserError:
    text = str(error)
    if "utf-8" in text.lower():
        return UserError(path, "the text is not UTF-8; save it as UTF-8")
    if "more fields" in text:
        return UserError(path, "some rows have more cells than the first line has columns")
    return UserError(path, "no readable table", _first(error))


def _first(error: Exception) -> str:
    return next(itertools.chain(str(error).strip().splitlines(), [type(error).__name__]))
