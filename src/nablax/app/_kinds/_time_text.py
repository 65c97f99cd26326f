"""Dates and times as people write them: the order of day and month, the marks between them, the digits of a second."""

import dataclasses
import itertools
import re
from typing import ClassVar

import polars as pl

from ._spelling import AbstractSpelling

# Shape of the text to the format that reads it; day first before month first where both may be meant.
_DATES = [
    *(
        (rf"[0-9]{{4}}{m}[0-9]{{1,2}}{m}[0-9]{{1,2}}", f"%Y{s}%m{s}%d")
        for m, s in (("-", "-"), ("/", "/"), (r"\.", "."))
    ),
    *(
        (rf"[0-9]{{1,2}}{m}[0-9]{{1,2}}{m}{digits}", order.format(s=s, year=year))
        for m, s in ((r"\.", "."), ("/", "/"), ("-", "-"))
        for digits, year in ((r"[0-9]{4}", "%Y"), (r"[0-9]{2}", "%y"))
        for order in ("%d{s}%m{s}{year}", "%m{s}%d{s}{year}")
    ),
    *(
        (rf"[0-9]{{1,2}}{s}{letters}{s}{digits}", f"%d{s}{month}{s}{year}")
        for s in (" ", "-")
        for digits, year in ((r"[0-9]{4}", "%Y"), (r"[0-9]{2}", "%y"))
        for letters, month in ((r"[A-Za-z]{3}", "%b"), (r"[A-Za-z]{3,9}", "%B"))
    ),
    *(
        (rf"{letters} [0-9]{{1,2}}, [0-9]{{4}}", f"{month} %d, %Y")
        for letters, month in ((r"[A-Za-z]{3}", "%b"), (r"[A-Za-z]{3,9}", "%B"))
    ),
    (r"(?:19|20)[0-9]{6}", "%Y%m%d"),
    (r"(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])", "%Y-%m"),
]
_CLOCKS = [
    (r"[0-9]{1,2}:[0-9]{2}", "%H:%M"),
    (r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}", "%H:%M:%S"),
    (r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?", "%H:%M:%S%.f"),
    (r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:,[0-9]{1,9})?", "%H:%M:%S,%.f"),
    (r"[0-9]{1,2}:[0-9]{2} [AaPp][Mm]", "%I:%M %p"),
    (r"[0-9]{1,2}:[0-9]{2}:[0-9]{2} [AaPp][Mm]", "%I:%M:%S %p"),
]
_ZONES = [("", ""), ("Z", "Z"), (r" ?[+-][0-9]{2}:?[0-9]{2}", "%z"), (" UTC", " UTC")]
SHAPES: dict[str, str] = {
    **{form: shape for shape, form in _DATES},
    **{
        f"{date}{gap}{clock}{zone}": f"{shape}{gap}{hours}{where}"
        for (shape, date), gap, (hours, clock), (where, zone) in itertools.product(_DATES, " T", _CLOCKS, _ZONES)
    },
    **{form: shape for shape, form in _CLOCKS},
}
_COMPILED = [[(re.compile(shape), form) for shape, form in part] for part in (_DATES, _CLOCKS, _ZONES)]
# A year and the last digits of the next, 2001-02: as likely a season as a month.
SEASON = "^\\s*(?:" + "|".join(rf"[0-9]{{2}}{year:02}-{year + 1:02}" for year in range(12)) + ")\\s*$"
_NOTHING = re.compile("")
_COMMA = r"(:[0-9]{2}),"  # before the fraction of a second


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeText(AbstractSpelling):
    """Dates, moments or times of day as text.

    Attributes:
        format: in the letters of ``strftime``.
        bare: whether days and months below ten are written without a zero.
        fraction: digits after the second at most.
        padded: whether each second has just so many.
    """

    format: str = "%Y-%m-%d"
    bare: bool = False
    fraction: int = 0
    padded: bool = True

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
        form = form.replace(",%.f", "%.f").replace("%.f", "%.9f")
        if self.bare:
            for letter in "dmHI":
                form = form.replace(f"%{letter}", f"%-{letter}")
        if form == "%Y-%m":
            cells = cells.dt.offset_by("15d")  # to the month whose first day is nearest
        text = cells.dt.to_string(form)
        if "%.9f" not in form:
            return text
        text = text.str.replace(rf"(:[0-9]{{2}}\.[0-9]{{{self.fraction}}})[0-9]*", "$1")
        if not self.padded:
            text = text.str.replace(r"(:[0-9]{2}\.[0-9]*?)0+($|\D)", "$1$2").str.replace(r"(:[0-9]{2})\.($|\D)", "$1$2")
        return text.str.replace(r"(:[0-9]{2})\.", "$1,") if ",%.f" in self.format else text


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
    if ",%.f" in form:
        kept, form = kept.str.replace(_COMMA, "$1."), form.replace(",%.f", "%.f")
    if form == "%Y-%m":
        kept, form = kept + "-01", "%Y-%m-%d"
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
    cells = cells.str.replace(_COMMA, "$1.") if ",%.f" in form else cells
    seconds = r"(:[0-9]{2})\.([0-9]+)"
    bare = cells.str.replace(seconds, "$1").str.contains(r"(?:^|[^0-9])[0-9](?:[^0-9]|$)").any()
    digits = cells.str.extract(seconds, 2).str.len_chars().fill_null(0).to_list() if "%.f" in form else [0]
    padded = min(digits) == max(digits)
    return TimeText(markers=markers, format=form, bare=bool(bare), fraction=max(digits), padded=padded)
