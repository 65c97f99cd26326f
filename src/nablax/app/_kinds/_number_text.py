"""Numbers as people write them: decimal marks, thousands, currencies, units, brackets for minus, k for thousands."""

import dataclasses
import re
from typing import ClassVar

import polars as pl

from ._spelling import AbstractSpelling
from ._types import family

# What may stand before or after a number and says nothing about its size.
_BEFORE = r"[$€£¥₹₽₩]|[A-Z]{1,2}\$|USD|EUR|GBP|CHF|JPY|CNY|INR|Fr\."
_AFTER = r"%|‰|[$€£¥₹₽₩]|USD|EUR|GBP|CHF|JPY|CNY|INR"
_GAP = r"[ \u00a0\u202f]?"
_BLANK = r"[ \u00a0\u202f]"
_WHOLE = {
    # Groups parted by blanks or apostrophes go with a point as well: 1 234.5 and 1'234.5.
    ".": r"(?:(?:\d+|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:['’ \u00a0\u202f]\d{3})+)(?:\.\d*)?|\.\d+)",
    ",": r"(?:(?:\d+|[1-9]\d{0,2}(?:[.'’ \u00a0\u202f]\d{3})+)(?:,\d*)?|,\d+)",
}
# What multiplies it: 1.2k is 1,200. A small m is as likely to be metres.
POWERS = {"k": 3, "K": 3, "M": 6, "B": 9, "bn": 9}
_POWER = rf"{_GAP}(?:{'|'.join(POWERS)})"
_EXPONENT = r"[eE][+-]?\d+"

PLAIN = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
# A unit behind a number, or before it and a blank, so that u12 and Q3 are no numbers; nor is 007x.
_LETTER = r"[\p{L}°µ″′‰%]"
_UNIT_AFTER = rf"^\s*[+\-−]?(?:0|0?[.,]\d+|[1-9][\d.,]*){_GAP}({_LETTER}(?:[\p{{L}}°µ²³/·%.]{{0,11}}[23]?))\s*$"
_UNIT_BEFORE = rf"^\s*(\p{{L}}{{1,3}}\.?){_BLANK}[+\-−]?(?:0|0?[.,]\d+|[1-9][\d.,]*)\s*$"
_LAST_DECIMAL = 9  # more are what floats print, and no habit of the column's
_GROUPS = {".": r"[,'’ \u00a0\u202f]", ",": r"[.'’ \u00a0\u202f]"}
_DIGITS = rf"[\d.,'’ \u00a0\u202f]*\d[.,]?(?:{_EXPONENT})?"
_SIGN = rf"([+\-−]?){_GAP}"
# Of _shape: signs, brackets around everything, prefix, brackets around the number, digits, power, suffix.
_SIGN_1, _ALL, _PREFIX, _ALONE, _SIGN_2, _NUMBER, _LETTERS, _SUFFIX = (str(k) for k in range(1, 9))


def pattern(mark: str, unit: str = "") -> str:
    """What cells with this decimal mark look like; what both marks accept is decided by the column."""
    before, after = _affixes(unit)
    number = rf"{_WHOLE[mark]}(?:{_EXPONENT}|{_POWER})?"
    sign = rf"(?:[+\-−]{_GAP})?"
    bare = rf"(?:(?:{before}){_GAP})?{number}(?:{_GAP}(?:{after}))?"
    signed = rf"{sign}(?:(?:{before}){_GAP})?{sign}{number}(?:{_GAP}(?:{after}))?"
    alone = rf"(?:(?:{before}){_GAP})?\({number}\)(?:{_GAP}(?:{after}))?"
    return rf"^\s*(?:{signed}|\({bare}\)|{alone})\s*$"


def _affixes(unit: str) -> tuple[str, str]:
    more = f"|{re.escape(unit)}" if unit else ""
    return _BEFORE + more, _AFTER + more


PATTERNS = {mark: pattern(mark) for mark in _WHOLE}


