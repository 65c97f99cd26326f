"""Numbers as people write them: decimal marks, thousands, currencies, per cent."""

import dataclasses
from typing import ClassVar

import polars as pl

from ._spelling import AbstractSpelling
from ._types import family

# What may stand before or after a number and says nothing about its size.
_BEFORE = r"(?:[$€£¥₹₽₩]|[A-Z]{1,2}\$|USD|EUR|GBP|CHF|JPY|CNY|INR|Fr\.)"
_AFTER = r"(?:%|‰|[$€£¥₹₽₩]|USD|EUR|GBP|CHF|JPY|CNY|INR)"
_GAP = r"[ \u00a0\u202f]?"
_POINT = r"(?:(?:\d+|[1-9]\d{0,2}(?:,\d{3})+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_COMMA = r"(?:(?:\d+|[1-9]\d{0,2}(?:[.'’ \u00a0\u202f]\d{3})+)(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?"
# Groups parted by blanks or apostrophes go with a point as well: 1 234.5 and 1'234.5.
_APART = r"[1-9]\d{0,2}(?:['’ \u00a0\u202f]\d{3})+(?:\.\d*)?"


def _pattern(number: str) -> str:
    return rf"^\s*(?:[+\-−]{_GAP})?(?:{_BEFORE}{_GAP})?(?:[+\-−]{_GAP})?(?:{number})(?:{_GAP}{_AFTER})?\s*$"


PLAIN = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
# Accepted with this decimal mark; what both accept is decided by the column.
PATTERNS = {".": _pattern(f"{_POINT}|{_APART}"), ",": _pattern(_COMMA)}
_LAST_DECIMAL = 9  # more are what floats print, and no habit of the column's
_GROUPS = {".": r"[,'’ \u00a0\u202f]", ",": r"[.'’ \u00a0\u202f]"}
_DIGITS = r"[\d.,'’ \u00a0\u202f]*\d[.,]?(?:[eE][+-]?\d+)?"
_SIGN = rf"([+\-−]?){_GAP}"
_SHAPE = rf"^\s*{_SIGN}({_BEFORE}{_GAP})?{_SIGN}({_DIGITS})({_GAP}{_AFTER})?\s*$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberText(AbstractSpelling):
    """Numbers as text: decimal mark, thousands, currency, per cent, and how many decimals are written.

    Attributes:
        mark: between whole part and decimals, "." or ",".
        thousands: between groups of three digits; empty for none.
        prefix: before the number, such as "$".
        suffix: after it, such as " %".
        decimals: written after the mark at most.
        padded: whether each number is written with just so many.
        powers: whether numbers are written with a power of ten, so that decimals count for nothing.
    """

    mark: str = "."
    thousands: str = ""
    prefix: str = ""
    suffix: str = ""
    decimals: int = 0
    padded: bool = False
    powers: bool = False

    word: ClassVar[str] = "number"

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text as numbers; null where not understood."""
        plain = text.str.strip_chars()
        as_written = self.mark == "." and plain.cast(pl.Float64, strict=False).null_count() == text.null_count()
        plain = plain if as_written else digits(text, self.mark)
        if family(dtype) == "integer":
            whole, real = plain.cast(pl.Int64, strict=False), plain.cast(pl.Float64, strict=False)
            # A number that is none of the type's is still a number: 2.5 in a column of whole ones.
            return whole if whole.null_count() == real.null_count() else real
        return plain.cast(pl.Float64, strict=False)

    def write(self, cells: pl.Series) -> pl.Series:
        """Numbers as text, in the column's own way."""
        return pl.Series(cells.name, [None if v is None else self._text(v) for v in cells.to_list()], pl.String)

    def _text(self, value: float) -> str:
        sign = "-" if value < 0 else ""
        if isinstance(value, int):
            whole, decimals = str(abs(value)), ""
        elif self.powers or self.decimals > _LAST_DECIMAL:
            # No last decimal to keep to, and rounding could leave the observed range.
            whole, _, decimals = repr(abs(value)).partition(".")
        else:
            whole, _, decimals = f"{abs(value):.{self.decimals}f}".partition(".")
        if not self.padded and "e" not in decimals:
            decimals = decimals.rstrip("0")
        if self.thousands and whole.isdigit():
            whole = f"{int(whole):,}".replace(",", self.thousands)
        if sign and not (whole + decimals).strip("0"):
            sign = ""
        return f"{sign}{self.prefix}{whole}{self.mark + decimals if decimals else ''}{self.suffix}"


def digits(text: pl.Series, mark: str) -> pl.Series:
    """Numbers of a decimal mark, rid of currencies and thousands, as Python writes them; null for anything else."""
    parts = text.str.extract_groups(_SHAPE)
    number = parts.struct.field("4").str.replace_all(_GROUPS[mark], "")
    number = number.str.replace(",", ".", literal=True) if mark == "," else number
    signs = parts.struct.field("1") + parts.struct.field("3")
    plain = signs.str.replace("−", "-", literal=True) + number
    fits = text.str.contains(PATTERNS[mark])
    return plain.set(~fits.fill_null(False), None)


def number_text(cells: pl.Series, mark: str, markers: tuple[str, ...]) -> NumberText:
    """Say how a column's numbers are written.

    Args:
        cells: distinct cells that ``PATTERNS[mark]`` accepts, none a marker of missing.
        mark: the decimal mark.
        markers: words for a missing cell.

    Returns:
        The spelling; what not all cells share, such as a currency, is taken from most.
    """
    parts = cells.str.extract_groups(_SHAPE)
    number = parts.struct.field("4")

    def usual(series: pl.Series) -> str:
        filled = series.fill_null("")
        return str(filled.mode().sort()[0])

    grouped = number.str.extract(_GROUPS[mark].join(["(", ")"]), 1).drop_nulls()
    decimals = [len(part) for part in number.str.extract(rf"[{mark}](\d*)", 1).fill_null("").to_list()]
    return NumberText(
        markers=markers,
        mark=mark,
        thousands=usual(grouped) if len(grouped) else "",
        prefix=usual(parts.struct.field("2")),
        suffix=usual(parts.struct.field("5")),
        decimals=max(decimals),
        padded=min(decimals) == max(decimals) > 0,
        powers=bool(number.str.contains("[eE]").any()),
    )
