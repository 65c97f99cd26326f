"""Are held-out rows and a model's samples draws from one distribution?"""

from dataclasses import dataclass

import numpy as np

from ..._core import fault

MAX_ROWS = 1_000  # a side: the distance table and every permutation stay within a second or two
FOLDS = 5
FEWEST = 10  # rows a side


@dataclass(frozen=True)
class TwoSample:
    """Result of the two-sample test.

    Attributes:
        energy_distance: squared energy distance between the two sets, in standardised units, V-statistic.
        p_value: share of relabellings at least as far apart; uniform when the two are one distribution.
        accuracy: cross-validated share of rows that a random forest tells apart rightly; 0.5 is chance.
        accuracy_standard_error: binomial; the folds share training rows, so it is slightly small.
        null: ``[permutations]`` energy distance under random relabellings.
        rows: rows used from each side.
    """

    energy_distance: float
    p_value: float
    accuracy: float
    accuracy_standard_error: float
    null: np.ndarray
    rows: tuple[int, int]


def two_sample(data: np.ndarray, samples: np.ndarray, *, seed: int = 0, permutations: int = 999) -> TwoSample:
    r"""Test by permutation of the energy distance, and measure the size of the difference by a classifier.

    $$\mathcal E^2 = 2\,\mathbb E\|X-Y\| - \mathbb E\|X-X'\| - \mathbb E\|Y-Y'\|$$

    is zero only when the distributions agree. The p-value counts relabellings at least as far apart, and is
    exact at any size. The classifier says how far apart in a unit anyone reads: how often a random forest
    tells a sample from a real row.

    Args:
        data: ``[n, dim]`` held-out rows, never training rows; at most ``MAX_ROWS`` of them, drawn at random,
            are used, and of the samples too. NaN marks a missing cell and is compared too.
        samples: ``[m, dim]`` the model's samples in the same encoding, rounded to the same grid: a classifier
            sees at once that whole numbers have become decimals.
        seed: of the sub-sample, the relabellings and the classifier.
        permutations: relabellings; the smallest p-value is ``1 / (permutations + 1)``.

    Returns:
        Distance, p-value, and classifier accuracy with its standard error.

    Raises:
        ValueError: the widths differ or a side has fewer than ten rows.

    Example:
        >>> import numpy as np
        >>> from nablax.app._report._two_sample import two_sample
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> two_sample(rows[:100], rows[100:] + 2.0, permutations=99).p_value
        0.01

    Cost:
        One distance table of ``(n + m)**2``, one matrix product of it with the relabellings, five forests.

    References:
        Székely and Rizzo, Energy statistics: a class of statistics based on distances (2013).
        Lopez-Paz and Oquab, Revisiting classifier two-sample tests (2017), https://arxiv.org/abs/1610.06545.
    """
    data, samples = _check(data, samples)
    generator = np.random.default_rng(seed)
    data, samples = (
        rows if len(rows) <= MAX_ROWS else rows[generator.choice(len(rows), MAX_ROWS, replace=False)]
        for rows in (data, samples)
    )
    # Scaled by both sides together, so that relabelling does not change the table.
    pooled = np.concatenate([data, samples])
    pooled = comparable(pooled, pooled)
    statistic, null = _energy_permutations(pooled, len(data), permutations, generator)
    accuracy = _classifier_accuracy(pooled, len(data), seed)
    return TwoSample(
        energy_distance=statistic,
        # Rounding must not turn a tie into a difference.
        p_value=float(1 + np.sum(null >= statistic - 1e-12)) / (permutations + 1),
        accuracy=accuracy,
        accuracy_standard_error=float(np.sqrt(accuracy * (1 - accuracy) / len(pooled))),
        null=null,
        rows=(len(data), len(samples)),
    )


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


def _classifier_accuracy(pooled: np.ndarray, first: int, seed: int) -> float:
    """Balanced accuracy of a forest on rows it did not see, so that chance is one half whatever the sizes."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    label = np.arange(len(pooled)) >= first
    forest = RandomForestClassifier(100, min_samples_leaf=3, class_weight="balanced", random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    right = cross_val_predict(forest, pooled, label, cv=folds) == label
    return float((right[:first].mean() + right[first:].mean()) / 2)


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
