"""Where data come from: a file, a folder of images, or a named set."""

import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from .._errors import UserError
from .._kinds._reading import Locale
from . import _arrays, _folder, _tables
from ._named import DEFAULT_ROWS, NAMED, named
from ._plain_text import AS_IT_IS, TextOptions, plain_text, standard_input

BATCH = 65_536
MEMORY_LIMIT = 1 << 30
_WHOLE_HASH = 1 << 30
_WORDS = {"table": "a table", "images": "images"}
_TEXT = (".csv", ".tsv", ".txt")
_PACKED = (".gz", ".zst")
_EXTENSIONS = (*_TEXT, ".csv.gz", ".csv.zst", ".parquet", ".npy", ".npz")


@dataclasses.dataclass(frozen=True)
class Source:
    """Rows to learn from or to score, held in memory or read anew from disk batch by batch.

    Attributes:
        name: short, fit for the name of a run folder.
        kind: "table", or "images" when there is a column ``image`` of arrays.
        schema: the columns and their types.
        rows: number of rows.
        fingerprint: tells whether the data are the same as in an earlier run.
        notices: what was noticed on reading, one line each.
        frame: all rows; None when they are too many to hold.
        levels: number of values a pixel can take, when that is known beforehand.
        reader: batch size to the batches, in order, for rows that are not held.
        place: row to its place in a file of text, in words; None where cells came typed.
        locale: what the person said of the spelling of cells that are text.
    """

    name: str
    kind: str
    schema: pl.Schema
    rows: int
    fingerprint: str
    notices: tuple[str, ...] = ()
    frame: pl.DataFrame | None = None
    levels: int | None = None
    reader: _tables.Batches | None = None
    place: Callable[[int], str] | None = None
    locale: Locale = Locale()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.schema.names())

    def batches(self, rows: int = BATCH) -> Iterator[pl.DataFrame]:
        """All rows in order, at most ``rows`` at a time."""
        if self.frame is not None:
            yield from self.frame.iter_slices(rows)
        elif self.reader is not None:
            yield from self.reader(rows)


def table(frame: pl.DataFrame, *, name: str = "table", fingerprint: str = "") -> Source:
    """Wrap rows that are already in memory.

    Args:
        frame: the rows; a column ``image`` of arrays makes them images.
        name: what messages call it.
        fingerprint: of the contents, where runs are to be told apart.

    Returns:
        The source.
    """
    kind = "images" if isinstance(frame.schema.get("image"), pl.Array) else "table"
    return Source(name, kind, frame.schema, len(frame), fingerprint, frame=frame)


def read(
    source: str | Path,
    *,
    condition: Sequence[str] = (),
    image_size: int | None = None,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    minimum_rows: int = 20,
    memory_limit: int = MEMORY_LIMIT,
    every_row: bool = False,
    text: TextOptions = AS_IT_IS,
) -> Source:
    """Open a data source.

    Args:
        source: a CSV (packed or not), Parquet, ``.npy`` or ``.npz`` file, a folder of pictures, the name of a set, or
            "-" for a CSV on standard input.
        condition: columns that must be there.
        image_size: side of the square that pictures are cut and resized to.
        rows: rows to draw of a synthetic set.
        seed: seed of that draw.
        minimum_rows: fewer rows are an error; 20 is the least to learn from.
        memory_limit: bytes above which the rows are not held in memory but read batch by batch.
        every_row: keep the rows of a CSV whose cells are all missing, which training leaves out.
        text: how a CSV is to be read.

    Returns:
        The source.

    Raises:
        UserError: anything that keeps the rows from being read, in one line.

    Example:
        >>> read("moons", rows=100).frame.shape
        (100, 2)
    """
    given = str(source)
    if given in NAMED and not Path(given).is_file():
        frame = named(given, n=rows, seed=seed)
        made = table(frame, name=given, fingerprint=given if given == "digits" else f"{given} n={rows} seed={seed}")
        opened = dataclasses.replace(made, levels=17 if given == "digits" else None)
    elif given == "-":
        opened = _open_text(standard_input(), Path("standard-input"), memory_limit, every_row, text)
    else:
        opened = _open(Path(given).expanduser(), image_size, memory_limit, every_row, text)
    if opened.rows < minimum_rows:
        raise UserError(given, f"too few rows: {opened.rows}, at least {minimum_rows} are needed")
    for name in condition:
        if name not in opened.columns:
            raise UserError(given, f"no column '{name}' to condition on; the columns are {', '.join(opened.columns)}")
    return opened


