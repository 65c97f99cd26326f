"""Values that recur more often than a smooth density allows: zeros, heaps, caps, round numbers."""

from collections.abc import Mapping

import numpy as np

MOST = 32  # atoms of a column
SHARE = 0.01  # of the cells that are there, at least
FEWEST = 10  # cells
RATIO = 1.5  # times what the neighbours let expect; at either end of the range, where heaps are usual, just more
ERRORS = 3.0  # standard errors by which the count must lie above that
REACH = 2  # neighbours on each side


def atoms(counts: Mapping[float, int], total: int, step: float) -> tuple[float, ...]:
    r"""Find the atoms of a column from how often each value occurs.

    For a value v that occurs $c$ times in n cells, a smooth density lets expect about as many as its neighbours have:
    $e$ is the larger of the two means over the two values below and the two above it, neighbours in steps of the
    grid (empty ones count as 0), or the next values that occur where there is no grid. v is an atom when
    $c \ge 0.01\,n$, $c \ge 10$ and $c - r e \ge 3\sqrt{c + r^2 e / 2}$ with r = 1.5: the difference of Poisson counts
    and its standard error. At the least and the greatest value, where floors, caps and "none" are heaped, r = 1 with
    one side of neighbours. The larger of both sides keeps the steep shoulder of a smooth distribution from passing for
    a heap.

    The rule and its numbers were chosen here. Uniform, normal, exponential and Poisson columns wider than about two
    steps have no atoms inside their range by it, and a zero or a cap has its own. What is narrower has its mode for
    one: it costs a state and loses nothing.

    Args:
        counts: value to the number of cells, in the column's own unit; rare values may lack.
        total: cells that are there.
        step: of the grid, in the same unit; 0 where there is none.

    Returns:
        The atoms, rising, at most 32: those with the largest excess. At least two values are left to the smooth part.

    Example:
        >>> counts = {0.0: 500} | {float(k): 20 for k in range(1, 40)}
        >>> atoms(counts, 1280, 1.0)
        (0.0,)

    Cost:
        O(values · log values).
    """
    if total < FEWEST or len(counts) < 3:
        return ()
    values = np.array(sorted(counts))
    number = np.array([counts[value] for value in values], np.float64)
    heavy = np.flatnonzero((number >= SHARE * total) & (number >= FEWEST))
    found = []
    for at in heavy:
        first, last = at == 0, at == len(values) - 1
        sides = [
            mean
            for mean in (_mean(values, number, at, -1, step), _mean(values, number, at, 1, step))
            if mean is not None
        ]
        expected = max(sides)
        ratio = 1.0 if first or last else RATIO
        excess = number[at] - ratio * expected
        if excess >= ERRORS * np.sqrt(number[at] + ratio**2 * expected / REACH):
            found.append((excess, float(values[at])))
    found.sort(reverse=True)
    kept = found[: min(MOST, len(values) - 2)]
    return tuple(sorted(value for _, value in kept))


def _mean(values: np.ndarray, number: np.ndarray, at: int, side: int, step: float) -> float | None:
    """Mean count of the neighbours on one side; None at the end of the range."""
    near = np.arange(at + side, at + side * (REACH + 1), side)
    near = near[(near >= 0) & (near < len(values))]
    if not len(near):
        return None
    if not step:
        return float(number[near].mean())
    apart = np.rint(np.abs(values[near] - values[at]) / step)
    room = np.rint(abs((values[0] if side < 0 else values[-1]) - values[at]) / step)
    return float(number[near[apart <= REACH]].sum() / min(REACH, room))
