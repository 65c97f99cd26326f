"""Values that recur more often than a smooth density allows: zeros, heaps, caps, round numbers."""

from collections.abc import Iterator, Mapping

import numpy as np

MOST = 32  # atoms of a column
SHARE = 0.01  # of the cells that are there, at least
FEWEST = 10  # cells
RATIO = 1.5  # times what the neighbours let expect; at either end of the range, where heaps are usual, just more
ERRORS = 3.0  # standard errors by which the count must lie above that
REACH = 2  # neighbours on each side
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

    A grid of which at most twenty values occur, five times each in the mean, has all of them for atoms: ranks, years
    and small counts are told apart, not measured, and no density has to be bent around them. What lies between them
    is left to a smooth part without a cell.

    The rule and its numbers were chosen here. Uniform, normal, exponential and Poisson columns wider than about two
    steps have no atoms inside their range by it, and a zero or a cap has its own. What is narrower has its mode for
    one: it costs a state and loses nothing.

    Args:
        counts: value to the number of cells, in the column's own unit; rare values may lack.
        total: cells that are there.
        step: of the grid, in the same unit; 0 where there is none.
        low: the least value.
        high: the greatest value.
        distinct: how many values there are.

    Returns:
        The atoms, rising, at most 32: those with the largest excess. Where not all values are, at
        least two are left to the smooth part.

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
    found = []
    for at in np.flatnonzero((number >= SHARE * total) & (number >= FEWEST)).tolist():
        end = values[at] in (low, high)
        expected = max(_around(values, number, at, step, low, high), default=1.0) if step else 1.0
        ratio = 1.0 if end else RATIO
        excess = number[at] - ratio * expected
        if excess >= ERRORS * np.sqrt(number[at] + ratio**2 * expected / REACH):
            found.append((float(excess), float(values[at])))
    found.sort(reverse=True)
    return tuple(sorted(value for _, value in found[: min(MOST, distinct - 2)]))


def _around(values: np.ndarray, number: np.ndarray, at: int, step: float, low: float, high: float) -> Iterator[float]:
    """Mean count of the neighbours below, and of those above; nothing past the ends of the range."""
    for side, end in ((-1, low), (1, high)):
        room = min(REACH, round(abs(end - values[at]) / step))
        if room > 0:
            near = np.arange(at + side, at + side * (REACH + 1), side)
            near = near[(near >= 0) & (near < len(values))]
            apart = np.rint(np.abs(values[near] - values[at]) / step)
            yield float(number[near[apart <= room]].sum() / room)
