"""How well a classifier tells samples from held-out rows, and by which columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 5
TREES = 60
_REPEATS = 5  # shuffles of a column in each fold
# Folds share training rows, so their answers hang together: 1 / k becomes 1 / k + n_test / n_train (Nadeau and Bengio).
_SHARED = np.sqrt(1 + FOLDS / (FOLDS - 1))
_ROWS = 60_000  # shuffled rows put to one forest at a time; of more columns each is shuffled less often


@dataclass(frozen=True)
class ColumnGap:
    """How much of the classifier's accuracy goes when one column is shuffled among the rows.

    Attributes:
        name: of the column.
        lost: balanced accuracy lost; near 0, also below it, where the column gives nothing away.
        standard_error: over rows, paired, widened for the training rows that the folds share.
    """

    name: str
    lost: float
    standard_error: float


@dataclass(frozen=True)
class Telling:
    """What the classifier reached on rows that it had not seen.

    Attributes:
        accuracy: mean of the shares of held-out rows and of samples called rightly; 0.5 is chance.
        standard_error: binomial, of both shares, widened for the training rows that the folds share.
        p_value: of an accuracy this high by guessing.
        columns: the columns by what they give away, the most telling first; empty where no names were given.
    """

    accuracy: float
    standard_error: float
    p_value: float
    columns: tuple[ColumnGap, ...] = ()


def telling(pooled: np.ndarray, first: int, seed: int, groups: Mapping[str, Sequence[int]] | None = None) -> Telling:
    r"""Train a forest to tell the first rows from the others, and shuffle its columns one by one.

    $$a = \tfrac12 (a_{\text{held out}} + a_{\text{samples}})$$

    so that chance is one half whatever the sizes. Each row is judged by a forest that was trained without it, and
    so is its copy in which one column holds another row's value: what accuracy that costs is the column's
    permutation importance. Columns that say the same can stand in for each other, and then neither costs much.

    Args:
        pooled: ``[n + m, dim]`` finite rows, those held out first.
        first: n.
        seed: of forests, folds and shuffles.
        groups: name of a column to its places in ``pooled``; None for no ranking.

    Returns:
        Accuracy, its error and p-value, and the ranking.

    Example:
        >>> import numpy as np
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:, 1] += 3.0
        >>> telling(rows, 100, 0, {"same": [0], "moved": [1]}).columns[0].name
        'moved'

    Cost:
        ``FOLDS`` forests of ``TREES`` trees, and at most ``_ROWS`` shuffled rows a fold beyond one copy a column.

    References:
        Nadeau and Bengio, Inference for the generalization error (2003), for what shared rows add to the variance.
        Breiman, Random forests (2001), for the importance of a column by shuffling it.
        Lopez-Paz and Oquab, Revisiting classifier two-sample tests (2017), https://arxiv.org/abs/1610.06545.
    """
    from scipy.stats import norm
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold

    label = np.arange(len(pooled)) >= first
    generator = np.random.default_rng(seed)
    named = dict(groups or {})
    right = np.zeros(len(pooled))
    lost = np.zeros((len(named), len(pooled)))
    for number, (fitted, asked) in enumerate(
        StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(pooled, label)
    ):
        forest: Any = RandomForestClassifier(
            TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed + number
        ).fit(pooled[fitted], label[fitted])
        rows, truth = pooled[asked], label[asked]
        right[asked] = forest.predict(rows) == truth
        repeats = max(1, min(_REPEATS, _ROWS // (len(rows) * max(1, len(named)))))
        for place, columns in enumerate(named.values()):
            shuffled = np.tile(rows, (repeats, 1))
            for repeat in range(repeats):
                block = shuffled[repeat * len(rows) : (repeat + 1) * len(rows)]
                block[:, columns] = rows[generator.permutation(len(rows))][:, columns]
            still = (forest.predict(shuffled) == np.tile(truth, repeats)).reshape(repeats, -1).mean(axis=0)
            lost[place, asked] = right[asked] - still
    sides = [~label, label]
    shares = [float(right[side].mean()) for side in sides]
    accuracy = float(np.mean(shares))
    error = np.sqrt(sum(share * (1 - share) / side.sum() for share, side in zip(shares, sides))) / 2 * _SHARED
    by_chance = np.sqrt(sum(0.25 / side.sum() for side in sides)) / 2 * _SHARED
    gaps = [
        ColumnGap(
            name,
            float(np.mean([row[side].mean() for side in sides])),
            float(np.sqrt(sum(row[side].var(ddof=1) / side.sum() for side in sides)) / 2 * _SHARED),
        )
        for name, row in zip(named, lost)
    ]
    return Telling(
        accuracy,
        float(error),
        float(norm.sf((accuracy - 0.5) / by_chance)),
        tuple(sorted(gaps, key=lambda gap: -gap.lost)),
    )
