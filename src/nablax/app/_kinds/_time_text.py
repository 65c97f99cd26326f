"""Dates and times as people write them: the order of day and month, the marks between them, the digits of a second."""

import dataclasses
import itertools
import re
from typing import ClassVar

import polars as pl

from ._spelling import AbstractSpelling

# Shape of the text to the format that reads it; day first before month first where both may be meant.
_DATES = [
    *((rf"\d{{4}}{m}\d{{1,2}}{m}\d{{1,2}}", f"%Y{s}%m{s}%d") for m, s in (("-", "-"), ("/", "/"), (r"\.", "."))),
    *(
        (rf"\d{{1,2}}{m}\d{{1,2}}{m}{digits}", order.format(s=s, year=year))
        for m, s in ((r"\.", "."), ("/", "/"), ("-", "-"))
        for digits, year in ((r"\d{4}", "%Y"), (r"\d{2}", "%y"))
        for order in ("%d{s}%m{s}{year}", "%m{s}%d{s}{year}")
    ),
    *(
        (rf"\d{{1,2}}{s}{letters}{s}\d{{4}}", f"%d{s}{month}{s}%Y")
        for s in (" ", "-")
        for letters, month in ((r"[A-Za-z]{3}", "%b"), (r"[A-Za-z]{3,9}", "%B"))
    ),
    *(
        (rf"{letters} \d{{1,2}}, \d{{4}}", f"{month} %d, %Y")
        for letters, month in ((r"[A-Za-z]{3}", "%b"), (r"[A-Za-z]{3,9}", "%B"))
    ),
    (r"(?:19|20)\d{6}", "%Y%m%d"),
]
_CLOCKS = [
    (r"\d{1,2}:\d{2}", "%H:%M"),
    (r"\d{1,2}:\d{2}:\d{2}", "%H:%M:%S"),
    (r"\d{1,2}:\d{2}:\d{2}(?:\.\d{1,9})?", "%H:%M:%S%.f"),
    (r"\d{1,2}:\d{2} [AaPp][Mm]", "%I:%M %p"),
    (r"\d{1,2}:\d{2}:\d{2} [AaPp][Mm]", "%I:%M:%S %p"),
]
_ZONES = [("", ""), ("Z", "Z"), (r" ?[+-]\d{2}:?\d{2}", "%z"), (" UTC", " UTC")]
SHAPES: dict[str, str] = {
    **{form: shape for shape, form in _DATES},
    **{
        f"{date}{gap}{clock}{zone}": f"{shape}{gap}{hours}{where}"
        for (shape, date), gap, (hours, clock), (where, zone) in itertools.product(_DATES, " T", _CLOCKS, _ZONES)
    },
    **{form: shape for shape, form in _CLOCKS},
}
_COMPILED = [[(re.compile(shape), form) for shape, form in part] for part in (_DATES, _CLOCKS, _ZONES)]
_NOTHING = re.compile("")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeText(AbstractSpelling):
    """Dates, moments or times of day as text.

    Attributes:
        format: in the letters of ``strftime``.
        bare: whether days and months below ten are written without a zero.
        fraction: digits after the second.
    """

    format: str = "%Y-%m-%d"
    bare: bool = False
    fraction: int = 0

    word: ClassVar[str] = "time"

    @property
    def dtype(self) -> pl.DataType:
        """The type that the text is read as: zoned moments are kept in UTC."""
        return dtype_of(self.format)

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text as dates or times; null where not understood."""
        return times(text, self.format)

    def write(self, cells: pl.Series) -> pl.Series:
        """Dates or times as text, in the column's own way."""
        form = self.format.replace("%z", "+00:00")
        form = form.replace("%.f", f"%.{self.fraction}f" if self.fraction in (3, 6, 9) else "%.f")
        if self.bare:
            for letter in "dmHI":
                form = form.replace(f"%{letter}", f"%-{letter}")
        return cells.dt.to_string(form)


def dtype_of(form: str) -> pl.Date | pl.Datetime | pl.Time:
    """The type of what a format reads."""
    if not form.startswith(("%H", "%I")):
        zoned = form.endswith(("Z", "%z", "UTC"))
        return pl.Datetime("us", "UTC" if zoned else None) if "%H" in form or "%I" in form else pl.Date()
    return pl.Time()


def formats(text: str) -> list[str]:
    """The formats that a text may be written in."""
    text = text.strip()
    if not text[-1:].isalnum() or not any(letter.isdigit() for letter in text):
        return []
    found = []
    for date, form in (*_COMPILED[0], (_NOTHING, "")):
        if (day := date.match(text)) is None:
            continue
        rest = text[day.end() :]
        if not rest and form:
            found.append(form)
        gap = rest[:1] if form else ""
        if form and gap not in (" ", "T"):
            continue
        for clock, hours in _COMPILED[1]:
            if (hour := clock.match(rest, len(gap))) is None:
                continue
            zones = [zone for shape, zone in _COMPILED[2] if shape.fullmatch(rest, hour.end())]
            found += [f"{form}{gap}{hours}{zone}" for zone in zones if form or not zone]
    return found


def times(text: pl.Series, form: str) -> pl.Series:
    """Cells of text by a format; null where not understood."""
    dtype = dtype_of(form)
    stripped = text.str.strip_chars()
    fits = stripped.str.contains(f"^(?:{SHAPES[form]})$").fill_null(False)
    kept = stripped.set(~fits, None)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone and not form.endswith("%z"):
        return kept.str.strptime(pl.Datetime("us"), form, strict=False).dt.replace_time_zone("UTC")
    if form.endswith("%z"):
        kept = kept.str.replace(r" ([+-])", "$1")
    return kept.str.strptime(dtype, form, strict=False)


def time_text(cells: pl.Series, form: str, markers: tuple[str, ...]) -> TimeText:
    """Say how a column's dates and times are written.

    Args:
        cells: distinct cells that the format reads.
        form: the format.
        markers: words for a missing cell.

    Returns:
        The spelling.
    """
    bare = cells.str.contains(r"(?:^|[^\d])\d(?:[^\d]|$)").any()
    fraction = cells.str.extract(r"\.(\d+)(?:\D|$)", 1).str.len_chars() if "%.f" in form else pl.Series([0])
    digits = 0 if fraction.max() is None else int(fraction.max())  # type: ignore[arg-type]
    return TimeText(markers=markers, format=form, bare=bool(bare), fraction=digits)
