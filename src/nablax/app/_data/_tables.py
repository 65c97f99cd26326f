"""Tables on disk: CSV as text and Parquet as typed, whole or batch by batch with flat memory."""

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from .._errors import UserError
from ._header import NOT_UTF8, Header, read_header
from ._quotes import quoted_plainly

Batches = Callable[[int], Iterator[pl.DataFrame]]


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


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A file of text, opened.

    Attributes:
        batches: batch size to its batches, every cell text as it stands there, null where it is empty.
        rows: how many there are.
        notices: what was noticed.
        place: row to its place in the file, in words.
    """

    batches: Batches
    rows: int
    notices: tuple[str, ...]
    place: Callable[[int], str]


def comma_separated(path: Path, *, shown: Path, header: bool | None = None, every_row: bool = False) -> TextTable:
    """Open a CSV file (or one separated by semicolons, tabs or bars), with or without a header.

    Args:
        path: plain text.
        shown: what messages call it.
        header: whether the first line names the columns; None looks.
        every_row: keep rows whose cells are all empty. A blank line is such a row in a file of one column, and none
            in a wider one.

    Returns:
        The table.

    Raises:
        UserError: the file is empty, has no rows, duplicate column names, rows of different lengths or quotes that
            leave open where a cell ends, or is not UTF-8.
    """
    head = read_header(path, shown, header)
    path = quoted_plainly(path, shown, head)
    notices = [f"{shown.name}: {line}" for line in head.notices]
    names = list(head.names)
    options: dict[str, Any] = {
        "separator": head.separator,
        "has_header": head.there,
        "skip_lines": head.before,
        "with_column_names": lambda found: names[: len(found)],
        "infer_schema": False,
        "glob": False,
    }
    try:
        rows, empty, last_missing = _count(path, options)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _fault(path, shown, head, error) from None
    skipped: list[int] | None = None
    if every_row and empty:
        skipped = _blank_lines(path, head) if len(names) > 1 else []
        rows += empty - len(skipped)
    elif empty:
        notices.append(f"{shown.name}: {empty} empty rows skipped")
    if rows == 0:
        raise UserError(shown, "a header and no rows")
    if last_missing or skipped is not None:
        _require_even(path, shown, head)

    def batches(size: int) -> Iterator[pl.DataFrame]:
        try:
            yield from _batches(path, options, size, skipped)
        except pl.exceptions.PolarsError as error:
            raise _fault(path, shown, head, error) from None

    return TextTable(batches, rows, tuple(notices), lambda row: _line(path, head, row, every_row))


def _batches(path: Path, options: dict[str, Any], size: int, skipped: Sequence[int] | None) -> Iterator[pl.DataFrame]:
    """The rows but those at these positions; by default but those with no cell."""
    at = 0
    for batch in pl.scan_csv(path, **options).collect_batches(chunk_size=size, lazy=True, engine="streaming"):
        empty = pl.all_horizontal(pl.all().is_null())
        yield batch.filter(~(empty if skipped is None else pl.int_range(at, at + len(batch)).is_in(skipped)))
        at += len(batch)


def _rows(path: Path, head: Header) -> Iterator[tuple[int, list[str]]]:
    """Rows but the header, each with the number of its last line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for _ in range(head.before):
            file.readline()
        reader = csv.reader(file, delimiter=head.separator)
        if head.there:
            next(reader)
        for row in reader:
            yield head.before + reader.line_num, row


def _blank_lines(path: Path, head: Header) -> list[int]:
    """Positions of the rows that are a line's end and nothing else."""
    return [number for number, (_, row) in enumerate(_rows(path, head)) if not row]


def _line(path: Path, head: Header, row: int, every_row: bool) -> str:
    """The line of a row that is kept."""
    kept = (line for line, cells in _rows(path, head) if any(cells) or (every_row and len(head.names) == 1))
    line = next(itertools.islice(kept, row, None), None)
    return f"row {row + 1}" if line is None else f"line {line}"


def _count(path: Path, options: dict[str, Any]) -> tuple[int, int, int]:
    """Rows, empty rows, and missing cells in the last column, where short rows leave theirs."""
    rows = empty = last_missing = 0
    for batch in pl.scan_csv(path, **options).collect_batches(chunk_size=65_536, lazy=True, engine="streaming"):
        kept = batch.filter(~pl.all_horizontal(pl.all().is_null()))
        rows += len(kept)
        empty += len(batch) - len(kept)
        last_missing += kept[kept.columns[-1]].null_count()
    return rows, empty, last_missing


def _require_even(path: Path, shown: Path, head: Header) -> None:
    # Polars fills short rows with nulls without a word, which would pass for missing cells.
    width = len(head.names)
    try:
        for line, row in _rows(path, head):
            if row and len(row) != width:
                raise UserError(
                    shown, f"line {line} has {len(row)} cell{'s' * (len(row) != 1)}, the first line has {width}"
                )
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(shown, "no readable table", error) from None


def _fault(path: Path, shown: Path, head: Header, error: Exception) -> UserError:
    text = str(error)
    if "utf-8" in text.lower():
        return UserError(shown, NOT_UTF8)
    if "more fields" in text:
        try:
            _require_even(path, shown, head)
        except UserError as uneven:
            return uneven
    return UserError(shown, "no readable table", _first(error))


def _first(error: Exception) -> str:
    return next(itertools.chain(str(error).strip().splitlines(), [type(error).__name__]))