def _shape(unit: str) -> str:
    before, after = _affixes(unit)
    prefix, suffix = rf"((?:{before}){_GAP})?", rf"({_GAP}(?:{after}))?"
    return rf"^\s*{_SIGN}(\()?{prefix}(\()?{_SIGN}({_DIGITS})({_POWER})?\)?{suffix}\)?\s*$"


def unit_of(cells: pl.Series) -> str:
    """The word that stands beside the number in most of the cells, such as kg; empty where none does in any."""
    words = pl.concat([cells.str.extract(form, 1).drop_nulls() for form in (_UNIT_AFTER, _UNIT_BEFORE)])
    return str(words.mode().sort()[0]) if len(words) else ""


def united(cells: pl.Series, unit: str | None = None) -> pl.Series:
    """Which cells are a number with a word beside it, this unit where one is named."""
    after, before = (cells.str.extract(form, 1) for form in (_UNIT_AFTER, _UNIT_BEFORE))
    if unit is None:
        return after.is_not_null() | before.is_not_null()
    return (after == unit).fill_null(False) | (before == unit).fill_null(False)


def fractional(cells: pl.Series, mark: str) -> pl.Series:
    """Which cells have decimals, or a power of ten."""
    return cells.str.contains(rf"[{mark}]\d|\d{_EXPONENT}|\d{_POWER}(?:[^\p{{L}}]|$)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberText(AbstractSpelling):
    """Numbers as text: decimal mark, thousands, currency or unit, per cent, minus, and how many decimals are written.

    Attributes:
        mark: between whole part and decimals, "." or ",".
        thousands: between groups of three digits; empty for none.
        prefix: before the number, such as "$".
        suffix: after it, such as " %".
        decimals: written after the mark at most.
        padded: whether each number is written with just so many.
        powers: whether numbers are written with a power of ten, so that decimals count for nothing.
        unit: a word beside each number that is no currency, such as "kg".
        brackets: around what a negative number is written in: "all" of it, the "number" alone, or nothing.
        letters: what multiplies, rising, each with its gap, such as "k" and " M"; decimals are then of what they
            multiply.
        lettered: which numbers have such a letter however small they are: "all", all "but 0", or none.
    """

    mark: str = "."
    thousands: str = ""
    prefix: str = ""
    suffix: str = ""
    decimals: int = 0
    padded: bool = False
    powers: bool = False
    unit: str = ""
    brackets: str = ""
    letters: tuple[str, ...] = ()
    lettered: str = ""

    word: ClassVar[str] = "number"

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text as numbers; null where not understood."""
        plain = text.str.strip_chars()
        as_written = self.mark == "." and plain.cast(pl.Float64, strict=False).null_count() == text.null_count()
        plain = plain if as_written else digits(text, self.mark, self.unit)
        if family(dtype) == "integer":
            whole, real = plain.cast(pl.Int64, strict=False), plain.cast(pl.Float64, strict=False)
            # A number that is none of the type's is still a number: 2.5 in a column of whole ones.
            return whole if whole.null_count() == real.null_count() else real
        return plain.cast(pl.Float64, strict=False)

    @property
    def rounds(self) -> bool:
        """Whether decimals say how far numbers are rounded: not where each has a power of its own."""
        return not (self.powers or self.letters)

    def write(self, cells: pl.Series) -> pl.Series:
        """Numbers as text, in the column's own way."""
        return pl.Series(cells.name, [None if v is None else self._text(v) for v in cells.to_list()], pl.String)

    def _text(self, value: float) -> str:
        letter = self._letter(abs(value))
        whole, decimals = self._figures(abs(value) / 10 ** POWERS[letter.strip()] if letter else abs(value))
        padded = self.padded and bool(letter or not self.letters)
        if not padded and "e" not in decimals:
            decimals = decimals.rstrip("0")
        negative = value < 0 and bool((whole + decimals).strip("0"))
        if self.thousands and whole.isdigit():
            whole = f"{int(whole):,}".replace(",", self.thousands)
        number = f"{whole}{self.mark + decimals if decimals else ''}{letter}"
        if negative and self.brackets:
            alone = self.brackets == "number"
            return f"{self.prefix}({number}){self.suffix}" if alone else f"({self.prefix}{number}{self.suffix})"
        return f"{'-' if negative else ''}{self.prefix}{number}{self.suffix}"

    def _figures(self, size: float) -> tuple[str, str]:
        """Whole part and decimals."""
        if isinstance(size, int):
            return str(size), ""
        if self.powers or self.decimals > _LAST_DECIMAL:
            # No last decimal to keep to, and rounding could leave the observed range.
            whole, _, decimals = repr(size).partition(".")
        else:
            whole, _, decimals = f"{size:.{self.decimals}f}".partition(".")
        return whole, decimals

    def _letter(self, size: float) -> str:
        """What a number of this size is written with."""
        reached = [letter for letter in self.letters if size >= 10 ** POWERS[letter.strip()]]
        if reached:
            return reached[-1]
        return self.letters[0] if self.lettered == "all" or (self.lettered and size) else ""


def digits(text: pl.Series, mark: str, unit: str = "") -> pl.Series:
    """Numbers of a decimal mark, rid of all that stands beside them, as Python writes them; null for anything else."""
    parts = text.str.extract_groups(_shape(unit))
    number = parts.struct.field(_NUMBER).str.replace_all(_GROUPS[mark], "")
    number = number.str.replace(",", ".", literal=True) if mark == "," else number
    signs = (parts.struct.field(_SIGN_1) + parts.struct.field(_SIGN_2)).str.replace("−", "-", literal=True)
    bracket = parts.struct.field(_ALL).is_not_null() | parts.struct.field(_ALONE).is_not_null()
    letter = parts.struct.field(_LETTERS).str.strip_chars().fill_null("")
    power = letter.replace_strict({**{name: f"e{power}" for name, power in POWERS.items()}, "": ""}, default="")
    plain = signs.set(bracket, "-") + number + power
    fits = text.str.contains(pattern(mark, unit))
    return plain.set(~fits.fill_null(False), None)


def number_text(cells: pl.Series, mark: str, markers: tuple[str, ...], unit: str = "") -> NumberText:
    """Say how a column's numbers are written.

    Args:
        cells: distinct cells that ``pattern(mark, unit)`` accepts, none a marker of missing.
        mark: the decimal mark.
        markers: words for a missing cell.
        unit: a word beside each number.

    Returns:
        The spelling; what not all cells share, such as a currency, is taken from most.
    """
    parts = cells.str.extract_groups(_shape(unit))
    number = parts.struct.field(_NUMBER)

    def usual(series: pl.Series) -> str:
        filled = series.fill_null("")
        return str(filled.mode().sort()[0])

    grouped = number.str.extract(_GROUPS[mark].join(["(", ")"]), 1).drop_nulls()
    letter = parts.struct.field(_LETTERS)
    letters = sorted(letter.drop_nulls().unique().to_list(), key=lambda found: (POWERS[found.strip()], found))
    written = number.filter(letter.is_not_null()) if letters else number
    decimals = [len(part) for part in written.str.extract(rf"[{mark}](\d*)", 1).fill_null("").to_list()]
    everything, alone = (int(parts.struct.field(name).is_not_null().sum()) for name in (_ALL, _ALONE))
    bare = number.filter(letter.is_null())
    lettered = "all" if not len(bare) else "but 0" if bool(bare.str.contains(r"^[0.,]+$").all()) else ""
    return NumberText(
        markers=markers,
        mark=mark,
        thousands=usual(grouped) if len(grouped) else "",
        prefix=usual(parts.struct.field(_PREFIX)),
        suffix=usual(parts.struct.field(_SUFFIX)),
        decimals=max(decimals),
        padded=min(decimals) == max(decimals) > 0,
        powers=bool(number.str.contains("[eE]").any()),
        unit=unit,
        brackets="" if not everything + alone else "all" if everything >= alone else "number",
        letters=tuple(letters),
        lettered=lettered if letters else "",
    )
