"""Exact relations between the columns of a source: looked for in a few rows, proved on all of them."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from .._kinds._category import Category
from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity
from ._find_formulas import COARSE, WHOLE, Shape, shapes
from ._find_orders import lookups, orders
from ._readings import cells_as_numbers, cells_as_states, half_given, half_unit, halves_for
from ._relations import EQUAL, AbstractComputed, AbstractRelation, Factor, Formula, Lookup, Order, Term

if TYPE_CHECKING:
    from ._sources import Source

EXACT = 0.99  # share of the rows in which a relation has to hold
_LOOKED_AT = 4_000  # rows in which relations are looked for
_TRIES = 6  # handfuls of rows, of which one without exceptions suffices
_CANDIDATES = 200
_FEWEST = 20
_EXAMPLES = 5
_LIKE_ROUNDING = 1.5  # times the spread that rounding gives: more is noise
_FRACTIONS = (3, 6, 7, 9, 12, 24, 60, 1440, 3600, 86400)  # of a whole, and hours, minutes and seconds of a day
_SHORTER = (1e-2, 3e-3, 1e-3, 1e-4, 1e-6, 1e-9, 1e-12)  # of a coefficient, that it may be moved by to be shorter


def find_relations(source: "Source", kinds: Sequence[AbstractKind]) -> tuple[AbstractRelation, ...]:
    """Find formulas, orders and lookups that hold in at least 99 rows of 100.

    A formula holds in a row where its target is off by no more than half a unit of its own spelling and what half a
    unit of each decimal input comes to; whole numbers and dates are taken as they stand. Where such rounding is more
    than a tenth of the target's spread, of a whole number a fiftieth, it has to be met to the last digit. Of the
    formulas found only those are given that do not follow from others, and none of them goes in a circle, so that all
    of them can be kept at once.

    Args:
        source: a table.
        kinds: its columns.

    Returns:
        The relations, formulas first, each in an order in which what it needs comes before it.

    Cost:
        Two passes over the source, and a search in a few thousand rows of it.
    """
    measured = [kind for kind in kinds if isinstance(kind, AbstractQuantity)]
    categories = [kind for kind in kinds if isinstance(kind, Category)]
    every = max(1, source.rows // _LOOKED_AT)
    looked_at = pl.concat(list(_thinned(source, every)))
    few = {kind.name: cells_as_numbers(kind, looked_at) for kind in measured}
    formulas = _formulas(measured, few)
    between = orders(measured, few)
    states = {kind.name: cells_as_states(kind, looked_at) for kind in categories}
    proved = _proved(source, kinds, [*formulas, *between, *lookups(categories, states)])
    return _independent(proved, {kind.name for kind in measured if kind.scale.low >= 0.0})


def _thinned(source: "Source", every: int) -> Iterator[pl.DataFrame]:
    """Each so-manieth row."""
    at = 0
    for batch in source.batches():
        yield batch.gather_every(every, -at % every)
        at += len(batch)


def _formulas(kinds: Sequence[AbstractQuantity], columns: dict[str, np.ndarray]) -> list[Formula]:
    """Formulas with their numbers, as good as rounding lets them be on the rows looked at."""
    if len(kinds) < 2:
        return []
    values = np.stack([columns[kind.name] for kind in kinds], axis=1)
    places, rows = _complete(values)
    if len(places) < 2 or len(rows) < _FEWEST:
        return []
    own = np.array([half_unit(kinds[k]) for k in places])
    given = np.array([half_given(kinds[k]) for k in places])
    random = np.random.default_rng(0)
    found: dict[Shape, np.ndarray] = {}
    for _ in range(_TRIES):
        handful = random.permutation(rows)[: max(40, 2 * len(places) + 20)]
        with np.errstate(all="ignore"):  # what overflows fits nothing
            for shape in shapes(values[np.ix_(handful, places)], own, given):
                if len(found) < _CANDIDATES:
                    found.setdefault(shape, handful)
        if len(handful) == len(rows):
            break
    names = [kinds[k].name for k in places]
    best: dict[tuple[str, ...], Formula] = {}
    for shape, handful in found.items():
        formula = _fitted(shape, names, kinds, columns, handful)
        if formula is not None:
            # Of the formulas of one column in the same others the plainest.
            same = (formula.target, *sorted(formula.inputs))
            best[same] = min(best.get(same, formula), formula, key=_cost)
    return list(best.values())


def _complete(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns, and the rows in which all of them are there, rid of those with most holes until rows are enough."""
    there = np.isfinite(values)
    places = np.arange(values.shape[1])
    while len(places) > 1:
        rows = np.flatnonzero(there[:, places].all(axis=1))
        if len(rows) >= max(2 * len(places) + 20, min(100, len(values) // 2)):
            return places, rows
        places = np.delete(places, np.argmin(there[:, places].sum(axis=0)))
    return places, np.flatnonzero(there[:, places].all(axis=1))


def _fitted(
    shape: Shape,
    names: Sequence[str],
    kinds: Sequence[AbstractQuantity],
    columns: dict[str, np.ndarray],
    handful: np.ndarray,
) -> Formula | None:
    """The shape with its coefficients, as short as they may be; None where it does not hold after all."""
    target = names[shape.target]
    features = [
        Term(
            coefficient=1.0,
            factors=tuple(_factor(tuple(names[k] for k in places), power) for places, power in term),
        )
        for term in shape.terms
    ]
    halves = halves_for(target, kinds)
    coarse = next(WHOLE if kind.scale.denominator == 1 else COARSE for kind in kinds if kind.name == target)
    whole = Formula(target=target, terms=tuple(features))
    x = {name: columns[name] for name in whole.names}
    design = np.stack([feature(x) for feature in features], axis=1)
    there = np.isfinite(design).all(axis=1) & np.isfinite(x[target])
    x, design = {name: cells[there] for name, cells in x.items()}, design[there]
    inside = np.isin(np.flatnonzero(there), handful)
    formula = _regressed(whole, design, x, inside, shape.constant)
    for _ in range(2):
        if formula is None:
            return None
        off = np.abs(x[target] - formula.value(x))
        slack = formula.inherited(x, halves).sum(axis=0) + EQUAL * np.abs(x[target])
        inside = off <= 3.0 * slack
        if inside.mean() < EXACT - 0.04:
            return None
        formula = _regressed(whole, design, x, inside, shape.constant)
    if formula is None:
        return None
    variance = np.square(formula.inherited(x, halves)).sum(axis=0) / 3.0
    typical = float(np.sqrt(np.median(variance[inside])))
    to_the_digit = typical > coarse * float(x[target][inside].std())
    formula = _shortened(formula, x, inside, 0.0 if to_the_digit else typical)
    off = np.abs(x[target] - formula.value(x))
    cell = off <= halves[target] * (1.0 + 1e-6) + EQUAL * np.abs(x[target])
    spreads = [float(term(x)[inside].std()) for term in formula.terms]
    cancels = max(spreads) / float(x[target][inside].std())
    formula = dataclasses.replace(formula, to_the_digit=float(cell.mean()), cancels=cancels)
    if to_the_digit:
        same = off <= 2e-6 * halves[target] + EQUAL * np.abs(x[target])
        return formula if same.mean() >= EXACT - 0.005 else None
    return formula if _like_rounding(off, variance, x[target], inside) else None


def _factor(names: tuple[str, ...], power: float) -> Factor:
    return Factor(names=names, power=power) if power else Factor(names=names, logarithm=True)


def _regressed(
    formula: Formula, design: np.ndarray, x: dict[str, np.ndarray], rows: np.ndarray, constant: bool
) -> Formula | None:
    """Least squares on these rows; None where they do not determine the coefficients."""
    if rows.sum() < max(_FEWEST, 4 * (design.shape[1] + constant)):
        return None
    a, b = design[rows], x[formula.target][rows]
    centre, middle = (a.mean(axis=0), b.mean()) if constant else (np.zeros(a.shape[1]), 0.0)
    scale = np.sqrt(np.mean(np.square(a - centre), axis=0))
    if not np.all(scale > 0.0):
        return None
    coefficients, _, rank, _ = np.linalg.lstsq((a - centre) / scale, b - middle, rcond=1e-12)
    if rank < a.shape[1] or not np.all(coefficients):
        return None
    coefficients = coefficients / scale
    return _with(formula, coefficients, float(middle - centre @ coefficients) if constant else 0.0)


def _with(formula: Formula, coefficients: np.ndarray, constant: float) -> Formula:
    terms = tuple(dataclasses.replace(t, coefficient=float(c)) for t, c in zip(formula.terms, coefficients))
    return dataclasses.replace(formula, terms=terms, constant=constant)


def _shortened(formula: Formula, x: dict[str, np.ndarray], rows: np.ndarray, rounding: float) -> Formula:
    """The same with shorter numbers, where these leave no more, but for a tenth of what rounding does."""
    x = {name: cells[rows] for name, cells in x.items()}

    def left(tried: Formula) -> float:
        return float(np.sqrt(np.mean(np.square(x[formula.target] - tried.value(x)))))

    best = left(formula)
    nothing = 0.1 * EQUAL * float(np.sqrt(np.mean(np.square(x[formula.target]))))
    bound = float(np.hypot(best, 0.1 * rounding)) + nothing
    near = 0.1 * max(best, rounding) + nothing
    given = np.array([term.coefficient for term in formula.terms])
    for share in _SHORTER:
        shorter = _with(formula, np.array([_short(c, share * abs(c)) for c in given]), 0.0)
        rest = float(np.mean(x[formula.target] - shorter.value(x)))
        none = not formula.constant or abs(rest) <= near
        tried = shorter if none else dataclasses.replace(shorter, constant=_short(rest, near + 1e-12 * abs(rest)))
        if left(tried) <= bound:
            return tried
    return formula


def _short(value: float, error: float) -> float:
    """The number with the fewest digits within an error; or a fraction of small whole numbers, sooner than four."""
    for digits in range(1, 16):
        if digits == 4:
            for below in _FRACTIONS:
                if abs(round(value * below) / below - value) <= error and 0 < abs(round(value * below)) < 12:
                    return round(value * below) / below
        rounded = float(f"{value:.{digits - 1}e}")
        if abs(rounded - value) <= error:
            return rounded
    return value


def _like_rounding(off: np.ndarray, variance: np.ndarray, target: np.ndarray, rows: np.ndarray) -> bool:
    """Whether what a formula leaves in these rows is what rounding leaves: of its size, and not at its ends."""
    off, variance, target = off[rows], variance[rows], target[rows]
    close = np.square(off) <= 12.0 * np.square(_LIKE_ROUNDING) * variance + np.square(EQUAL * target)
    left, expected = np.mean(np.square(off[close])), np.mean(variance[close])
    nothing = np.mean(np.square(EQUAL * target[close]))
    return bool(close.mean() >= EXACT - 0.005 and left <= np.square(_LIKE_ROUNDING) * expected + nothing)


def _proved(
    source: "Source", kinds: Sequence[AbstractKind], candidates: Sequence[AbstractRelation]
) -> list[AbstractRelation]:
    """Those that hold in enough of all rows, with how many those are."""
    by_name = {kind.name: kind for kind in kinds}
    used = {name for relation in candidates for name in relation.names}
    halves = {r.target: halves_for(r.target, kinds) for r in candidates if isinstance(r, Formula)}
    tallies = [_Tally() for _ in candidates]
    at = 0
    for batch in source.batches() if candidates else ():
        x: dict[str, np.ndarray] = {}
        for name in used:
            kind = by_name[name]
            x[name] = cells_as_states(kind, batch) if isinstance(kind, Category) else cells_as_numbers(kind, batch)
        for relation, tally in zip(candidates, tallies):
            if isinstance(relation, Lookup):
                known = {name: x[name] >= 0 for name in relation.names}
                both = known[relation.source] & known[relation.target]
                found = relation.states(x[relation.source])
                # Levels that no row looked at had are learnt here.
                broken = both & (found != x[relation.target]) & (found >= 0)
                tally.count(x[relation.source][both], x[relation.target][both])
            else:
                known = {name: np.isfinite(x[name]) for name in relation.names}
                assert isinstance(relation, Formula | Order)
                rounding = halves[relation.target] if isinstance(relation, Formula) else {}
                broken = relation.breaks(x, rounding)
            tally.add(relation, known, broken, at)
        at += len(batch)
    told = [tally.told(relation) for relation, tally in zip(candidates, tallies)]
    return [r for r in told if r.rows >= _FEWEST and r.broken <= (0 if isinstance(r, Order) else _exceptions(r.rows))]


def _exceptions(rows: int) -> float:
    """Exceptions that so many rows may have: a hundredth, and two standard errors of drawing them."""
    return (1.0 - EXACT) * rows + 2.0 * math.sqrt(EXACT * (1.0 - EXACT) * rows)


@dataclasses.dataclass
class _Tally:
    """What a pass over all rows says of a relation."""

    rows: int = 0
    broken: int = 0
    silent: int = 0
    unfounded: int = 0
    examples: tuple[int, ...] = ()
    pairs: Counter[tuple[int, int]] = dataclasses.field(default_factory=Counter)

    def count(self, source: np.ndarray, target: np.ndarray) -> None:
        """Take in pairs of states."""
        found, counts = np.unique(np.stack([source, target], axis=1), axis=0, return_counts=True)
        self.pairs.update({(int(a), int(b)): int(count) for (a, b), count in zip(found, counts)})

    def add(self, relation: AbstractRelation, known: dict[str, np.ndarray], broken: np.ndarray, at: int) -> None:
        every = np.all(list(known.values()), axis=0)
        self.rows += int(every.sum())
        self.broken += int(broken.sum())
        self.examples += tuple(int(at + k) for k in np.flatnonzero(broken)[: _EXAMPLES - len(self.examples)])
        if isinstance(relation, AbstractComputed):
            inputs = np.all([known[name] for name in relation.inputs], axis=0)
            self.silent += int(np.sum(inputs & ~known[relation.target]))
            self.unfounded += int(np.sum(~inputs & known[relation.target]))

    def told(self, relation: AbstractRelation) -> AbstractRelation:
        if isinstance(relation, AbstractComputed):
            relation = dataclasses.replace(relation, silent=self.silent, unfounded=self.unfounded)
        if isinstance(relation, Lookup):
            said: dict[int, int] = {}
            for (source, target), _ in sorted(self.pairs.items(), key=lambda pair: (-pair[1], pair[0])):
                said.setdefault(source, target)
            self.broken = self.rows - sum(self.pairs[pair] for pair in said.items())
            relation = dataclasses.replace(relation, said=tuple(sorted(said.items())))
        return dataclasses.replace(relation, rows=self.rows, broken=self.broken, examples=self.examples)


def _independent(found: Sequence[AbstractRelation], positive: set[str]) -> tuple[AbstractRelation, ...]:
    """Relations none of which follows from the others, each after those that its inputs follow from.

    Args:
        found: proved.
        positive: the columns that are never below zero.
    """
    place = {name: k for k, name in enumerate(dict.fromkeys(name for r in found for name in r.names))}
    computed: dict[str, AbstractComputed] = {}
    rivals = [relation for relation in found if isinstance(relation, AbstractComputed)]
    for relation in sorted(rivals, key=lambda r: (*_cost(r), -place[r.target])):
        if relation.target not in computed and relation.target not in _needed(relation.inputs, computed):
            computed[relation.target] = relation
    ordered: list[AbstractComputed] = []
    while len(ordered) < len(computed):
        done = {r.target for r in ordered}
        ready = [r for r in computed.values() if r.target not in done and not (set(r.inputs) & computed.keys()) - done]
        ordered += ready
    formulas = [r for r in ordered if isinstance(r, Formula)]
    between = [r for r in found if isinstance(r, Order) and not any(_implies(f, r, positive) for f in formulas)]
    return (*ordered, *between)


def _implies(formula: Formula, order: Order, positive: set[str]) -> bool:
    """Whether a formula is the reason of an order: it says of the gap that it is a sum of what is never below zero."""
    if formula.target not in order.names or not set(order.names) <= set(formula.names):
        return False
    other = order.low if formula.target == order.high else order.high
    sign = 1.0 if formula.target == order.high else -1.0
    gap, own = [sign * formula.constant], -sign
    for term in formula.terms:
        names = {name for factor in term.factors for name in factor.names}
        if term.factors == (Factor(names=(other,)),):
            own += sign * term.coefficient
        elif names <= positive and not any(factor.logarithm for factor in term.factors):
            gap.append(sign * term.coefficient)
        else:
            return False
    return min(*gap, own) >= 0.0 and (own == 0.0 or other in positive)


def _needed(names: Sequence[str], computed: dict[str, AbstractComputed]) -> set[str]:
    """The columns that some follow from, step by step, themselves among them."""
    needed, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += computed[name].inputs if name in computed else ()
    return needed


def _cost(relation: AbstractComputed) -> tuple[float, ...]:
    """How hard a relation is to read: what is easier goes first."""
    if not isinstance(relation, Formula):
        return (len(relation.inputs), 0.0, float(len(relation.said)) if isinstance(relation, Lookup) else 0.0)
    crooked = sum(not float(term.coefficient).is_integer() for term in relation.terms)
    minus = sum(term.coefficient < 0 for term in relation.terms)
    powers = [factor.power for term in relation.terms for factor in term.factors]
    odd = sum(power < 0 for power in powers) + sum(abs(power) != 1.0 for power in powers)
    odd += sum(factor.logarithm for term in relation.terms for factor in term.factors)
    digits = sum(len(f"{abs(term.coefficient):.10g}") for term in relation.terms if abs(term.coefficient) != 1.0)
    constant = 2 * bool(relation.constant)
    # So that the column that was rounded most follows from the others, and none is a small difference of large ones.
    lost = 3.0 * (1.0 - relation.to_the_digit)
    lost += 3.0 * math.log2(max(1.0, relation.cancels))
    return (len(relation.inputs), 2.0 * crooked + minus + odd + constant + 0.1 * digits + lost, -relation.share)


__all__ = ["find_relations"]
