"""How long something took, as people and programs write it: 36:15:00, 2 days 01:30:00, or 1 day, 1:30:00."""

import dataclasses
from typing import ClassVar

import polars as pl

from ._spelling import AbstractSpelling

_CLOCK = r"(?:([+-]?)([0-9]{1,7}):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,6}))?)?)"
# Days, the clock or both; of the clock alone the hours go on beyond 24.
_SPAN = rf"^\s*(?:([+-]?[0-9]{{1,6}}) days?,? ?{_CLOCK}?|{_CLOCK})\s*$"
# What can hardly be anything else: by itself 25:30 is as likely a score.
SURE = r"day|:.*:"
_DAY, _HOUR, _MINUTE, _SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000  # microseconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanText(AbstractSpelling):
    """Durations as text.

    Attributes:
        days: between the number of days and the clock, such as " days "; empty where hours go on beyond 24. With a
            comma as Python has it: one day is a "day", none are not written.
        bare: whether hours below ten are written without a zero.
        seconds: whether they are written.
        fraction: digits after the second at most.
        padded: whether each second has just so many.
    """

    days: str = ""
    bare: bool = False
    seconds: bool = True
    fraction: int = 0
    padded: bool = True

    word: ClassVar[str] = "duration"

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text as durations; null where not understood."""
        return spans(text).cast(dtype)

    def write(self, cells: pl.Series) -> pl.Series:
        """Durations as text, in the column's own way."""
        ticks = cells.cast(pl.Duration("us")).to_physical().to_list()
        return pl.Series(cells.name, [None if t is None else self._text(t) for t in ticks], pl.String)

    def _text(self, ticks: int) -> str:
        step = 10 ** (6 - self.fraction) if self.seconds else _MINUTE
        ticks = (ticks + step // 2) // step * step
        before, whole, comma = "", abs(ticks), "," in self.days
        if self.days:
            # Days below nought are whole ones, and the clock goes forwards from there.
            count, whole = divmod(ticks, _DAY)
            days = self.days.replace("days", "day") if comma and abs(count) == 1 else self.days
            before = "" if comma and not count else f"{count}{days}"
            before += "+" if count < 0 and not comma else ""
        elif ticks < 0:
            before = "-"
        hours, rest = divmod(whole, _HOUR)
        minutes, rest = divmod(rest, _MINUTE)
        text = f"{before}{hours if self.bare else f'{hours:02d}'}:{minutes:02d}"
        if not self.seconds:
            return text
        seconds, rest = divmod(rest, _SECOND)
        decimals = f"{rest:06d}"[: self.fraction]
        decimals = decimals if self.padded else decimals.rstrip("0")
        return f"{text}:{seconds:02d}{'.' if decimals else ''}{decimals}"


def spans(text: pl.Series) -> pl.Series:
    """Cells of text as durations; null where not understood."""
    groups = text.str.extract_groups(_SPAN)
    days, *clock = (groups.struct.field(name) for name in groups.struct.fields)
    half = len(clock) // 2  # one behind days, one alone
    sign, *counts, fraction = (behind.fill_null(alone) for behind, alone in zip(clock[:half], clock[half:]))
    hours, minutes, seconds, whole = (part.cast(pl.Int64, strict=False).fill_null(0) for part in (*counts, days))
    decimals = fraction.fill_null("").str.pad_end(6, "0").cast(pl.Int64, strict=False)
    ticks = hours * _HOUR + minutes * _MINUTE + seconds * _SECOND + decimals
    ticks = ticks * (1 - 2 * (sign == "-").fill_null(False).cast(pl.Int64)) + whole * _DAY
    fits = text.str.contains(_SPAN).fill_null(False)
    return ticks.set(~fits, None).cast(pl.Duration("us")).alias(text.name)


def span_text(cells: pl.Series, markers: tuple[str, ...]) -> SpanText:
    """Say how a column's durations are written.

    Args:
        cells: distinct cells that ``spans`` understands.
        markers: words for a missing cell.

    Returns:
        The spelling.
    """
    between = cells.str.extract(r"[0-9]( days?,? ?)", 1).drop_nulls()
    days = "" if not len(between) else " days, " if between.str.contains(",", literal=True).any() else " days "
    clock = cells.str.extract(r"([0-9]+:.*)$", 1).drop_nulls().str.strip_chars()
    digits = clock.str.extract(r"\.([0-9]+)$", 1).str.len_chars().fill_null(0).to_list() or [0]
    return SpanText(
        markers=markers,
        days=days,
        bare=bool(clock.str.contains("^[0-9]:").any()),
        seconds=bool(clock.str.contains(":.*:").any()) or not len(clock),
        fraction=max(digits),
        padded=min(digits) == max(digits),
    )
