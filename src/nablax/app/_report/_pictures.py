"""Every picture of a report that its evidence allows."""

import base64
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ... import _pages
from ..._pages import markup
from . import _evidence_figures
from ._evidence import Evidence
from ._levels import ACCURACY

MARGINALS = 24  # columns shown one by one; of more, those that differ most
PAIRS = 5
GAPS = 12  # columns in the ranking of what gives samples away
FEWEST_POINTS = 250  # of the samples, where there are as many
POINTS = 700  # of each colour in a scatter
IMAGES = 48


def pictures(evidence: Evidence) -> dict[str, Any]:
    """Every picture of the page that its evidence allows, as markup."""
    drawn: dict[str, Any] = {}
    if isinstance(evidence.data, Mapping) and isinstance(evidence.samples, Mapping):
        drawn |= _table_pictures(evidence.data, evidence.samples, evidence.dates)
    else:
        drawn["ink"] = ink = _pages.drawn(np.asarray(evidence.data), evidence.image_limits)
        for name in ("data", "samples"):
            labels = evidence.data_labels if name == "data" else evidence.sample_labels
            drawn[f"{name}_grid"] = _grid(_some(getattr(evidence, name), labels), evidence.image_limits, 8, ink)
        if evidence.closest_pairs is not None:
            shown = np.concatenate([np.asarray(side)[:8] for side in evidence.closest_pairs])
            drawn["closest"] = _grid(shown, evidence.image_limits, len(shown) // 2, ink)
    if (curves := evidence.training) is not None:
        drawn["training"] = markup(
            _evidence_figures.training_curve(
                curves.step, curves.loss, curves.validation_step, curves.validation, curves.best_step
            )
        )
    scores = [score for score in evidence.likelihoods if math.isfinite(score.mean)]
    if scores:
        drawn["likelihood"] = markup(
            _evidence_figures.likelihoods(
                [s.name for s in scores], [s.mean for s in scores], [s.standard_error for s in scores], evidence.unit
            )
        )
    if (test := evidence.two_sample) is not None:
        if test.columns:
            drawn["columns"] = markup(_evidence_figures.column_gaps(test.columns[:GAPS]))
        drawn["null"] = markup(_evidence_figures.permutation_null(test.null, test.energy_distance))
        drawn["accuracy"] = markup(
            _evidence_figures.accuracy_scale(test.accuracy, test.accuracy_standard_error, *ACCURACY)
        )
    if (found := evidence.memorised) is not None:
        drawn["distances"] = markup(
            _evidence_figures.distances(found.held_out_distance, found.sample_distance, found.threshold)
        )
    if (curve := evidence.solver_curve) is not None and len(curve.evaluations):
        drawn["solver"] = markup(
            _evidence_figures.solver_curve(curve.evaluations, curve.error, curve.chosen, curve.unit)
        )
    if (turning := evidence.conservativity) is not None:
        drawn["conservativity"] = markup(
            _evidence_figures.conservativity(turning.times, turning.ratio, turning.standard_error)
        )
    return drawn


def _table_pictures(
    data: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray], dates: Collection[str] = ()
) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    names = [name for name in data if name in samples]
    differences = {name: column_difference(data[name], samples[name]) for name in names}
    shown = names
    if len(names) > MARGINALS:
        largest = set(sorted(names, key=lambda name: -differences[name])[:MARGINALS])
        shown = [name for name in names if name in largest]
    drawn["marginals"] = [
        (name, differences[name], markup(_pages.marginal(data[name], samples[name], dates=name in dates)))
        for name in shown
    ]
    drawn["columns_left_out"] = len(names) - len(shown)
    numbers = [name for name in names if _pages.numeric(data[name])]
    if len(numbers) < 2:
        return drawn
    left, right = (_correlations(table, numbers) for table in (data, samples))
    drawn["correlations"] = [
        (title, markup(_pages.correlation(matrix, numbers)))
        for title, matrix in (("Data", left), ("Samples", right), ("Samples − data", right - left))
    ]
    drawn["correlation_difference"] = float(np.nanmax(np.abs(right - left), initial=0.0))
    # The columns that are most tied to another one, or whose ties the model gets most wrong.
    ties = np.nan_to_num(np.abs(left) + np.abs(right - left) - np.eye(len(numbers))).max(axis=1)
    kept = sorted(np.argsort(-ties, kind="stable")[:PAIRS])
    # As many of each colour, but of the samples enough to see their shape.
    rows = min(POINTS, len(data[numbers[0]]))
    counts = rows, min(POINTS, max(FEWEST_POINTS, rows))
    few = [
        {numbers[i]: np.asarray(table[numbers[i]], float)[:count] for i in kept}
        for table, count in zip((data, samples), counts)
    ]
    drawn["pairs"] = markup(_pages.pair_plot(few[0], few[1], dates))
    return drawn


def column_difference(data: np.ndarray, samples: np.ndarray) -> float:
    """Kolmogorov–Smirnov distance of two numeric columns, total variation of two categorical ones, in [0, 1]."""
    from scipy.stats import ks_2samp

    if not _pages.numeric(data):
        return sum(abs(a - b) for a, b in _pages.category_shares(data, samples).values()) / 2
    data, samples = (v[np.isfinite(v)] for v in (np.asarray(data, float), np.asarray(samples, float)))
    return float(ks_2samp(data, samples, method="asymp").statistic) if len(data) and len(samples) else 1.0


def _correlations(table: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Pearson correlations over rows where both cells are there; NaN where a column is constant."""
    rows = np.stack([np.asarray(table[name], float) for name in names])
    masked = np.ma.masked_invalid(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.ma.filled(np.ma.corrcoef(masked).astype(float), np.nan)


def _some(images: Any, labels: np.ndarray | None) -> np.ndarray:
    """Pick ``IMAGES`` images, in order of their labels when they have any, evenly over them."""
    images = np.asarray(images)
    order = np.arange(len(images)) if labels is None else np.argsort(np.asarray(labels), kind="stable")
    count = min(IMAGES, len(images))
    picked = order[np.linspace(0, len(images) - 1, count).astype(int)] if labels is not None else order[:count]
    return images[picked]


def _grid(images: np.ndarray, limits: tuple[float, float], columns: int, ink: bool) -> str:
    picture = _pages.image_grid(images, limits=limits, columns=columns, invert=ink)
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
