"""What samples, or the model itself, tell of who was in the training rows."""

from dataclasses import dataclass

import numpy as np

from ._two_sample import comparable

MAX_ROWS = 2_000  # of members, others and samples


@dataclass(frozen=True)
class Membership:
    """How well an attacker tells training rows from rows that the model never saw.

    Attributes:
        auc: chance that a training row looks more like one than a fresh row does; 0.5 is no better than guessing.
        standard_error: of it.
        rows: training rows and fresh rows that it rests on.
    """

    auc: float
    standard_error: float
    rows: tuple[int, int]


def membership(members: np.ndarray, others: np.ndarray) -> Membership:
    r"""Compare an attacker's score of training rows with that of fresh ones.

    $$\mathrm{AUC} = P(s_{\text{member}} > s_{\text{other}}) + \tfrac12 P(s_{\text{member}} = s_{\text{other}})$$

    Args:
        members: ``[m]`` scores of training rows, larger where the attacker thinks "member".
        others: ``[n]`` scores of rows of the same source that were not trained on, at least two of each.

    Returns:
        The area and its standard error.

    Example:
        >>> membership(np.array([3.0, 4.0]), np.array([1.0, 2.0])).auc
        1.0

    Cost:
        Sorting.

    References:
        DeLong, DeLong and Clarke-Pearson, Comparing the areas under correlated receiver operating characteristic
        curves (1988), for the error.
        Shokri et al., Membership inference attacks (2017), https://arxiv.org/abs/1610.05820, for the question.
    """
    below = _placed(members, others)
    above = 1.0 - _placed(others, members)
    variance = below.var(ddof=1) / len(members) + above.var(ddof=1) / len(others)
    return Membership(float(below.mean()), float(np.sqrt(variance)), (len(members), len(others)))


def by_samples(
    train: np.ndarray, held_out: np.ndarray, samples: np.ndarray, *, seed: int, one_scale: bool = False
) -> Membership:
    """An attacker who has the samples alone: who lies near one of them was a training row.

    Args:
        train: ``[n, dim]`` training rows, NaN where missing.
        held_out: ``[m, dim]`` fresh rows.
        samples: ``[s, dim]`` the model's samples.
        seed: of the sub-samples beyond ``MAX_ROWS``.
        one_scale: scale all columns alike: for pixels.

    Returns:
        The area and its standard error.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    generator = np.random.default_rng(seed)
    picked = [
        rows if len(rows) <= MAX_ROWS else rows[generator.choice(len(rows), MAX_ROWS, replace=False)]
        for rows in (train, held_out, samples)
    ]
    members, others, drawn = (comparable(train, rows, one_scale=one_scale) for rows in picked)
    return membership(*(-pairwise_distances_argmin_min(rows, drawn)[1] for rows in (members, others)))


def _placed(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each row the share of the others below it, ties counted half."""
    ordered = np.sort(among)
    return (np.searchsorted(ordered, rows, "left") + np.searchsorted(ordered, rows, "right")) / (2 * len(among))
