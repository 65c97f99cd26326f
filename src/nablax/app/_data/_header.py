"""The first line of a file of text: what parts its cells, whether it names the columns, and the names."""

import csv
import dataclasses
import itertools
import re
from pathlib import Path

from .._errors import UserError

NOT_UTF8 = "the text is not UTF-8; save it as UTF-8, or name its --encoding, such as latin-1"
_LOOKED_AT = 50  # lines, for blanks between their cells
_JSON = r'\s*(\{\s*("|\r?\n)|\[\s*(\{|\r?\n))'
_TOLD = r'"?[sS][eE][pP]=([,;\t|:])"?[,;\t|:]*\r?\n'


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first lines say.

    Attributes:
        separator: between cells.
        names: of the columns.
        there: whether the first line holds the names.
        notices: one line for each thing to know.
        before: lines before it, which say to Excel what parts the cells (sep=;).
    """

    separator: str
    names: tuple[str, ...]
    there: bool
    notices: tuple[str, ...] = ()
    before: int = 0


def read_header(path: Path, shown: Path, header: bool | None) -> Header:
    """Look at the first two lines.

    Args:
        path: plain text.
        shown: what messages call it.
        header: whether the first line names the columns; None looks.

    Returns:
        The header. Columns without a name get one.

    Raises:
        UserError: the file is empty, JSON or not UTF-8, has blanks between its cells, or a name occurs twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start, raw = 0, file.readline(1 << 20)
            told = re.match(_TOLD, raw)
            if told:
                start, raw = file.tell(), file.readline(1 << 20)
            if not raw.strip():
                raise UserError(shown, "the file is empty")
            if re.match(_JSON, raw):
                raise UserError(shown, "the file is JSON, not a table of text; write it as CSV or Parquet")
            bare = re.sub(r'(^|[,;\t|])"[^"]*("|$)', r"\1", raw)
            separator = told[1] if told else max(",;\t|", key=bare.count)
            if not bare.count(separator) and _parted_by_blanks([raw, *itertools.islice(file, _LOOKED_AT)]):
                raise UserError(shown, "blanks seem to part its cells; write it with commas, semicolons or tabs")
            file.seek(start)
            lines = csv.reader(file, delimiter=separator)
            first, second = next(lines), next((line for line in lines if any(line)), [])
    except UnicodeDecodeError:
        raise UserError(shown, NOT_UTF8) from None
    except csv.Error as error:
        raise UserError(shown, "no readable table", error) from None
    there, notices = _decide(first, second, header)
    if not there:
        return Header(separator, tuple(f"x{j}" for j in range(len(first))), False, tuple(notices), int(bool(told)))
    names = list(first)
    for j, name in enumerate(names):
        if not name:
            names[j] = _free("unnamed" if first.count("") == 1 else f"unnamed_{j + 1}", names)
            notices.append(f"column {j + 1} has no name in the first line, and is called '{names[j]}'")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(shown, f"the column name '{twice[0]}' occurs more than once")
    return Header(separator, tuple(names), True, tuple(notices), int(bool(told)))


def _parted_by_blanks(lines: list[str]) -> bool:
    """Whether all lines have as many words, among them numbers, as the first (R's have one more), and none twice."""
    head, *rows = (line.split() for line in lines if line.strip())
    widths = {len(row) for row in rows}
    if len(head) < 2 or len(widths) != 1 or widths.pop() not in (len(head), len(head) + 1):
        return False
    columns = [set(column) for column in zip(*rows)]
    varied = all(len(column) > 1 for column in columns)  # unlike the unit in 12 kg
    return varied and any(all(_is_number(word) for word in column) for column in columns)


def _decide(first: list[str], second: list[str], asked: bool | None) -> tuple[bool, list[str]]:
    if asked is not None:
        return asked, []
    if not all(_is_number(name) for name in first):
        return True, []
    # Years, say: whole numbers that rise by one step, above numbers that do not.
    if len(first) > 1 and _steps(first) is not None and _steps(first) != _steps(second):
        return True, [f"the first line ({', '.join(first[:3])}, …) is taken for names; --no-header takes it for a row"]
    return False, ["no header line, so the columns are called x0, …; --header takes the first line for names"]


def _steps(cells: list[str]) -> int | None:
    """The step by which whole numbers rise, all alike; None for anything else."""
    if len(cells) < 2 or not all(re.fullmatch(r"\d+", cell) for cell in cells):
        return None
    steps = {int(right) - int(left) for left, right in zip(cells, cells[1:])}
    return steps.pop() if len(steps) == 1 and min(steps) > 0 else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _free(name: str, taken: list[str]) -> str:
    number = 1
    while (new := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return new
