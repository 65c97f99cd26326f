"""How the cells of a column of text are to be read, guessed from all of them."""

import dataclasses
from collections.abc import Callable

import polars as pl

from .._errors import UserError
from .._quoting import assignment
from ._markers import OF_NUMBERS, OF_WORDS, is_marker
from ._number_text import MARK, PATTERNS, PLAIN, fractional, number_text, pattern, unit_of, united
from ._span_text import SURE, span_text, spans
from ._spelling import AbstractSpelling, Words
from ._time_text import SEASON, SHAPES, formats, time_text, times

_MOSTLY = 0.9  # share of cells that are numbers or dates above which the others are strays
_MIXED = 0.5  # share above which it is said that a column of words holds numbers too
_CODES = 5  # different codes of two letters, at least, before NA is taken for one
_KEPT, _FEWER = 20_000, 100  # cells kept of the first batch and of each other, to see how they are written
_TRIED = 64  # cells of a batch whose formats are tried on all of it
_SPANS, _CLOCKS = "duration", "duration by hours and minutes"  # names of readings; the second is for who asks for it
_MARK = len("number")  # where the decimal mark stands in the name of such a reading; a unit stands behind it
_DECIMALS = {"point": ".", ".": ".", "comma": ",", ",": ","}
_IN_WORDS = {"%d": "day-first ", "%m": "month-first "}
_ORDERS = {"day-first": "%d", "month-first": "%m", "year-first": "%Y"}


@dataclasses.dataclass(frozen=True)
class Locale:
    """What the person said of a file's spelling; None leaves it to the data.

    Attributes:
        decimal: "." or ",".
        dates: "%d", "%m" or "%Y": what comes first in a date.
        missing: the words for a missing cell.
    """

    decimal: str | None = None
    dates: str | None = None
    missing: tuple[str, ...] | None = None


def locale(decimal: str | None, dates: str | None, missing: str | None) -> Locale:
    """Read the flags.

    Args:
        decimal: "point" or "comma", or the mark itself.
        dates: "day-first", "month-first" or "year-first".
        missing: words for a missing cell, parted by commas; the empty cell is always one.

    Raises:
        UserError: a flag has another value.
    """
    if decimal is not None and decimal not in _DECIMALS:
        raise UserError(f"--decimal should be point or comma, not {decimal!r}")
    if dates is not None and dates not in _ORDERS:
        raise UserError(f"--dates should be {', '.join(_ORDERS)}, not {dates!r}")
    words = None if missing is None else tuple(dict.fromkeys(("", *missing.split(","))))
    return Locale(_DECIMALS.get(decimal or ""), _ORDERS.get(dates or ""), words)


@dataclasses.dataclass(frozen=True)
class Stray:
    """A cell that is not like the others: its row from 0, and its text."""

    row: int
    text: str


@dataclasses.dataclass
class Tally:
    """How many cells one way of reading understands, and the first that it does not."""

    count: int = 0
    stray: Stray | None = None


