"""Exact relations between a table's columns: what they say, where they hold, and how they are written."""

import abc
import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

EQUAL = 1e-11  # of a number: what arithmetic in float64 may leave between two that are the same
Columns = Mapping[str, np.ndarray]  # by name, in the column's own unit, NaN where missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractRelation(abc.ABC):
    """A statement about the columns of a row that holds in nearly all rows.

    Attributes:
        rows: those in which all of its columns are there.
        broken: those of them that it does not hold in.
        examples: the first of these, counted from 0.
        kept: whether samples are made to obey it.
    """

    rows: int = 0
    broken: int = 0
    examples: tuple[int, ...] = ()
    kept: bool = False

    word: ClassVar[str]

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Its columns."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """What it says, in words."""

    @property
    def share(self) -> float:
        """Share of the rows in which it holds."""
        return 1.0 - self.broken / self.rows if self.rows else 1.0

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, with the word of the relation."""
        return {"relation": self.word, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factor:
    """A sum of columns to a power, or its natural logarithm.

    Attributes:
        names: the columns added up.
        power: of the sum.
        logarithm: of the sum, in place of a power.
    """

    names: tuple[str, ...]
    power: float = 1.0
    logarithm: bool = False

    def __call__(self, columns: Columns) -> np.ndarray:
        """Its value in each row; NaN or infinite where it has none."""
        total: Any = sum(columns[name] for name in self.names)
        if self.logarithm:
            return np.log(total)
        return total if self.power == 1.0 else total**self.power


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """A number times factors."""

    coefficient: float
    factors: tuple[Factor, ...]

    def __call__(self, columns: Columns) -> np.ndarray:
        """Its value in each row; NaN or infinite where it has none."""
        with np.errstate(all="ignore"):
            value: Any = self.coefficient
            for factor in self.factors:
                value = value * factor(columns)
        return np.asarray(value, np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractComputed(AbstractRelation, abc.ABC):
    """One column follows from others.

    Attributes:
        target: the column that follows.
        silent: rows in which the others are there and the target is missing.
        unfounded: rows in which the target is there and one of the others is missing.
    """

    target: str
    silent: int = 0
    unfounded: int = 0

    @property
    @abc.abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The columns that the target follows from."""

    @property
    @abc.abstractmethod
    def formula(self) -> str:
        """How it follows, in words."""

    @property
    def names(self) -> tuple[str, ...]:
        """The target and the others."""
        return (self.target, *self.inputs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula(AbstractComputed):
    r"""One column is worked out from others: $t = c_0 + \sum_k c_k \prod_j (\sum_i x_{kji})^{e_{kj}}$.

    Sums and differences are terms of one factor; products, ratios and powers are one term of several.

    Attributes:
        terms: of the inputs.
        constant: added to them, in the target's own unit.
        to_the_digit: share of rows in which it gives the very cell, once rounded like the target.
        cancels: the largest spread of a term over the target's: how many times as large what is subtracted is as what
            is left, and so how many times an input's error becomes the target's.
    """

    terms: tuple[Term, ...]
    constant: float = 0.0
    to_the_digit: float = 1.0
    cancels: float = 1.0

    word: ClassVar[str] = "formula"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of its terms."""
        named = (name for term in self.terms for factor in term.factors for name in factor.names)
        return tuple(dict.fromkeys(named))

    def __str__(self) -> str:
        """Such as "depth is 200·z / (x + y)"."""
        return f"{_name(self.target)} is {self.formula}"

    @property
    def formula(self) -> str:
        """The right-hand side."""
        text = ""
        for term in self.terms:
            sign = "−" if term.coefficient < 0 else "+"
            text += (f" {sign} " if text else sign.strip("+")) + _term_text(term)
        if self.constant:
            text += f" {'−' if self.constant < 0 else '+'} {_number(abs(self.constant))}"
        return text

    def value(self, columns: Columns) -> np.ndarray:
        """The target's value in each row, worked out and not rounded; NaN or infinite where it has none."""
        with np.errstate(all="ignore"):
            return self.constant + sum((term(columns) for term in self.terms), np.zeros(()))

    def inherited(self, columns: Columns, halves: Mapping[str, float]) -> np.ndarray:
        """What rounding moves the target by in each row, by column [columns, rows], its own first.

        Args:
            columns: their cells.
            halves: how far rounding may have moved a cell of each column.
        """
        here = self.value(columns)
        with np.errstate(invalid="ignore"):
            moved = [self.value({**columns, name: columns[name] + halves[name]}) - here for name in self.inputs]
        return np.abs(np.stack([np.full_like(here, halves[self.target]), *moved]))

    def breaks(self, columns: Columns, halves: Mapping[str, float]) -> np.ndarray:
        """Rows [n] in which all its columns are there and it does not hold within the rounding."""
        target, found = columns[self.target], self.value(columns)
        known = np.all([np.isfinite(columns[name]) for name in self.names], axis=0)
        with np.errstate(invalid="ignore"):
            slack = self.inherited(columns, halves).sum(axis=0)
            # What cannot be worked out, such as 0 / 0, is not what the target says.
            holds = np.abs(target - found) <= slack * (1.0 + 1e-9) + EQUAL * np.abs(target)
        return known & ~holds

    def solved(self, columns: Columns, name: str) -> np.ndarray | None:
        """An input worked out from the target and the other inputs; None where it stands in more than one place.

        Of two roots it is the positive one: powers are found among positive columns.
        """
        places = [(term, factor) for term in self.terms for factor in term.factors if name in factor.names]
        if len(places) != 1:
            return None
        term, factor = places[0]
        rest = dataclasses.replace(self, terms=tuple(other for other in self.terms if other is not term))
        beside = dataclasses.replace(term, factors=tuple(other for other in term.factors if other is not factor))
        with np.errstate(all="ignore"):
            base = (columns[self.target] - rest.value(columns)) / beside(columns)
            total = np.exp(base) if factor.logarithm else base if factor.power == 1.0 else base ** (1.0 / factor.power)
            return np.asarray(total - sum(columns[other] for other in factor.names if other != name))

    def solving_error(self, columns: Columns, name: str, halves: Mapping[str, float]) -> np.ndarray:
        """How far the rounding of the other columns may move what `solved` gives, in each row."""
        here = self.solved(columns, name)
        error = np.zeros(())
        for other in self.names:
            if here is not None and other != name:
                moved = self.solved({**columns, other: columns[other] + halves[other]}, name)
                with np.errstate(invalid="ignore"):
                    error = error + np.abs(moved - here)
        return error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order(AbstractRelation):
    """One column is never above another.

    Attributes:
        low: the lower column.
        high: the other.
        expected: share of rows in which it would be above, were the two independent.
    """

    low: str
    high: str
    expected: float = 0.0

    word: ClassVar[str] = "order"

    @property
    def names(self) -> tuple[str, ...]:
        """The two columns."""
        return (self.low, self.high)

    def __str__(self) -> str:
        """Such as "start is never above end"."""
        return f"{_name(self.low)} is never above {_name(self.high)}"

    def breaks(self, columns: Columns, halves: Mapping[str, float]) -> np.ndarray:
        """Rows [n] in which both are there and the lower one is above."""
        with np.errstate(invalid="ignore"):
            return np.asarray(columns[self.low] > columns[self.high])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookup(AbstractComputed):
    """One category says another: a postcode its town.

    Attributes:
        source: the category that says the target.
        said: state of the source to state of the target, for each state that occurs.
    """

    source: str
    said: tuple[tuple[int, int], ...]

    word: ClassVar[str] = "lookup"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The column that the target is looked up by."""
        return (self.source,)

    def __str__(self) -> str:
        """Such as "postcode says town"."""
        return f"{_name(self.source)} says {_name(self.target)}"

    @property
    def formula(self) -> str:
        """How the target is found."""
        return f"what {_name(self.source)} says"

    def states(self, source: np.ndarray) -> np.ndarray:
        """States of the target [n] for those of the source; -1 for one that says nothing."""
        keys, found = (np.array(side, np.int64) for side in zip(*self.said))
        table = np.full(max(keys.max(), source.max(initial=0)) + 1, -1)
        table[keys] = found
        return np.where(source >= 0, table[np.maximum(source, 0)], -1)


RELATIONS: dict[str, type[AbstractRelation]] = {kind.word: kind for kind in (Formula, Order, Lookup)}


def relation_from_json(fields: dict[str, Any]) -> AbstractRelation:
    """Undo ``AbstractRelation.to_json``."""
    rest = {name: _frozen(value) for name, value in fields.items() if name != "relation"}
    if fields["relation"] == Formula.word:
        rest["terms"] = tuple(
            Term(
                coefficient=term["coefficient"],
                factors=tuple(
                    Factor(names=tuple(f["names"]), power=f["power"], logarithm=f["logarithm"]) for f in term["factors"]
                ),
            )
            for term in fields["terms"]
        )
    return RELATIONS[fields["relation"]](**rest)


def percent(share: float) -> str:
    """A share in words: never "100 %" where a row is missing from it, nor "0 %" where one is there.

    Example:
        >>> percent(1.0), percent(0.9999999), percent(0.997), percent(0.031), percent(0.0004)
        ('100 %', 'over 99.9 %', '99.7 %', '3.1 %', 'under 0.1 %')
    """
    if 0.999 < share < 1.0:
        return "over 99.9 %"
    if 0.0 < share < 0.001:
        return "under 0.1 %"
    return f"{100.0 * share:.1f}".removesuffix(".0") + " %"


def _term_text(term: Term) -> str:
    """A term without its sign."""
    size = abs(term.coefficient)
    over = [factor for factor in term.factors if factor.power > 0]
    under = [factor for factor in term.factors if factor.power < 0]
    single = len(term.factors) == 1
    top = "·".join(
        ([] if size == 1.0 and over else [_number(size)]) + [_factor(factor, factor.power) for factor in over]
    )
    if not under:
        # A sum by itself needs no brackets, but one that is multiplied does.
        return top[1:-1] if single and size == 1.0 and top.startswith("(") and term.factors[0].power == 1.0 else top
    bottom = "·".join(_factor(factor, -factor.power) for factor in under)
    return f"{top} / {f'({bottom})' if len(under) > 1 else bottom}"


def _factor(factor: Factor, power: float) -> str:
    base = " + ".join(map(_name, factor.names))
    if factor.logarithm:
        return f"log({base})"
    base = f"({base})" if len(factor.names) > 1 else base
    raised = {1.0: "", 2.0: "²", 3.0: "³", 0.5: "^½"}
    return base + raised.get(power, f"^{power:g}")


def _name(name: str) -> str:
    """A column's name where other words stand about it: in backquotes unless it is a plain word."""
    return name if re.fullmatch(r"\w+([ .]\w+)?", name) else f"`{name}`"


def _number(value: float) -> str:
    """A coefficient: a fraction of small whole numbers where it is one and no short decimal."""
    short = f"{value:.10g}"
    if len(short) <= 6:
        return short
    for below, above in itertools.product((3, 6, 7, 9, 12), range(1, 12)):
        if value == above / below:
            return f"{above}/{below}"
    return short


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


__all__ = [
    "EQUAL",
    "AbstractComputed",
    "AbstractRelation",
    "Factor",
    "Formula",
    "Lookup",
    "Order",
    "Term",
    "percent",
    "relation_from_json",
]
