"""Which column is never above which, and which category says which other."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import dtype_from_json, family
from ._relations import Lookup, Order

_OVERLAP = 0.05  # share of pairs drawn apart that have to be the other way round
_BY_CHANCE = 1e-3  # how often one order is found in a table of independent columns
_NEAR = 0.05  # share of the gaps that tell whether they reach down to nothing
_ROWS_OF_NUMBERS = 300
_EXPLAINED = 0.1  # of the rows that guessing the commonest level gets wrong, those that a lookup may


def orders(kinds: Sequence[AbstractQuantity], columns: Mapping[str, np.ndarray]) -> list[Order]:
    """Pairs of columns of one sort of which one is never above the other, though independent ones would be.

    Were two columns independent, a row would have the lower one above with the share p of all pairs of their cells
    that lie so; none in n rows then has a probability of at most (1 - p)^n <= exp(-n p). A pair is taken where p is at
    least a twentieth and exp(-n p) at most a thousandth over the number of ordered pairs: so less than one table of a
    thousand with independent columns shows any. Columns that hang together can lie apart without a rule that says so,
    and then their gaps do not reach down to nothing: of numbers the smallest gap has to be no wider than the way from
    it to the gap below which a twentieth lies, or one step, and the rows have to be three hundred or more: none broken
    in n leaves up to 3/n of all rows that may be (at 95 %), here a hundredth.

    Args:
        kinds: columns of numbers, times or durations.
        columns: their cells.

    Returns:
        The orders, without those that follow from two others.
    """
    found: dict[tuple[str, str], Order] = {}
    pairs = [(a, b) for a, b in itertools.permutations(kinds, 2) if _sort(a) == _sort(b)]
    for low, high in pairs:
        a, b = columns[low.name], columns[high.name]
        there = np.isfinite(a) & np.isfinite(b)
        a, b = a[there], b[there]
        if len(a) < 2 or np.any(a > b) or np.array_equal(a, b):
            continue
        share = float(np.mean(np.searchsorted(np.sort(b), a, side="left"))) / len(b)
        if share < _OVERLAP or math.exp(-len(a) * share) > _BY_CHANCE / len(pairs):
            continue
        gaps = b - a
        least, near = float(gaps.min()), float(np.quantile(gaps, _NEAR))
        step = max(_step(low), _step(high))
        if _sort(low) == "number" and (len(a) < _ROWS_OF_NUMBERS or least > max(near - least, 1.001 * step)):
            continue
        found[low.name, high.name] = Order(low=low.name, high=high.name, expected=share)
    return [
        order
        for (low, high), order in found.items()
        if not any((low, kind.name) in found and (kind.name, high) in found for kind in kinds)
    ]


def _sort(kind: AbstractQuantity) -> str:
    sort = family(dtype_from_json(kind.dtype))
    if sort == "time":
        return "time of day" if kind.dtype == "Time" else "date"
    return "number" if sort in ("integer", "float") else sort


def _step(kind: AbstractQuantity) -> float:
    return kind.scale.step_ticks / kind.scale.denominator


def lookups(kinds: Sequence[AbstractKind], states: Mapping[str, np.ndarray]) -> list[Lookup]:
    """Categories that say another: every level comes with one level of it, in 99 rows of 100.

    How many rows that gets wrong is counted with each row left out of what is learnt from (so that a level that occurs
    once says nothing), and has to be at most a tenth of the rows that are not of the other's commonest level.

    Args:
        kinds: categories.
        states: their states, -1 where missing.
    """
    found = []
    for source, target in itertools.permutations(kinds, 2):
        a, b = states[source.name], states[target.name]
        there = (a >= 0) & (b >= 0)
        a, b = a[there], b[there]
        if source.levels < target.levels or not len(a):
            continue
        both, counts = np.unique(a * target.levels + b, return_counts=True)
        first, second = np.divmod(both, target.levels)
        order = np.lexsort((second, -counts, first))
        keys, start = np.unique(first[order], return_index=True)
        told, most = second[order][start], counts[order][start]
        total = np.bincount(first, weights=counts)[keys]
        commonest = int(np.argmax(np.bincount(b)))
        wrong = len(a) - int(np.max(np.bincount(b)))
        alone = (total == 1) & (told != commonest)  # its level is guessed
        missed = int(np.sum(total - most) + alone.sum())
        if wrong >= 20 and missed <= _EXPLAINED * wrong and np.sum(total - most) <= 0.01 * len(a):
            said = tuple((int(k), int(t)) for k, t in zip(keys, told))
            found.append(Lookup(source=source.name, target=target.name, said=said))
    return found


__all__ = ["lookups", "orders"]
