"""Does the model repeat its training rows?"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..._core import fault
from ._two_sample import comparable

MAX_ROWS = 2_000  # of held-out rows and of samples; every training row is searched
QUANTILE = 0.01


@dataclass(frozen=True)
class Memorised:
    """How near samples come to training rows, against how near fresh real rows come.

    Attributes:
        sample_distance: ``[samples]`` distance to the nearest training row, in standard deviations.
        held_out_distance: ``[held_out]`` the same for rows the model never saw.
        threshold: the held-out distance below which about one row in a hundred falls.
        expected_share: share of samples below it were they fresh rows.
        share_close: share of samples below it.
        p_value: chance of that share or a larger one from fresh rows (beta-binomial: the threshold is itself
            estimated from the held-out rows).
        share_copied: share of samples equal to a training row in every cell.
        held_out_share_copied: the same for held-out rows: coarse tables repeat themselves.
        train_share_copied: share of training rows equal to another one.
        copied_p_value: chance of as many copies, were samples and held-out rows alike (Fisher's exact test).
        closest: ``[pairs, 2]`` indices (sample, training row) of the nearest pairs, nearest first.
    """

    sample_distance: np.ndarray
    held_out_distance: np.ndarray
    threshold: float
    expected_share: float
    share_close: float
    p_value: float
    share_copied: float
    held_out_share_copied: float
    train_share_copied: float
    copied_p_value: float
    closest: np.ndarray


def memorised(
    train: np.ndarray,
    held_out: np.ndarray,
    samples: np.ndarray,
    *,
    values: tuple[Any, Any, Any] | None = None,
    one_scale: bool = False,
    pairs: int = 8,
    seed: int = 0,
) -> Memorised:
    r"""Compare samples' distances to their nearest training rows with those of held-out rows.

    With $d_{(r)}$ the r-th smallest of m held-out distances, $r = \max(1, \lfloor m/100 \rfloor)$, the number
    of n fresh rows nearer than $d_{(r)}$ is beta-binomial(n, r, m + 1 - r): no approximation is made.

    Args:
        train: ``[n, dim]`` every row the model was trained on, NaN where missing.
        held_out: ``[m, dim]`` rows from the same source that it was not trained on.
        samples: ``[s, dim]`` the model's samples, rounded to the same grid.
        values: the same three as the table's own values (Polars frames, or arrays), in which copies are
            counted; the arrays themselves by default.
        one_scale: scale all columns alike: for pixels.
        pairs: nearest pairs to name.
        seed: of the sub-samples of held-out rows and samples beyond ``MAX_ROWS``.

    Returns:
        Shares with their p-values, the distances, and the nearest pairs.

    Raises:
        ValueError: the widths differ or a side is empty.

    Example:
        >>> import numpy as np
        >>> from nablax.app._report._memorised import memorised
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> memorised(rows[:200], rows[200:], rows[:50]).share_copied
        1.0

    Cost:
        One nearest-neighbour search over all training rows for at most ``2 * MAX_ROWS`` rows.

    References:
        Meehan, Chaudhuri and Dasgupta, A non-parametric test to detect data-copying in generative models
        (2020), https://arxiv.org/abs/2004.05675, for the comparison with held-out distances.
    """
    from scipy.stats import betabinom, fisher_exact

    train, held_out, samples = (np.asarray(rows, np.float64) for rows in (train, held_out, samples))
    widths = {rows.shape[1:] for rows in (train, held_out, samples)}
    if len(widths) != 1 or min(len(train), len(held_out), len(samples)) == 0 or train.ndim != 2:
        raise fault(
            expected="three non-empty arrays [rows, dim] of one width",
            got=f"shapes {train.shape}, {held_out.shape} and {samples.shape}",
            fix="Flatten images and encode all three in one way.",
        )
    train_keys, held_out_keys, sample_keys = (_keys(rows) for rows in values or (train, held_out, samples))
    known = Counter(train_keys)
    copied, held_out_copied = (sum(key in known for key in keys) for keys in (sample_keys, held_out_keys))
    table = [
        [copied, len(sample_keys) - copied],
        [held_out_copied, len(held_out_keys) - held_out_copied],
    ]

    generator = np.random.default_rng(seed)
    picked = [
        np.sort(generator.choice(len(rows), MAX_ROWS, replace=False)) if len(rows) > MAX_ROWS else np.arange(len(rows))
        for rows in (held_out, samples)
    ]
    scaled = partial(comparable, train, one_scale=one_scale)
    reference = scaled(train)
    held_out_distance, _ = _nearest(scaled(held_out[picked[0]]), reference)
    sample_distance, neighbour = _nearest(scaled(samples[picked[1]]), reference)
    count = len(held_out_distance)
    rank = max(1, int(count * QUANTILE))
    threshold = float(np.sort(held_out_distance)[rank - 1])
    close = int(np.sum(sample_distance < threshold))
    order = np.argsort(sample_distance, kind="stable")[:pairs]
    return Memorised(
        sample_distance=sample_distance,
        held_out_distance=held_out_distance,
        threshold=threshold,
        expected_share=rank / (count + 1),
        share_close=close / len(sample_distance),
        p_value=float(betabinom.sf(close - 1, len(sample_distance), rank, count + 1 - rank)),
        share_copied=copied / len(sample_keys),
        held_out_share_copied=held_out_copied / len(held_out_keys),
        train_share_copied=sum(times for times in known.values() if times > 1) / len(train_keys),
        copied_p_value=float(fisher_exact(table, alternative="greater").pvalue),
        closest=np.stack([picked[1][order], neighbour[order]], axis=1),
    )


def _nearest(rows: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.metrics import pairwise_distances_argmin

    index = pairwise_distances_argmin(rows, reference)
    # Taken afresh: the search expands the square, which leaves an exact copy at a distance of about 1e-7.
    return np.linalg.norm(rows - reference[index], axis=1), index


def _keys(rows: Any) -> list[Any]:
    """Hashable rows: tuples of a frame, bytes of an array (which makes NaN equal to NaN)."""
    if hasattr(rows, "rows"):
        frame_rows: Iterable[tuple[Any, ...]] = rows.rows()
        # A NaN is not equal to itself, so a copied row that holds one would not be found.
        return [tuple("nan" if cell != cell else cell for cell in row) for row in frame_rows]
    array = np.ascontiguousarray(np.asarray(rows) + 0.0)  # adding zero makes -0.0 and 0.0 one
    return [row.tobytes() for row in array]
