"""Values that recur more often than a smooth density allows: zeros, heaps, caps, round numbers."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

MOST = 32  # atoms of a column
SHARE = 0.01  # of the cells that are there, at least
FEWEST = 10  # cells
RATIO = 1.5  # times what the neighbours let expect; at either end of the range, where heaps are usual, just more
ERRORS = 3.0  # standard errors by which the count must lie above that
REACH = 2  # neighbours on each side
WIDE_RATIO, WIDE_REACH = 2.0, 5  # the same for a window that passes over a heap's own shoulders
FEW, OFTEN = 20, 5  # values of a grid that are all atoms, and how often each occurs in the mean, at least


def atoms(
    counts: Mapping[float, int], total: int, *, step: float, low: float, high: float, distinct: int
) -> tuple[float, ...]:
    r"""Find the atoms of a column from how often each value occurs.

    For a value v that occurs $c$ times in n cells, a smooth density lets expect about as many as its neighbours have:
    $e$ is the larger of the two means over the two values below and the two above it, neighbours in steps of the
    grid (empty ones count as 0); off a grid no value is expected twice, so $e = 1$. v is an atom when
    $c \ge 0.01\,n$, $c \ge 10$ and $c - r e \ge 3\sqrt{c + r^2 e / 2}$ with r = 1.5: the difference of Poisson counts
    and its standard error. At the least and the greatest value, where floors, caps and "none" are heaped, r = 1 with
    one side of neighbours. The larger of both sides keeps the steep shoulder of a smooth distribution from passing for
    a heap.

    On a grid v is an atom too when it recurs $r = 2$ times as often as a wider window lets expect, $e$ being the mean
    over five steps on either side without the atoms among them, by the same test with $r^2 e / 10$. Carats are heaped
    at 1.00, and at 1.01 and 1.02 just above it: of such neighbours the first rule finds one, and this one, gone through
    again until it finds no more, all.

    A grid of which at most twenty values occur, five times each in the mean, has all of them for atoms: ranks, years
    and small counts are told apart, not measured, and no density has to be bent around them. What lies between them is
    left to a smooth part without a cell.

    The rule and its numbers were chosen here. Uniform, normal, exponential and Poisson columns whose standard
    deviation is more than about three steps have no atoms inside their range by it, and a zero or a cap has its own.
    What is narrower has the values around its mode for atoms: each costs a state and loses nothing.

    Args:
        counts: value to the number of cells, in the column's own unit; rare values may lack.
        total: cells that are there.
        step: of the grid, in the same unit; 0 where there is none.
        low: the least value.
        high: the greatest value.
        distinct: how many values there are.

    Returns:
        The atoms, rising, at most 32: those with the largest excess. Where not all values are, at least two are left
        to the smooth part.

    Example:
        >>> counts = {0.0: 500} | {float(k): 20 for k in range(1, 40)}
        >>> atoms(counts, 1280, step=1.0, low=0.0, high=39.0, distinct=40)
        (0.0,)

    Cost:
        O(values · log values).
    """
    if total < FEWEST or not counts:
        return ()
    if step and distinct == len(counts) <= FEW and total >= OFTEN * distinct:
        return tuple(sorted(counts))
    values = np.array(sorted(value for value, number in counts.items() if number > 1 or step))
    number = np.array([counts[value] for value in values.tolist()], np.float64)
    often = np.flatnonzero((number >= SHARE * total) & (number >= FEWEST)).tolist()
    found: dict[int, float] = {}  # place to excess
    for at in often:
        end = values[at] in (low, high)
        expected = max(_around(values, number, at, step, low, high), default=1.0) if step else 1.0
        _judge(found, at, number[at], expected, 1.0 if end else RATIO, REACH)
    before = -1
    while step and len(found) > before:
        before = len(found)
        # The most frequent first: a heap before its shoulders.
        for at in sorted(set(often) - set(found), key=lambda at: (-number[at], at)):
            expected, cells = _in_window(values, number, at, step, low, high, found)
            _judge(found, at, number[at], expected, WIDE_RATIO, cells)
    chosen = sorted(found, key=lambda at: (-found[at], -values[at]))[: max(0, min(MOST, distinct - 2))]
    return tuple(sorted(float(values[at]) for at in chosen))


def _judge(found: dict[int, float], at: int, count: float, expected: float, ratio: float, cells: int) -> None:
    """Add a value whose count lies above ``ratio`` times the mean count of so many other cells by enough errors."""
    excess = count - ratio * expected
    if cells and excess >= ERRORS * np.sqrt(count + ratio**2 * expected / cells):
        found[at] = float(excess)


def _in_window(
    values: np.ndarray, number: np.ndarray, at: int, step: float, low: float, high: float, atoms: Iterable[int]
) -> tuple[float, int]:
    """Mean count of the grid's cells on both sides within reach and within the range, atoms aside; and how many."""
    apart = np.rint((values - values[at]) / step)
    room = [min(WIDE_REACH, round(abs(end - values[at]) / step)) for end in (low, high)]
    near = (apart >= -room[0]) & (apart <= room[1])
    near[at] = False
    taken = list(atoms)
    cells = sum(room) - int(near[taken].sum())
    near[taken] = False
    return float(number[near].sum()) / max(cells, 1), cells


def _around(values: np.ndarray, number: np.ndarray, at: int, step: float, low: float, high: float) -> Iterator[float]:
    """Mean count of the neighbours below, and of those above; nothing past the ends of the range."""
    for side, end in ((-1, low), (1, high)):
        room = min(REACH, round(abs(end - values[at]) / step))
        if room > 0:
            near = np.arange(at + side, at + side * (REACH + 1), side)
            near = near[(near >= 0) & (near < len(values))]
            apart = np.rint(np.abs(values[near] - values[at]) / step)
            yield float(number[near[apart <= room]].sum() / room)
