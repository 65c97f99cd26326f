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
MARK = rf"({_BEFORE}|{_AFTER})"
_GAP = r"[ \u00a0\u202f]?"
_BLANK = r"[ \u00a0\u202f]"
# Digits are [0-9] throughout: what \d takes of other scripts is no number to those who compute.
_WHOLE = {
    # Groups parted by blanks or apostrophes go with a point as well: 1 234.5 and 1'234.5.
    ".": (
        r"(?:(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]{0,2}(?:['’ \u00a0\u202f][0-9]{3})+)"
        r"(?:\.[0-9]*)?|\.[0-9]+)"
    ),
    ",": r"(?:(?:[0-9]+|[1-9][0-9]{0,2}(?:[.'’ \u00a0\u202f][0-9]{3})+)(?:,[0-9]*)?|,[0-9]+)",
}
# What multiplies it: 1.2k is 1,200. A small m is as likely to be metres.
POWERS = {"k": 3, "K": 3, "M": 6, "B": 9, "bn": 9}
_POWER = rf"{_GAP}(?:{'|'.join(POWERS)})"
_EXPONENT = r"[eE][+-]?[0-9]+"

PLAIN = r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*$"
# A unit behind a number, or before it and a blank, so that u12 and Q3 are no numbers; nor is 007x.
_LETTER = r"[\p{L}°µ″′‰%]"
_UNIT_AFTER = rf"^\s*[+\-−]?(?:0|0?[.,][0-9]+|[1-9][0-9.,]*){_GAP}({_LETTER}(?:[\p{{L}}°µ²³/·%.]{{0,11}}[23]?))\s*$"
_UNIT_BEFORE = rf"^\s*(\p{{L}}{{1,3}}\.?){_BLANK}[+\-−]?(?:0|0?[.,][0-9]+|[1-9][0-9.,]*)\s*$"
_LAST_DECIMAL = 9  # more are what floats print, and no habit of the column's
_GROUPS = {".": r"[,'’ \u00a0\u202f]", ",": r"[.'’ \u00a0\u202f]"}
_DIGITS = rf"[0-9.,'’ \u00a0\u202f]*[0-9][.,]?(?:{_EXPONENT})?"
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
    return cells.str.contains(rf"[{mark}][0-9]|[0-9]{_EXPONENT}|[0-9]{_POWER}(?:[^\p{{L}}]|$)")


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
        significant: digits of a number at most, where there are powers.
        exponent: of ten to the nought, such as "E+00", where each number has a power; empty where some have.
        unit: a word beside each number that is no currency, such as "kg".
        brackets: around what a negative number is written in: "all" of it, the "number" alone, or nothing.
        minus: before other negative numbers.
        plus: before positive ones, where each has a sign; empty where none is written.
        inside: whether the sign stands between prefix and number, as in "$-5".
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
    significant: int = 0
    exponent: str = ""
    unit: str = ""
    brackets: str = ""
    minus: str = "-"
    plus: str = ""
    inside: bool = False
    letters: tuple[str, ...] = ()
    lettered: str = ""

    word: ClassVar[str] = "number"

    def parse(self, text: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Cells of text as numbers; null where not understood."""
        plain = text.str.strip_chars()
        as_written = self.mark == "." and plain.cast(pl.Float64, strict=False).null_count() == text.null_count()
        plain = plain if as_written else digits(text, self.mark, self.unit).set(self._of_another(text), None)
        if family(dtype) == "integer":
            whole, real = plain.cast(pl.Int64, strict=False), plain.cast(pl.Float64, strict=False)
            # A number that is none of the type's is still a number: 2.5 in a column of whole ones.
            return whole if whole.null_count() == real.null_count() else real
        return plain.cast(pl.Float64, strict=False)

    def _of_another(self, text: pl.Series) -> pl.Series:
        """Which cells have a mark that makes them no number of this column: another currency, or a lone per cent."""
        own = [affix.strip() for affix in (self.prefix, self.suffix) if affix.strip()]
        marks = text.str.extract(MARK, 1)
        other = ~marks.is_in(own) & (marks.is_in(["%", "‰"]) | bool(own))
        return other.fill_null(False) & (not self.unit)

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
        sign = self.minus if negative else self.plus if value > 0 else ""
        before = f"{self.prefix}{sign}" if self.inside else f"{sign}{self.prefix}"
        return f"{before}{number}{self.suffix}"

    def _figures(self, size: float) -> tuple[str, str]:
        """Whole part and decimals."""
        if self.exponent:
            return self._with_power(size)
        if isinstance(size, int):
            return str(size), ""
        if self.powers and self.significant:
            whole, _, decimals = f"{size:.{self.significant}g}".partition(".")
        elif self.powers or self.decimals > _LAST_DECIMAL:
            # No last decimal to keep to, and rounding could leave the observed range.
            whole, _, decimals = repr(size).partition(".")
        else:
            whole, _, decimals = f"{size:.{self.decimals}f}".partition(".")
        return whole, decimals

    def _with_power(self, size: float) -> tuple[str, str]:
        """Whole part and decimals, and behind them the power of ten."""
        number, _, power = f"{size:.{self.significant - 1}e}".partition("e")
        whole, _, decimals = number.partition(".")
        decimals = decimals if self.padded else decimals.rstrip("0")
        sign = "-" if power.startswith("-") else self.exponent[1:].rstrip("0")
        zeros = self.exponent.count("0")
        written = f"{self.exponent[0]}{sign}{abs(int(power)):0{zeros}d}"
        return (whole, decimals + written) if decimals else (whole + written, "")

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
    decimals = [len(part) for part in written.str.extract(rf"[{mark}]([0-9]*)", 1).fill_null("").to_list()]
    everything, alone = (int(parts.struct.field(name).is_not_null().sum()) for name in (_ALL, _ALONE))
    outer, inner = parts.struct.field(_SIGN_1), parts.struct.field(_SIGN_2)
    signs = outer + inner
    below = signs.is_in(["-", "−"])
    above = signs.filter(number.str.contains("[1-9]") & ~below)
    bare, powers = number.filter(letter.is_null()), bool(number.str.contains("[eE]").any())
    lettered = "all" if not len(bare) else "but 0" if bool(bare.str.contains(r"^[0.,]+$").all()) else ""
    return NumberText(
        markers=markers,
        mark=mark,
        thousands=usual(grouped) if len(grouped) else "",
        prefix=usual(parts.struct.field(_PREFIX)),
        suffix=usual(parts.struct.field(_SUFFIX)),
        decimals=max(decimals),
        padded=min(decimals) == max(decimals) > 0,
        powers=powers,
        significant=_significant(number) if powers else 0,
        exponent=_exponent(number),
        unit=unit,
        brackets="" if not everything + alone else "all" if everything >= alone else "number",
        minus=usual(signs.filter(below)) if below.any() else "-",
        plus="+" if len(above) and bool((above == "+").all()) else "",
        inside=bool((inner != "").any()) and not bool((outer != "").any()),
        letters=tuple(letters),
        lettered=lettered if letters else "",
    )


def _significant(numbers: pl.Series) -> int:
    """Digits of a number at most, without zeros before and power behind."""
    written = numbers.str.replace(_EXPONENT, "").str.replace_all(r"^[0\D]+|\D", "")
    return max(1, *(len(digits) for digits in written.to_list()))


def _exponent(numbers: pl.Series) -> str:
    """How the power of ten is written where each number has one: letter, plus sign and zeros that most or all share."""
    found = numbers.str.extract(rf"({_EXPONENT})", 1)
    if found.null_count():
        return ""
    written: list[str] = found.to_list()
    # The sign of what is not negative; without any such, as Python has it.
    raised = [power for power in written if "-" not in power]
    plus = "+" if 2 * sum("+" in power for power in raised) >= len(raised) else ""
    letter = "E" if 2 * sum(power[0] == "E" for power in written) > len(written) else "e"
    return letter + plus + "0" * min(len(power[1:].lstrip("+-")) for power in written)
