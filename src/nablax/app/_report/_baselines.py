"""What a simple density model gets on the same rows: the figures a learned field has to beat."""

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..._core import fault, require

MAX_ROWS = 5_000  # training rows a baseline sees; more barely move either model and cost a lot
WORK = 1e11  # multiply-adds spent choosing a mixture: 10 to 20 seconds on two cores
ITERATIONS = 60
COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
# Added to every variance, in units of the column's own variance. Rounded or rarely used columns make
# near-singular components, and the best mixture of such data needs far more than the usual 1e-6.
REGULARISATION = {"diag": (1e-6, 1e-3, 3e-2), "full": (1e-6, 1e-3, 3e-2, 1e-1)}
BANDWIDTHS = np.geomspace(0.02, 3.0, 31)  # in units of a column's standard deviation


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline's log-density of the held-out rows.

    Attributes:
        name: what it is, for a reader.
        log_density: ``[held_out]`` nats per row, in the space of the arrays given.
        mean: mean of ``log_density``, nats per row.
        standard_error: of ``mean``.
        settings: what validation chose.
        note: what was limited to bound the time, in words; empty when nothing was.
        seconds: how long it took.
    """

    name: str
    log_density: np.ndarray
    mean: float
    standard_error: float
    settings: dict[str, object] = field(default_factory=dict)
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Likelihood:
    """Score of one model on rows, in the report's unit.

    Attributes:
        name: "this model", or a baseline's name.
        mean: mean over rows.
        standard_error: of the mean.
        per_row: ``[rows]`` scores, rows in the same order for all models: differences are then paired.
        note: what was chosen or limited, in words.
        baseline: False for another score of the model itself, which the model is not compared with.
    """

    name: str
    mean: float
    standard_error: float
    per_row: np.ndarray | None = None
    note: str = ""
    baseline: bool = True


def likelihood(
    name: str,
    nats: np.ndarray,
    *,
    unit: Literal["nats per row", "bits/dim"] = "nats per row",
    dimension: int = 1,
    note: str = "",
) -> Likelihood:
    r"""Turn per-row nats into a report's score; bits per dimension are $-\text{nats} / (D \ln 2)$.

    Args:
        name: "this model", or a baseline's name.
        nats: ``[rows]`` log-likelihoods, the log-correction of the dequantisation included.
        unit: the report's unit.
        dimension: columns, or pixels times channels: used for bits.
        note: what was chosen or limited, in words.

    Returns:
        The score with its standard error.
    """
    rows = np.asarray(nats, np.float64)
    rows = -rows / (dimension * math.log(2)) if unit == "bits/dim" else rows
    error = float(rows.std(ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else math.nan
    return Likelihood(name, float(rows.mean()), error, rows, note)


def gaussian_mixture(train: np.ndarray, held_out: np.ndarray, *, seed: int = 0) -> Baseline:
    r"""Fit scikit-learn's Gaussian mixture, its size and shape chosen by validation.

    $$p(y) = \sum_k w_k\, \mathcal N(y; \mu_k, \Sigma_k)$$

    One to 64 components, full and diagonal covariances and several regularisations compete on a fifth of
    the training rows; the winner is refitted on all of them. The held-out rows take no part in the choice.
    Columns are standardised for the fit and the density is carried back to the space it came from.

    Args:
        train: ``[n, dim]`` finite (encoded, dequantised) training rows.
        held_out: ``[m, dim]`` rows to score.
        seed: of the split, the sub-sample and the initialisation.

    Returns:
        Per-row log-density in nats with its mean and standard error, and the settings chosen.

    Raises:
        ValueError: the arrays disagree in width, hold NaN, or have fewer than ten training rows.

    Example:
        >>> import numpy as np
        >>> from nablax.app._report._baselines import gaussian_mixture
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> gaussian_mixture(rows[:200], rows[200:]).log_density.shape
        (100,)

    Cost:
        At most ``WORK`` multiply-adds for the choice, whatever the data: candidates that do not fit are left
        out and named in ``note``; then one fit on at most ``MAX_ROWS`` rows.
    """
    from sklearn.mixture import GaussianMixture

    threadpool_limits = require("threadpoolctl", extra="app").threadpool_limits
    started = time.perf_counter()
    train, held_out, notes = _prepare(train, held_out, seed)
    fitting, validation = _split(train, seed)
    shift, scale = _scale(fitting)
    spent, skipped = 0.0, 0
    best: tuple[float, dict[str, object]] = (-math.inf, {})

    def fit(rows: np.ndarray, settings: dict[str, object]) -> GaussianMixture:
        mixture = GaussianMixture(
            settings["components"],
            covariance_type=settings["covariance"],
            reg_covar=settings["regularisation"],
            max_iter=ITERATIONS,
            random_state=seed,
        )
        # One thread: the matrices are small, and threads waiting for each other make it many times slower.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unconverged candidate is judged by its score like any other
            return mixture.fit((rows - shift) / scale)

    for path in _paths(len(fitting)):
        worse, best_of_path = 0, -math.inf
        for settings in path:
            cost = _work(fitting.shape, settings)
            if spent + cost > WORK:
                skipped += 1
                continue
            spent += cost
            try:
                score = float(np.mean(fit(fitting, settings).score_samples((validation - shift) / scale)))
            except ValueError:  # a component collapsed at this regularisation
                break
            best = max(best, (score, settings), key=lambda pair: pair[0])
            worse = worse + 1 if score < best_of_path else 0
            best_of_path = max(best_of_path, score)
            if worse == 2:  # past the optimum, and larger mixtures are dearer
                break
    if not best[1]:  # even one full Gaussian is over budget: very wide rows
        best = (math.nan, {"components": 1, "covariance": "diag", "regularisation": 1e-3})
    if skipped:
        notes.append(f"{skipped} large mixtures left out to bound the time")
    chosen = fit(train, best[1])
    density = chosen.score_samples((held_out - shift) / scale) - np.sum(np.log(scale))
    return _baseline("Gaussian mixture", density, best[1], notes, started)


def kernel_density(train: np.ndarray, held_out: np.ndarray, *, seed: int = 0) -> Baseline:
    r"""Score rows under a Gaussian kernel density, its bandwidth chosen by validation.

    $$p(y) = \frac1n \sum_i \mathcal N(y; x_i, h^2 S)$$

    with ``S`` either the columns' own variances or one variance for all: both are tried with 31 bandwidths
    on a fifth of the training rows, and the winner uses them all.

    Args:
        train: ``[n, dim]`` finite (encoded, dequantised) training rows.
        held_out: ``[m, dim]`` rows to score.
        seed: of the split and the sub-sample.

    Returns:
        Per-row log-density in nats with its mean and standard error, and the settings chosen.

    Raises:
        ValueError: the arrays disagree in width, hold NaN, or have fewer than ten training rows.

    Example:
        >>> import numpy as np
        >>> from nablax.app._report._baselines import kernel_density
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> bool(kernel_density(rows[:200], rows[200:]).mean < -2.0)
        True

    Cost:
        Two distance tables for the choice, one for the score: at most ``MAX_ROWS`` squared times ``dim``.
    """
    started = time.perf_counter()
    train, held_out, notes = _prepare(train, held_out, seed)
    fitting, validation = _split(train, seed)
    scales = {"each column its own": _scale(fitting)[1]}
    scales["one for all columns"] = np.full(train.shape[1], np.sqrt(np.mean(scales["each column its own"] ** 2)))
    scored = [
        (float(np.mean(row)), name, float(bandwidth))
        for name, scale in scales.items()
        for bandwidth, row in zip(BANDWIDTHS, _kernel_log_density(fitting, validation, scale, BANDWIDTHS))
    ]
    _, name, bandwidth = max(scored)
    density = _kernel_log_density(train, held_out, scales[name], np.array([bandwidth]))[0]
    settings: dict[str, object] = {"bandwidth": round(bandwidth, 4), "scale": name}
    return _baseline("Kernel density", density, settings, notes, started)


def _kernel_log_density(train: np.ndarray, rows: np.ndarray, scale: np.ndarray, bandwidths: np.ndarray) -> np.ndarray:
    """Return ``[bandwidths, rows]``; the distances are computed once for all bandwidths, in blocks of rows."""
    from scipy.special import logsumexp
    from sklearn.metrics.pairwise import euclidean_distances

    dim = train.shape[1]
    centre = train.mean(axis=0)
    reference = (train - centre) / scale
    constant = np.log(len(train)) + dim / 2 * np.log(2 * np.pi * bandwidths**2) + np.sum(np.log(scale))
    blocks = []
    for first in range(0, len(rows), 1000):
        block = (rows[first : first + 1000] - centre) / scale
        squared = euclidean_distances(block, reference, squared=True)
        blocks.append(np.stack([logsumexp(-squared / (2 * h * h), axis=1) for h in bandwidths]))
    return np.concatenate(blocks, axis=1) - constant[:, None]


def _paths(rows: int) -> Iterator[list[dict[str, object]]]:
    """Candidates in paths of growing size, the cheap covariance first so that a budget cut hurts least."""
    sizes = [count for count in COMPONENTS if count <= max(1, rows // 5)]
    for covariance, regularisations in REGULARISATION.items():
        for regularisation in reversed(regularisations):
            yield [{"components": count, "covariance": covariance, "regularisation": regularisation} for count in sizes]


def _work(shape: tuple[int, ...], settings: dict[str, object]) -> float:
    rows, dim = shape
    components = float(settings["components"])  # type: ignore[arg-type]
    width = float(dim) ** 2 if settings["covariance"] == "full" else float(dim)
    passes = 2 if components == 1 else ITERATIONS / 3  # EM mostly stops well before its limit
    return passes * components * width * (2 * rows + (dim if settings["covariance"] == "full" else 0))


def _prepare(train: np.ndarray, held_out: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    train, held_out = np.asarray(train, np.float64), np.asarray(held_out, np.float64)
    if train.ndim != 2 or held_out.ndim != 2 or train.shape[1] != held_out.shape[1] or len(train) < 10:
        raise fault(
            expected="two arrays [rows, dim] of one width, at least ten training rows",
            got=f"shapes {train.shape} and {held_out.shape}",
            fix="Pass encoded rows.",
        )
    if not (np.isfinite(train).all() and np.isfinite(held_out).all()):
        raise fault(expected="finite rows", got="NaN or infinity", fix="Dequantise the rows first: it fills the gaps.")
    if len(train) <= MAX_ROWS:
        return train, held_out, []
    picked = np.random.default_rng(seed).choice(len(train), MAX_ROWS, replace=False)
    return train[picked], held_out, [f"fitted on {MAX_ROWS} of {len(train)} training rows"]


def _split(train: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(train))
    count = max(1, len(train) // 5)
    return train[order[count:]], train[order[:count]]


def _scale(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = rows.std(axis=0)
    return rows.mean(axis=0), np.where(scale > 0, scale, 1.0)


def _baseline(
    name: str, density: np.ndarray, settings: dict[str, object], notes: list[str], started: float
) -> Baseline:
    error = float(np.std(density, ddof=1) / np.sqrt(len(density))) if len(density) > 1 else math.nan
    seconds = time.perf_counter() - started
    return Baseline(name, density, float(np.mean(density)), error, settings, "; ".join(notes), seconds)
