"""Files of text made plain: unpacked, decoded, with line ends that readers understand."""

import atexit
import dataclasses
import gzip
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import polars as pl

from .._errors import UserError
from .._kinds._reading import Locale, locale

_CHUNK = 1 << 20
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zX": "xz"}
_MARKS = {  # the longer ones first
    **{b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"},
    **{b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"},
}


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """What the person said of how a file of text is to be read; None leaves it to the file.

    Attributes:
        decimal: "point" or "comma".
        dates: "day-first", "month-first" or "year-first".
        missing: words for a missing cell, parted by commas.
        encoding: such as "latin-1".
        header: whether the first line names the columns.
    """

    decimal: str | None = None
    dates: str | None = None
    missing: str | None = None
    encoding: str | None = None
    header: bool | None = None

    def locale(self) -> Locale:
        """What concerns the spelling of cells.

        Raises:
            UserError: a flag has a value that it cannot have.
        """
        return locale(self.decimal, self.dates, self.missing)


AS_IT_IS = TextOptions()


def standard_input() -> Path:
    """Standard input as a file, which is gone when the program ends."""
    folder = temporary_folder()
    with (folder / "standard-input.csv").open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _CHUNK)
    return folder / "standard-input.csv"


def plain_text(path: Path, encoding: str | None, *, shown: Path | None = None) -> Path:
    """The file itself where it is UTF-8 with line feeds, else a copy that is, gone when the program ends.

    Args:
        path: the file, which may be packed by gzip or Zstandard whatever its name.
        encoding: of its characters; UTF-8 by default, or UTF-16 or UTF-32 where its first bytes say so.
        shown: what messages call it; its own name by default.

    Returns:
        A file to read.

    Raises:
        UserError: it cannot be unpacked, it is not of that encoding, or it holds a NUL byte.
    """
    shown = shown or path
    with path.open("rb") as file:
        start = file.read(_CHUNK)
    packed = next((how for mark, how in _PACKED.items() if start.startswith(mark)), None)
    if packed in ("zip", "bzip2", "xz"):
        raise UserError(path, f"the file is packed by {packed}; unpack it, or pack it by gzip or zstd")
    if start.startswith(b"PAR1"):
        raise UserError(path, "the file is Parquet; name it .parquet")
    if packed is not None:
        path = _unpacked(path, packed)
        with path.open("rb") as file:
            start = file.read(_CHUNK)
    found = encoding or next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    returns = b"\r" in start and b"\n" not in start
    plain = path if found is None and not returns else _decoded(path, found or "utf-8-sig", returns)
    _require_text(plain, shown)
    return plain


def _require_text(path: Path, shown: Path) -> None:
    """Refuse a NUL byte: readers end a cell at it, each in its own way."""
    line = 1
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            at = part.find(0)
            if at < 0:
                line += part.count(b"\n")
                continue
            line += part.count(b"\n", 0, at)
            if line == 1 and part.count(0) >= 0.3 * len(part):
                which = "utf-16-be" if at == 0 else "utf-16-le"
                raise UserError(shown, f"every other byte is NUL, as in UTF-16: name its encoding, --encoding {which}")
            raise UserError(shown, f"line {line} holds a NUL byte, which no text has: the file may be damaged")


def temporary_folder() -> Path:
    """A new folder, which is gone when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="nablax-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _unpacked(path: Path, how: str) -> Path:
    target = temporary_folder() / "unpacked.csv"
    try:
        with target.open("wb") as out:
            if how == "gzip":
                with gzip.open(path) as packed:
                    shutil.copyfileobj(packed, out, _CHUNK)
            else:
                # Lines as they are: no cell holds this separator, and no mark quotes.
                lines = pl.scan_csv(
                    path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False, glob=False
                )
                lines.sink_csv(out, include_header=False, separator="\x1f", quote_style="never")
    except (OSError, EOFError, pl.exceptions.PolarsError):
        raise UserError(path, f"it cannot be unpacked by {how}, it may be cut short") from None
    return target


def _decoded(path: Path, encoding: str, returns: bool) -> Path:
    target = temporary_folder() / "decoded.csv"
    try:
        "".encode(encoding)  # codecs of bytes, such as base64, are refused too
    except LookupError:
        raise UserError(f"--encoding {encoding!r} is not known; such as utf-8, latin-1, cp1252") from None
    try:
        with path.open(encoding=encoding, newline="") as file, target.open("w", encoding="utf-8", newline="") as out:
            for part in _parts(file):
                out.write(part.replace("\r", "\n") if returns else part)
    except UnicodeError:
        raise UserError(path, f"the text is not {encoding}; name another --encoding") from None
    return target


def _parts(file: TextIO) -> Iterator[str]:
    while part := file.read(_CHUNK):
        yield part
