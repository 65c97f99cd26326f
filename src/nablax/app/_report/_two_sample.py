"""Are held-out rows and a model's samples draws from one distribution?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..._core import fault
from ._telling import ColumnGap, telling

MAX_ROWS = 1_000  # a side: the distance table and every permutation stay within a second or two
FEWEST = 10  # rows a side
_AT_MOST = 3  # samples to a held-out row: a forest that sees many more of one kind learns to call all of that kind


@dataclass(frozen=True)
class TwoSample:
    """Result of the two-sample test.

    Attributes:
        energy_distance: squared energy distance between the two sets, in standardised units, V-statistic.
        p_value: share of relabellings at least as far apart; uniform when the two are one distribution.
        accuracy: cross-validated share of rows that a random forest tells apart rightly; 0.5 is chance.
        accuracy_standard_error: binomial, widened for the training rows that the folds share.
        null: ``[permutations]`` energy distance under random relabellings.
        rows: rows used from each side.
        accuracy_p_value: of an accuracy this high by guessing; another test than that of ``p_value``.
        columns: the columns by what they give away, the most telling first; empty where no names were given.
    """

    energy_distance: float
    p_value: float
    accuracy: float
    accuracy_standard_error: float
    null: np.ndarray
    rows: tuple[int, int]
    accuracy_p_value: float = 1.0
    columns: tuple[ColumnGap, ...] = ()


def two_sample(
    data: np.ndarray,
    samples: np.ndarray,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    permutations: int = 999,
) -> TwoSample:
    r"""Test by permutation of the energy distance, and measure the size of the difference by a classifier.

    $$\mathcal E^2 = 2\,\mathbb E\|X-Y\| - \mathbb E\|X-X'\| - \mathbb E\|Y-Y'\|$$

    is zero only when the distributions agree. The p-value counts relabellings at least as far apart, and is
    exact at any size. The classifier says how far apart in a unit anyone reads: how often a random forest
    tells a sample from a real row.

    Args:
        data: ``[n, dim]`` held-out rows, never training rows; at most ``MAX_ROWS`` of them, drawn at random,
            are used, and of the samples too, but no more than three to a held-out row. NaN marks a missing cell and
            is compared too.
        samples: ``[m, dim]`` the model's samples in the same encoding, rounded to the same grid: a classifier
            sees at once that whole numbers have become decimals.
        groups: name of a column to its places in a row, to rank the columns by; by default they are not ranked.
        seed: of the sub-sample, the relabellings and the classifier.
        permutations: relabellings; the smallest p-value is ``1 / (permutations + 1)``.

    Returns:
        Distance, p-value, classifier accuracy with its standard error, and the columns that give samples away.

    Raises:
        ValueError: the widths differ or a side has fewer than ten rows.

    Example:
        >>> import numpy as np
        >>> from nablax.app._report._two_sample import two_sample
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> two_sample(rows[:100], rows[100:] + 2.0, permutations=99).p_value
        0.01

    Cost:
        One distance table of ``(n + m)**2``, one matrix product of it with the relabellings, and `telling`.

    References:
        Székely and Rizzo, Energy statistics: a class of statistics based on distances (2013).
        Lopez-Paz and Oquab, Revisiting classifier two-sample tests (2017), https://arxiv.org/abs/1610.06545.
    """
    data, samples = _check(data, samples)
    generator = np.random.default_rng(seed)
    data = _some(data, MAX_ROWS, generator)
    samples = _some(samples, min(MAX_ROWS, _AT_MOST * len(data)), generator)
    # Scaled by both sides together, so that relabelling does not change the table.
    together = np.concatenate([data, samples])
    pooled = comparable(together, together)
    statistic, null = _energy_permutations(pooled, len(data), permutations, generator)
    told = telling(pooled, len(data), seed, None if groups is None else _with_marks(groups, together))
    return TwoSample(
        energy_distance=statistic,
        # Rounding must not turn a tie into a difference.
        p_value=float(1 + np.sum(null >= statistic - 1e-12)) / (permutations + 1),
        accuracy=told.accuracy,
        accuracy_standard_error=told.standard_error,
        null=null,
        rows=(len(data), len(samples)),
        accuracy_p_value=told.p_value,
        columns=told.columns,
    )


def _some(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else rows[generator.choice(len(rows), count, replace=False)]


def _with_marks(groups: Mapping[str, Sequence[int]], rows: np.ndarray) -> dict[str, list[int]]:
    """The places of each column once `comparable` has put a mark behind the row for each place that has holes."""
    holes = np.flatnonzero(np.isnan(rows).any(axis=0))
    marks = {int(hole): rows.shape[1] + number for number, hole in enumerate(holes)}
    return {name: [*places, *(marks[place] for place in places if place in marks)] for name, places in groups.items()}


def comparable(reference: np.ndarray, rows: np.ndarray, *, one_scale: bool = False) -> np.ndarray:
    """Standardise rows by a reference; a missing cell becomes the column's mean and a mark in a new column.

    Args:
        reference: ``[n, dim]`` rows that set the centre and the scale, NaN where missing.
        rows: ``[m, dim]`` rows to standardise.
        one_scale: divide all columns by one number, the root mean square of their deviations.

    Returns:
        ``[m, dim + columns with a missing cell in the reference]``, finite, in standard deviations.
    """
    reference, rows = np.asarray(reference, np.float64), np.asarray(rows, np.float64)
    missing = np.isnan(reference)
    count = np.maximum((~missing).sum(axis=0), 1)
    centre = np.where(missing, 0.0, reference).sum(axis=0) / count
    scale = np.sqrt(np.where(missing, 0.0, (reference - centre) ** 2).sum(axis=0) / count)
    if one_scale:
        scale = np.full_like(scale, np.sqrt(np.mean(scale**2)))
    standard = (rows - centre) / np.where(scale > 0, scale, 1.0)
    holes = missing.any(axis=0)
    marks = np.isnan(rows[:, holes]).astype(np.float64)
    return np.concatenate([np.nan_to_num(standard, nan=0.0), marks], axis=1)


def _energy_permutations(
    pooled: np.ndarray, first: int, permutations: int, generator: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Energy distance of the labelling given and of random ones: each is a quadratic form in the distances."""
    from scipy.spatial.distance import cdist

    total = len(pooled)
    distances = cdist(pooled, pooled)
    weights = np.full(total, -1.0 / (total - first))
    weights[:first] = 1.0 / first
    relabelled = generator.permuted(np.broadcast_to(weights, (permutations, total)), axis=1)
    labellings = np.concatenate([weights[None], relabelled])
    values = -np.einsum("pi,pi->p", labellings @ distances, labellings)
    return float(values[0]), values[1:]


def _check(data: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    data, samples = np.asarray(data, np.float64), np.asarray(samples, np.float64)
    if data.ndim != 2 or samples.ndim != 2 or data.shape[1] != samples.shape[1]:
        raise fault(
            expected="two arrays [rows, dim] of one width",
            got=f"shapes {data.shape} and {samples.shape}",
            fix="Flatten images and encode both tables in one way.",
        )
    if min(len(data), len(samples)) < FEWEST:
        raise fault(
            expected=f"at least {FEWEST} rows on each side",
            got=f"{len(data)} and {len(samples)}",
            fix="Hold out more rows or draw more samples.",
        )
    return data, samples
