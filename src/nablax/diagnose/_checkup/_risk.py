"""How likely a run is to fail: a logistic of a few signs, fitted on the making half of the bank of runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._signs import Signs

# Loss over that of knowing nothing, where this is not known.
USUAL = 0.7
# Part of the loss of knowing nothing from which a run of the bank is stuck.
STUCK = 0.95

# Printed by ``python -m benchmarks.checkup_rules fit``; the constant has no name.
WEIGHTS: Mapping[str, float] = {
    "": -5.727,
    "level": 4.071,
    "level afterwards": 3.232,
    "own fall, decades": -1.027,
    "own fall": -3.435,
    "fall, decades": -0.226,
    "late": -1.054,
    "first step": -0.763,
    "short step": 0.304,
    "below the limit": 0.067,
    "model holds": -0.208,
    "noise": 0.727,
    "longest row": -0.787,
    "cut": 4.083,
    "dead": 1.100,
}


def features(s: Signs) -> dict[str, Any]:
    """What the logistic is of, by name; a sign that is not known has the value at which it says nothing."""
    own, whole, level = np.asarray(s.heart), np.asarray(s.rise), _known(s.chance, USUAL)
    return {
        # Loss over that of knowing nothing, now and after the rehearsal.
        "level": np.clip(level, 0, 1.5),
        "level afterwards": np.clip(level * (1 + np.clip(whole, -1, 1e6)), 0, 1.5),
        # Fall of the loss over the rehearsal, of the rows that are stepped on and of the batch: decades, and the share.
        "own fall, decades": np.log10(np.clip(-own, 1e-3, 1)),
        "own fall": np.clip(-own, 0, 1),
        "fall, decades": np.log10(np.clip(-whole, 1e-3, 1)),
        # Share of the fall that came in the second half: high where it begins slowly, low where it is over.
        "late": np.where(own < 0, np.clip(np.asarray(s.late) / np.minimum(own, -1e-9), -1, 1), 0),
        # Before the first step moments and metric are still to come, and a slow start says less.
        "first step": np.asarray(s.fresh, float),
        # Decades by which the step is shorter than a hundredth of every matrix, and by which curvature times rate is
        # below its limit; how far the step's quadratic model holds.
        "short step": np.clip(-np.log10(np.clip(_known(s.moved, 1e-2), 1e-5, 1e2)) - 2, 0, 3),
        "below the limit": -np.log10(np.clip(_known(s.ratio, 0.1), 1e-4, 1)),
        "model holds": np.log2(np.clip(_known(s.holds, 1.0), 1 / 16, 16)),
        # Noise scale over batch size, in decades; whether single rows lead.
        "noise": np.log10(np.clip(_known(s.noise, 1.0), 1e-3, 1e3)),
        "longest row": np.log10(np.clip(_known(s.tail, 2.0), 1, 1e3)),
        # What gets no gradient, whether or not it moves.
        "cut": np.maximum(s.cut, _known(s.mute, 0.0)),
        "dead": np.asarray(s.dead),
    }


def risk_of(signs: Signs) -> Any:
    """Probability of failure within 200 steps, of numbers or of columns of them; NaN without a rehearsal."""
    with np.errstate(invalid="ignore"):
        found = features(signs)
        total = WEIGHTS[""] + sum(weight * found[name] for name, weight in WEIGHTS.items() if name)
        risk = np.where(_at_rest(signs), 0.0, 1 / (1 + np.exp(-np.clip(total, -30, 30))))
        return np.where(np.isnan(signs.heart), np.nan, risk)


def _at_rest(s: Signs) -> Any:
    """Whether no parameter has a gradient, and it is not for being dead or stuck: there is nowhere to go."""
    still = np.isnan(s.faint) & (np.asarray(s.moved) == 0) & (np.asarray(s.heart) == 0)
    return still & (np.asarray(s.cut) == 0) & ~(np.asarray(s.mute) > 0) & ~(np.asarray(s.chance) > STUCK)


def _known(sign: Any, otherwise: float) -> Any:
    return np.where(np.isnan(sign), otherwise, sign)
