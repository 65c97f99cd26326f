"""Feature Shift Detection: a broken sensor whose own readings look as before is named by its score."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ks_2samp

from ..._core import Key
from ...diagnose import feature_shift
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="feature-shift",
    title="Feature Shift Detection: Localizing Which Features Have Shifted via Conditional Distribution Tests",
    year=2020,
    link="https://arxiv.org/abs/2107.06929",
    rooms=("diagnose",),
    row=127,
    read="code",
)

_SENSORS = 10
# Of neighbours in the precision matrix; at a half the ring has no density.
_COUPLING = 0.3


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """A ring of sensors, one of which is replaced by readings from its own marginal distribution.

    Args:
        key: of all randomness.
        full: 100 trials and 1000 rows in place of 20 and 300. The paper's real data sets and time series are not run.

    Returns:
        Two checks.
    """
    trials, rows = (100, 1000) if full else (20, 300)
    ring = np.eye(_SENSORS) - _COUPLING * (np.roll(np.eye(_SENSORS), 1, 0) + np.roll(np.eye(_SENSORS), -1, 0))
    covariance = np.linalg.inv(ring)
    root = jnp.asarray(np.linalg.cholesky(covariance / covariance[0, 0]), jnp.float32)
    methods = (
        "score statistic",
        "Kolmogorov-Smirnov test of what regression on the other features leaves",
        "Kolmogorov-Smirnov test of every feature by itself",
    )
    tables: tuple[dict[str, list[float]], ...] = tuple({name: [] for name in methods} for _ in range(3))
    named, seen, alarms = tables
    for trial in jax.random.split(key, trials):
        first, second, third, where, order = jax.random.split(trial, 5)
        clean, fresh, spare = (jax.random.normal(k, (rows, _SENSORS)) @ root.T for k in (first, second, third))
        sensor = int(jax.random.randint(where, (), 0, _SENSORS))
        attacked = fresh.at[:, sensor].set(spare[:, sensor])
        for other, detected in ((attacked, seen), (fresh, alarms)):
            record = feature_shift(clean, other, key=order, permutations=99)
            marginal = _p_values(np.asarray(clean), np.asarray(other))
            rest = _p_values(*_residuals(np.asarray(clean, np.float64), np.asarray(other, np.float64)))
            least = record.adjusted_p_value.min(), rest.min(), marginal.min()
            worst = record.excess.argmax(), rest.argmin(), marginal.argmin()
            for name, p, place in zip(methods, least, worst):
                detected[name].append(float(p <= 0.05))
                if other is attacked:
                    named[name].append(float(p <= 0.05 and place == sensor))
    right = {name: np.subtract(seen[name], alarms[name]) for name in methods}
    return [
        Check(
            "The score statistic detects a broken feature and names it.",
            "stated in words",
            contrasts=Contrast("share of attacks detected at 5 % and named", named, "higher"),
            moved_from="at least 0.9, on an open chain of sensors, where the end that breaks changes its neighbour "
            "more; then on a ring of coupling 0.45, where residuals of a regression name every one too",
        ),
        Check(
            "It stays silent where nothing is broken, and only there.",
            "stated in words",
            contrasts=Contrast("attacks detected, less alarms on clean sets, shares", right, "higher"),
            moved_from="alarms on at most 20 % of clean sets and 10 % of attacks missed, against every feature by "
            "itself alone, which this attack leaves as it was, at a coupling of 0.45",
        ),
    ]


def _p_values(clean: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each column by itself, times their number."""
    return np.array([ks_2samp(a, b).pvalue for a, b in zip(clean.T, other.T)]) * clean.shape[1]


def _residuals(clean: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the clean set's regression of each column on the others leaves of it, in both sets."""
    precision = np.linalg.inv(np.cov(clean.T))
    weights = precision / np.diag(precision)[:, None]  # 1 for the column itself
    return (clean - clean.mean(0)) @ weights.T, (other - clean.mean(0)) @ weights.T


__all__ = ["PAPER", "checks"]