def read_frame(
    source: str | Path, kind: str, *, image_size: int | None = None, text: TextOptions = AS_IT_IS
) -> pl.DataFrame:
    """Read rows to be scored or completed by a trained model, all into memory.

    Args:
        source: as for ``read``.
        kind: what the model was learnt from, "table" or "images".
        image_size: as for ``read``.
        text: as for ``read``.

    Returns:
        Every row of the file, those without any cell among them: what is made of them lies beside them.

    Raises:
        UserError: they cannot be read, or are of the other kind.
    """
    opened = read(source, image_size=image_size, minimum_rows=1, memory_limit=sys.maxsize, every_row=True, text=text)
    if opened.kind != kind or opened.frame is None:
        raise UserError(source, f"the model was learnt from {_WORDS[kind]}, and these are {_WORDS[opened.kind]}")
    return opened.frame


def _open(path: Path, image_size: int | None, memory_limit: int, every_row: bool, text: TextOptions) -> Source:
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(path, f"no such file or folder, nor a named set ({', '.join(NAMED)})")
    try:
        if not (path.is_dir() or path.is_file()):
            raise UserError(path, "a pipe or a device, which is read once; send it to the standard input, as -")
        if path.is_dir():
            batches, files, shape = _folder.folder(path, image_size=image_size)
            count, size = len(files), len(files) * shape[0] * shape[1] * shape[2]
            return _source(path, batches, count, size, _fingerprint(files), memory_limit)
        if suffix in _PACKED:
            suffix = Path(path.stem).suffix.lower()
            suffix = suffix if suffix in _TEXT else "." + path.name.split(".", 1)[-1]
        if suffix not in _EXTENSIONS:
            raise UserError(path, f"unknown kind of file; the known ones are {', '.join(_EXTENSIONS)}")
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(path, "the file is empty")
        if suffix in _TEXT:
            return _open_text(path, path, memory_limit, every_row, text)
        size = path.stat().st_size
        if suffix == ".parquet":
            batches, count = _tables.parquet(path)
            size = count * len(pl.scan_parquet(path, glob=False).collect_schema()) * 8
        elif suffix == ".npy":
            batches, count = _arrays.npy(path)
        else:
            batches, count = _arrays.npz(path)
            size = 0  # the archive is in memory already
        return _source(path, batches, count, size, _fingerprint([path]), memory_limit)
    except OSError as error:
        raise UserError(path, "cannot be read", error.strerror or error) from None


def _open_text(path: Path, shown: Path, memory_limit: int, every_row: bool, text: TextOptions) -> Source:
    plain, locale = plain_text(path, text.encoding, shown=shown), text.locale()
    opened = _tables.comma_separated(plain, shown=shown, header=text.header, every_row=every_row)
    fingerprint = _fingerprint([path], name=shown.name)
    source = _source(shown, opened.batches, opened.rows, plain.stat().st_size, fingerprint, memory_limit)
    return dataclasses.replace(source, notices=opened.notices, place=opened.place, locale=locale)


def _source(
    path: Path,
    batches: _tables.Batches,
    count: int,
    size: int,
    fingerprint: str,
    memory_limit: int,
) -> Source:
    bare = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    name = bare.stem or path.name
    if not count:
        raise UserError(path, "no rows")
    if size <= memory_limit:
        return table(pl.concat(list(batches(BATCH))), name=name, fingerprint=fingerprint)
    first = next(batches(1))
    kind = table(first).kind
    return Source(name, kind, first.schema, count, fingerprint, reader=batches)


def _fingerprint(files: Iterable[Path], *, name: str | None = None) -> str:
    """Hash the contents; of files that are very large, their size, time and both ends. Another name may stand in."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{name or file.name}\0{status.st_size}\0".encode())
        with file.open("rb") as stream:
            if status.st_size <= _WHOLE_HASH:
                while block := stream.read(1 << 20):
                    digest.update(block)
            else:
                digest.update(f"{status.st_mtime_ns}\0".encode() + stream.read(1 << 20))
                stream.seek(-(1 << 20), os.SEEK_END)
                digest.update(stream.read())
    return digest.hexdigest()