@dataclasses.dataclass
class Reading:
    """What the batches of a column of text say of how it is to be read.

    Attributes:
        name: of the column.
        locale: what the person said.
        rows: seen so far.
        present: cells that are no missing ones.
        unit: the word beside the first numbers that had one.
        numbered: cells that are a number with any word beside it.
        marks: currencies and signs for per cent that stand beside numbers.
        bare: whether numbers other than nought have none.
    """

    name: str
    locale: Locale = Locale()
    rows: int = 0
    present: int = 0
    tallies: dict[str, Tally] = dataclasses.field(default_factory=dict)
    fractions: dict[str, int] = dataclasses.field(default_factory=lambda: {".": 0, ",": 0})
    zero_led: int = 0
    whole: int = 0
    long: bool = False
    distinct: set[str] = dataclasses.field(default_factory=set)
    kept: list[pl.Series] = dataclasses.field(default_factory=list)
    not_words: set[str] = dataclasses.field(default_factory=set)
    namibia: bool = False
    unit: str = ""
    numbered: int = 0
    marks: set[str] = dataclasses.field(default_factory=set)
    bare: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        """Words for a missing cell among numbers and dates."""
        return OF_NUMBERS if self.locale.missing is None else self.locale.missing

    def add(self, text: pl.Series) -> None:
        """Take in the next batch of cells."""
        start, self.rows = self.rows, self.rows + len(text)
        present = ~is_marker(text, self.markers)
        if self.locale.missing is None:
            odd = text.filter(~present).drop_nulls()
            self.not_words.update(word for word in odd.unique().to_list() if word.strip() not in OF_WORDS)
            self.namibia = self.namibia or bool((odd == "NA").any())
        cells = text.filter(present)
        if not len(cells):
            return
        if len(self.distinct) <= 2:
            self.distinct.update(cells.unique(maintain_order=True).head(3).to_list())
        self.kept.append(cells.head(max(_FEWER, _KEPT - _KEPT * len(self.kept))))
        plain = cells.str.contains(PLAIN)
        if bool(plain.all()):
            self._add_plain(cells)
        else:
            self._add_any(cells, plain, text, start)
        self.present += len(cells)

    def _add_plain(self, cells: pl.Series) -> None:
        """Take in numbers as Python writes them: most columns, so with as few looks as can be."""
        self.bare = self.bare or bool(cells.str.contains("[1-9]").any())
        points = cells.str.contains(".", literal=True)
        powers = cells.str.contains("[eE]")
        fractions = int((points | powers).sum())
        self._tally("number.").count += len(cells)
        self._tally("number,").count += int((~points).sum())
        self.fractions["."] += fractions
        self.fractions[","] += int(powers.sum())
        if fractions < len(cells):
            digits = self._add_digits(cells)
            if digits == len(cells):
                self._add_times(cells, cells, 0)

    def _add_digits(self, cells: pl.Series) -> int:
        """Look at codes and long numbers; answer how many cells are digits alone."""
        stripped = cells.str.strip_chars()
        digits = int(stripped.str.contains(r"^[0-9]+$").sum())
        self.whole += digits
        self.zero_led += int(stripped.str.contains(r"^0[0-9]+$").sum())
        self.long = self.long or bool((stripped.str.len_chars() > 18).any())
        return digits

    def _add_any(self, cells: pl.Series, plain: pl.Series, text: pl.Series, start: int) -> None:
        """Take in cells that may be written in any way."""
        understood = {mark: cells.str.contains(pattern) for mark, pattern in PATTERNS.items()}
        understood["."] |= plain
        for mark, fits in understood.items():
            self._count(f"number{mark}", fits, cells, text, start)
            self.fractions[mark] += int((fits & fractional(cells, mark)).sum())
        self._add_marks(cells.filter(understood["."] | understood[","]))
        self._add_digits(cells)
        if not bool((understood["."] | understood[","]).all()):
            self._add_units(cells, text, start)
            self._add_times(cells, text, start)

    def _add_marks(self, numbers: pl.Series) -> None:
        """Take in what numbers count: a currency, a hundredth, or nothing that is said."""
        marks = numbers.str.extract(MARK, 1)
        self.marks.update(marks.drop_nulls().unique().to_list())
        self.bare = self.bare or bool(numbers.filter(marks.is_null()).str.contains("[1-9]").any())

    def _add_units(self, cells: pl.Series, text: pl.Series, start: int) -> None:
        """Take in numbers that each have the same word beside them, such as 12 kg."""
        self.unit = self.unit or unit_of(cells)
        if self.unit:
            self.numbered += int(united(cells).sum())
            there = united(cells, self.unit)
            for mark in PATTERNS:
                fits = there & cells.str.contains(pattern(mark, self.unit))
                self._count(f"number{mark}{self.unit}", fits, cells, text, start)
                self.fractions[mark] += int((fits & fractional(cells, mark)).sum())

    def _add_times(self, cells: pl.Series, text: pl.Series, start: int) -> None:
        known = [key for key in self.tallies if key in SHAPES]
        first = cells.head(_KEPT).unique(maintain_order=True).head(_TRIED)
        tried = {form for cell in first.to_list() for form in formats(cell)}
        for form in dict.fromkeys([*known, *sorted(tried)]):
            self._count(form, times(cells, form).is_not_null(), cells, text, start)
        if _SPANS in self.tallies or first.str.contains(r"[0-9]:[0-9]{2}| days?\b").any():
            understood = spans(cells).is_not_null()
            self._count(_SPANS, understood & cells.str.contains(SURE), cells, text, start)
            self._count(_CLOCKS, understood, cells, text, start)

    def _tally(self, key: str) -> Tally:
        return self.tallies.setdefault(key, Tally())

    def _count(self, key: str, fits: pl.Series, cells: pl.Series, text: pl.Series, start: int) -> None:
        tally = self._tally(key)
        tally.count += int(fits.sum())
        if tally.stray is None and fits.any() and not fits.all():
            # Where it stands in the file: the first row with such a cell.
            row = int((text == cells.filter(~fits)[0]).arg_max() or 0)
            tally.stray = Stray(start + row, str(text[row]))

    def spelling(self, *, asked: str | None, place: Callable[[int], str]) -> tuple[AbstractSpelling, pl.DataType, str]:
        """Decide how the column is read.

        Args:
            asked: the word of the kind asked for; a category and an identifier are words whatever they look like.
            place: names the place of a row in the file.

        Returns:
            The spelling, the type of what it reads, and one line to say, or none.

        Raises:
            UserError: a few cells are unlike the others, or day and month cannot be told apart.
        """
        if not self.present or asked in ("category", "identifier", "constant") or len(self.distinct) == 1:
            return self._words("")
        if asked is None and self.zero_led and self.whole == self.present:
            return self._words(f"column '{self.name}' has leading zeros: kept as codes, not numbers")
        whole = self._whole_readings()
        times = [form for form in whole if form in SHAPES]
        numbers = [form for form in whole if form.startswith("number")]
        if times == ["%Y-%m"] and asked is None and bool(pl.concat(self.kept).str.contains(SEASON).all()):
            return self._words(
                f"column '{self.name}' holds spans of two years, such as {self.kept[0][0]}: read as words"
            )
        if times and asked in (None, "time"):
            return self._time(times)
        if (asked is None and _SPANS in whole and not numbers) or (asked == "duration" and _CLOCKS in whole):
            return self._spans()
        if numbers and (unlike := self._unlike_marks()):
            what = f"column '{self.name}' holds numbers with different marks beside them ({unlike})"
            if asked is not None:
                raise UserError(f"{what}, which is no {asked}: make them one before")
            return self._words(f"{what}: read as words")
        if numbers:
            return self._number(numbers)
        if asked is None and _CLOCKS in whole:
            return self._words(
                f"column '{self.name}' may hold hours and minutes, or scores, such as {self.kept[0][0]}: read as words "
                f"(--kind {assignment(self.name, 'duration')} for the other)"
            )
        known = [key for key in self.tallies if key != _CLOCKS or asked == "duration"]
        best = max(known, key=lambda key: self.tallies[key].count, default=None)
        share = 0.0 if best is None else self.tallies[best].count / self.present
        # Cells with other units are no slips among those of the first.
        several = 0 < self.numbered == self.present
        if share == 1.0:  # of what was not asked for
            raise UserError(f"column '{self.name}' holds {_called(str(best))}, which are no {asked}")
        if best is not None and (share >= _MOSTLY or (asked is not None and share > 0)) and not several:
            raise UserError(self._strays(best, place))
        if asked is not None and asked != "duration":
            raise UserError(f"column '{self.name}' holds text, which is no {asked}")
        what = "numbers with different words beside them" if several else "both numbers and words"
        return self._words(f"column '{self.name}' holds {what}: read as words" if share >= _MIXED else "")

    def _unlike_marks(self) -> str:
        """Marks that make one number of no two cells, in words; empty where all may count the same."""
        marks = sorted(self.marks)
        shares = [mark for mark in marks if mark in "%‰"]
        none = ["none"] if shares and self.bare else []
        told = [*map(repr, marks), *none]
        return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else ""

    def _whole_readings(self) -> list[str]:
        whole = [key for key, tally in self.tallies.items() if tally.count == self.present]
        # What was said decides between readings, and does not rule out the only one.
        return [key for key in whole if self._meant(key)] or whole

    def _meant(self, key: str) -> bool:
        if key.startswith("number"):
            return self.locale.decimal in (None, key[_MARK])
        return self.locale.dates is None or key.startswith(self.locale.dates) or key[1] not in "dmY"

    def _words(self, line: str) -> tuple[AbstractSpelling, pl.DataType, str]:
        markers = OF_WORDS if self.locale.missing is None else self.locale.missing
        cells = pl.concat(self.kept).unique() if self.kept else pl.Series([], dtype=pl.String)
        codes = len(cells) >= _CODES and bool(cells.str.contains("^[A-Z]{2}$").all())
        if self.namibia and codes and self.locale.missing is None:
            markers = tuple(word for word in markers if word != "NA")
            line = f"column '{self.name}' holds codes of two letters, so 'NA' is one of them, not a missing cell"
        return Words(markers=markers), pl.String(), line

    def _number(self, forms: list[str]) -> tuple[AbstractSpelling, pl.DataType, str]:
        # Without a unit where it can be read so, and with points.
        form = min(forms, key=lambda form: (len(form), form[_MARK] != "."))
        mark, unit = form[_MARK], form[_MARK + 1 :]
        cells = pl.concat(self.kept).unique()
        if self.long and self.whole == self.present:
            return self._words(f"column '{self.name}' has whole numbers of more than 18 digits: kept as text")
        written = number_text(cells, mark, self.markers, unit)
        told = []
        if mark == "." and self.locale.decimal == ",":
            told.append("decimal points: it cannot be read with commas")
        elif mark == ",":
            told.append("decimal commas (--decimal point for the other)")
        elif written.thousands == ",":
            told.append("commas between thousands (--decimal comma for the other)")
        elif written.thousands:
            told.append("groups of thousands")
        told += [f"'{affix.strip()}' beside the numbers" for affix in (written.prefix, written.suffix) if affix.strip()]
        told += ["brackets for minus"] if written.brackets else []
        if written.letters:
            told.append(" and ".join(repr(letter.strip()) for letter in written.letters) + " for powers of ten")
        if self.not_words:
            told.append(f"missing cells written {', '.join(map(repr, sorted(self.not_words)))}")
        line = f"column '{self.name}' read with {', '.join(told)}" if told else ""
        return written, pl.Float64() if self.fractions[mark] or self.long else pl.Int64(), line

    def _time(self, forms: list[str]) -> tuple[AbstractSpelling, pl.DataType, str]:
        form = min(forms, key=list(SHAPES).index)
        swapped = form.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")
        if form.startswith("%d") and swapped != form and swapped in forms:
            raise UserError(
                f"column '{self.name}': each date, such as {self.kept[0][0]!r}, may have the day or the month first; "
                "say --dates day-first or --dates month-first"
            )
        written = time_text(pl.concat(self.kept).unique(), form, self.markers)
        usual = form.startswith(("%Y-%m-%d", "%H:%M")) and not form.endswith("%z")
        line = "" if usual else f"column '{self.name}' read as {_IN_WORDS.get(form[:2], '')}dates ({form})"
        line += ", those drawn written in UTC" if form.endswith("%z") else ""
        return written, written.dtype, line

    def _spans(self) -> tuple[AbstractSpelling, pl.DataType, str]:
        written = span_text(pl.concat(self.kept).unique(), self.markers)
        line = f"column '{self.name}' read as durations, such as {self.kept[0][0]}"
        return written, pl.Duration("us"), line

    def _strays(self, best: str, place: Callable[[int], str]) -> str:
        tally = self.tallies[best]
        others = self.present - tally.count
        what = _called(best)
        where = "" if tally.stray is None else f": {place(tally.stray.row)} has {tally.stray.text!r}"
        these = "it" if others == 1 else "them"
        return (
            f"column '{self.name}' holds {what} but for {others} of {self.present} cells{where}; mend {these}, name "
            f"{these} with --missing-values, or take all as words: --kind {assignment(self.name, 'category')}"
        )


def _called(key: str) -> str:
    """What the cells of a reading are."""
    return "durations" if key in (_SPANS, _CLOCKS) else "dates or times" if key in SHAPES else "numbers"
