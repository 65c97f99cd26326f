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
# Tolerances: alarms on clean sets (5 % and chance), and attacks that raise none, as shares.
_FALSE, _MISSED = 0.2, 0.1


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """A ring of sensors, one of which is replaced by readings from its own marginal distribution.

    Args:
        key: of all randomness.
        full: 100 trials and 1000 rows in place of 20 and 300. The paper's real data sets and time series are not run.

    Returns:
        Two checks.
    """
    trials, rows = (100, 1000) if full else (20, 300)
    ring = np.eye(_SENSORS) - 0.45 * (np.roll(np.eye(_SENSORS), 1, 0) + np.roll(np.eye(_SENSORS), -1, 0))
    covariance = np.linalg.inv(ring)
    root = jnp.asarray(np.linalg.cholesky(covariance / covariance[0, 0]), jnp.float32)
    methods = ("score statistic", "Kolmogorov-Smirnov test of every feature by itself")
    tables: tuple[dict[str, list[float]], ...] = tuple({name: [] for name in methods} for _ in range(3))
    named, seen, alarms = tables
    for trial in jax.random.split(key, trials):
        first, second, third, where, order = jax.random.split(trial, 5)
        clean, fresh, spare = (jax.random.normal(k, (rows, _SENSORS)) @ root.T for k in (first, second, third))
        sensor = int(jax.random.randint(where, (), 0, _SENSORS))
        attacked = fresh.at[:, sensor].set(spare[:, sensor])
        for other, detected in ((attacked, seen), (fresh, alarms)):
            record = feature_shift(clean, other, key=order, permutations=99)
            marginal = [ks_2samp(clean[:, j], other[:, j]).pvalue * _SENSORS for j in range(_SENSORS)]
            least = record.adjusted_p_value.min(), min(marginal)
            worst = record.statistic.argmax(), np.argmin(marginal)
            for name, p, place in zip(methods, least, worst):
                detected[name].append(float(p <= 0.05))
                if other is attacked:
                    named[name].append(float(p <= 0.05 and place == sensor))
    misses = {name: max(np.mean(alarms[name]) / _FALSE, (1 - np.mean(seen[name])) / _MISSED) for name in methods}
    return [
        Check(
            "The score statistic detects a broken feature and names it.",
            "stated in words",
            contrasts=Contrast("share of attacks detected at 5 % and named", named, "higher", threshold=0.9),
            moved_from="the same on an open chain of sensors, where the end that breaks changes its neighbour more",
        ),
        Check(
            "It stays silent where nothing is broken, and only there (alarms on 20 % of clean sets, 5 % and chance; "
            "10 % of attacks missed).",
            "stated in words",
            contrasts=Contrast("largest miss of both, tolerances", misses, "lower", threshold=1.0),
        ),
    ]


__all__ = ["PAPER", "checks"]
