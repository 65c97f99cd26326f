"""The cheapest one-to-one pairing of two small sets of points, exactly and fast enough to run beside training."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ..._core import check_finite, fault

# Regularisations of the warm start, relative to the spread of the costs, and iterations at each.
# Many points repay more of both.
_LEVELS, _ITERATIONS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3), 10
_MANY, _MORE_LEVELS, _MORE_ITERATIONS = 1000, (*_LEVELS, 3e-4), 30
_WORTH_A_WARM_START = 48  # points; below it the plain solver is quicker


def check_pairs(noise: Any, data: Any) -> None:
    """Refuse two sets that cannot be paired one to one by their distances.

    Raises:
        ValueError: they are not arrays of one shape with at least one row, or one is not finite.
    """
    for rows in (noise, data):
        if not isinstance(rows, (jax.Array, np.ndarray)):
            raise fault(expected="noise and data as arrays", got=f"a {type(rows).__name__}", fix="Use jnp.asarray.")
    if noise.shape != data.shape:
        raise fault(
            expected="noise and data of one shape", got=f"{noise.shape} and {data.shape}", fix="Give as many of each."
        )
    if not len(data):
        raise fault(expected="at least one pair", got="none", fix="Give one sample a row.")
    check_finite(noise, what="noise", fix="Leave those rows out.")
    check_finite(data, what="data", fix="Leave those rows out.")


def cheapest_pairing(
    left: Float[np.ndarray, "points dim"], right: Float[np.ndarray, "points dim"]
) -> Int[np.ndarray, " points"]:
    r"""Permutation $\pi$ that minimises $\sum_i \|\mathrm{left}_{\pi(i)} - \mathrm{right}_i\|^2$.

    Only $-\langle \mathrm{left}_j, \mathrm{right}_i \rangle$ depends on the pairing. Subtracting from it potentials of
    rows and columns changes the cost of every pairing by the same amount, so the cheapest one stays the cheapest
    whatever they are; with nearly optimal ones the augmenting paths of the exact solver become short. A few entropic
    iterations in single precision give such potentials.

    Args:
        left: points, in any unit; for speed, the more scattered of the two sets.
        right: as many points, in the same unit.

    Returns:
        ``pairing`` with ``left[pairing[i]]`` paired with ``right[i]``; every index comes once.

    Cost:
        No model. With 256 points in the plane 2 ms on one core where the plain solver takes 12; with 512 points 10 ms
        against 120; with 10 000 about 20 s. Memory for three n × n matrices. The interpreter lock is released nearly
        all the time.

    References:
        Crouse (2016), On implementing 2D rectangular assignment algorithms, IEEE Transactions on Aerospace and
        Electronic Systems 52(4) (the exact solver, SciPy's); Schmitzer (2019), Stabilized Sparse Scaling Algorithms for
        Entropy Regularized Transport Problems, https://arxiv.org/abs/1610.06519 (absorbing the potentials).
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second, for those who pair

    left = np.asarray(left, np.float64)
    right = np.asarray(right, np.float64)
    # The scattered set along the rows, the clustered one along the columns: measured to be the quicker way round.
    costs = -(left - left.mean(0)) @ (right - right.mean(0)).T
    if len(costs) >= _WORTH_A_WARM_START:
        rows, columns = _potentials(costs)
        costs -= rows[:, None]
        costs -= columns
    pairing = np.empty(len(costs), np.int64)
    pairing[linear_sum_assignment(costs)[1]] = np.arange(len(costs))
    return pairing


def _potentials(costs: Float[np.ndarray, "rows columns"]) -> tuple[np.ndarray, np.ndarray]:
    """Nearly optimal potentials of rows and columns; always finite for finite costs."""
    scale = float(costs.std()) or 1.0
    single = (costs / scale).astype(np.float32)
    columns: np.ndarray = np.zeros(single.shape[1], np.float32)
    smallest = np.float32(1e-30)
    many = len(single) >= _MANY
    for level in _MORE_LEVELS if many else _LEVELS:
        # Each row's largest exponent is 0: nothing overflows, and no row vanishes.
        slack = columns - single
        rows = -slack.max(axis=1)
        slack += rows[:, None]
        slack *= np.float32(1 / level)
        kernel = np.exp(slack, out=slack)
        by_column = np.ones_like(columns)
        for _ in range(_MORE_ITERATIONS if many else _ITERATIONS):
            by_row = 1 / np.maximum(kernel @ by_column, smallest)
            by_column = 1 / np.maximum(by_row @ kernel, smallest)
        columns = columns + np.float32(level) * np.log(np.maximum(by_column, smallest))
    rows = (single - columns).min(axis=1)
    return rows.astype(np.float64) * scale, columns.astype(np.float64) * scale


__all__ = ["cheapest_pairing", "check_pairs"]
