"""How likely a run is to fail: a logistic of a few signs, fitted on the making half of the bank of runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._signs import Signs

# Loss over that of knowing nothing, where this is not known.
USUAL = 0.7

# Printed by ``python -m benchmarks.checkup_rules fit``; the constant has no name.
WEIGHTS: Mapping[str, float] = {
    "": -5.953,
    "level": 5.918,
    "own fall, decades": -0.914,
    "own fall": -3.027,
    "fall, decades": -0.371,
    "first step": -0.705,
    "own fall, decades, at the first step": 0.143,
    "at four times the rate": 1.656,
    "short step": 0.530,
    "model holds": -0.165,
    "longest row": -1.405,
    "cut": 3.710,
    "dead": 1.731,
}


def features(s: Signs) -> dict[str, Any]:
    """What the logistic is of, by name; a sign that is not known has the value at which it says nothing."""
    own, whole, fresh = np.asarray(s.heart), np.asarray(s.rise), np.asarray(s.fresh, float)
    decades = np.log10(np.clip(-own, 1e-3, 1))
    return {
        # Loss over that of knowing nothing.
        "level": np.clip(_known(s.chance, USUAL), 0, 1.5),
        # Fall of the loss over the rehearsal, of the rows that are stepped on and of the batch: decades, and the share.
        "own fall, decades": decades,
        "own fall": np.clip(-own, 0, 1),
        "fall, decades": np.log10(np.clip(-whole, 1e-3, 1)),
        # Before the first step moments and metric are still to come, and a slow start says less.
        "first step": fresh,
        "own fall, decades, at the first step": fresh * decades,
        # What becomes of the batch at four times the rate.
        "at four times the rate": np.clip(_known(s.faster, 0.0), -1, 1),
        # Decades by which the step is shorter than a hundredth of every matrix; how far its quadratic model holds.
        "short step": np.clip(-np.log10(np.clip(_known(s.moved, 1e-2), 1e-5, 1e2)) - 2, 0, 3),
        "model holds": np.log2(np.clip(_known(s.holds, 1.0), 1 / 16, 16)),
        # Whether single rows lead.
        "longest row": np.log10(np.clip(_known(s.tail, 2.0), 1, 1e3)),
        "cut": np.asarray(s.cut),
        "dead": np.asarray(s.dead),
    }


def risk_of(signs: Signs) -> Any:
    """Probability of failure within 200 steps, of numbers or of columns of them; NaN without a rehearsal."""
    with np.errstate(invalid="ignore"):
        found = features(signs)
        total = WEIGHTS[""] + sum(weight * found[name] for name, weight in WEIGHTS.items() if name)
        return np.where(np.isnan(signs.heart), np.nan, 1 / (1 + np.exp(-np.clip(total, -30, 30))))


def _known(sign: Any, otherwise: float) -> Any:
    return np.where(np.isnan(sign), otherwise, sign)
