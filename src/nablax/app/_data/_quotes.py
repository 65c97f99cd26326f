"""Quotes of a file of text, made such that all readers take them alike, or refused with their line."""

import csv
import itertools
import re
from pathlib import Path

import numpy as np

from .._errors import UserError
from ._header import NOT_UTF8, Header
from ._plain_text import temporary_folder

_CHUNK = 1 << 22
_QUOTE, _LINE_END = ord('"'), ord("\n")
_MARK = b"\xef\xbb\xbf"


def quoted_plainly(path: Path, shown: Path, head: Header) -> Path:
    """The file itself where each quote begins or ends a cell or is doubled, else a copy in which that is so.

    A quote within a cell that does not begin with one is a letter, as in ``5" pipe``; the copy doubles it. Such a file
    is read in another way by each reader, some of which lose rows.

    Args:
        path: plain text.
        shown: what messages call it.
        head: of the file.

    Returns:
        A file with the same cells in the same lines.

    Raises:
        UserError: a cell begins with a quote, and goes on behind the next one or never ends.

    Cost:
        A look at each byte, and no more where no quote is odd.
    """
    if _is_plain(path, ord(head.separator)):
        return path
    target = temporary_folder() / "quoted.csv"
    begun = head.before
    try:
        with (
            path.open(encoding="utf-8-sig", newline="") as file,
            target.open("w", encoding="utf-8", newline="") as out,
        ):
            for _ in range(head.before):
                out.write(file.readline())
            reader = csv.reader(file, delimiter=head.separator, strict=True)
            writer = csv.writer(out, delimiter=head.separator, lineterminator="\n")
            for row in reader:
                writer.writerow(row)
                begun = head.before + reader.line_num
    except UnicodeDecodeError:
        raise UserError(shown, NOT_UTF8) from None
    except csv.Error as error:
        if "field larger" in str(error):
            raise UserError(shown, "no readable table", error) from None
        line = head.before + reader.line_num
        where = f"line {line} has" if line == begun + 1 else f"lines {begun + 1} to {line} have"
        if line == begun + 1 and _blank_behind(path, line, head.separator):
            raise UserError(shown, f"{where} a blank behind the last quote of a cell; take it out") from None
        raise UserError(
            shown,
            f"{where} a cell in quotes with a quote inside that is not doubled, or without a last one; "
            'write "say ""hi""" for say "hi"',
        ) from None
    return target


def _blank_behind(path: Path, line: int, separator: str) -> bool:
    """Whether nothing but blanks stands between a quote and the end of its cell, somewhere in a line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        text = next(itertools.islice(file, line - 1, None), "")
    return re.search(rf'"[ \t]+({re.escape(separator)}|\r?\n?$)', text) is not None


def _is_plain(path: Path, separator: int) -> bool:
    """Whether each opening quote begins a cell or follows a closing one, and each closing quote ends a cell or that."""
    ends = np.zeros(256, bool)
    ends[[separator, _QUOTE, _LINE_END, ord("\r")]] = True
    before, opened = _LINE_END, False
    with path.open("rb") as file:
        if file.read(len(_MARK)) != _MARK:
            file.seek(0)
        block = file.read(_CHUNK)
        while block:
            following = file.read(_CHUNK)
            if b'"' in block:
                around = np.frombuffer(bytes([before]) + block + (following[:1] or b"\n"), np.uint8)
                at = np.flatnonzero(around[1:-1] == _QUOTE) + 1
                opens = (np.arange(len(at)) + opened) % 2 == 0
                if not ends[np.where(opens, around[at - 1], around[at + 1])].all():
                    return False
                opened ^= bool(len(at) % 2)
            before, block = block[-1], following
    return not opened


__all__ = ["quoted_plainly"]
