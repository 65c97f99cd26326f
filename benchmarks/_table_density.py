"""Log-likelihoods of tables of numbers in one unit for all: the probability of a row's cells as they are written."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from ._table_figures import numbers
from ._tables import read

_DECIMALS = 6
DRAWS = 4  # of the noise within a cell's width


def numeric(train: pl.DataFrame) -> bool:
    """Whether every cell is a number and there: what a Gaussian mixture has a density of."""
    return all(train[name].dtype.is_numeric() and not train[name].null_count() for name in train.columns)


def steps(train: pl.DataFrame) -> dict[str, float]:
    """Width of the cells of each column: the greatest number that all differences are multiples of, 1 where there is none."""
    found = {}
    for name in train.columns:
        values, found[name] = np.unique(numbers(train[name])), 1.0
        for decimals in range(_DECIMALS + 1):
            scaled = values * 10**decimals
            ticks = np.rint(scaled)
            if np.allclose(scaled, ticks, rtol=0, atol=1e-6 * max(1.0, 10.0**decimals * 1e-3)):
                gaps = np.diff(ticks.astype(np.int64))
                found[name] = (math.gcd(*gaps.tolist()) or 1) / 10**decimals
                break
    return found


def mixture(folder: Path, seed: int) -> np.ndarray:
    """Nats of each held-out row under a Gaussian mixture whose size and shape validation chose, noise spread over cells."""
    from nablax.app._report._baselines import gaussian_mixture

    train = read(folder / "train.csv")
    held_out, width = read(folder / "held_out.csv", train), steps(train)
    generator = np.random.default_rng(seed)
    sides = [np.stack([numbers(f[name]) for name in train.columns], axis=1) for f in (train, held_out)]
    wide = np.array([width[name] for name in train.columns])
    sides[1] = np.tile(sides[1], (DRAWS, 1))
    noisy = [side + wide * (generator.random(side.shape) - 0.5) for side in sides]
    nats = gaussian_mixture(*noisy, seed=seed).log_density.reshape(DRAWS, -1).mean(0)
    return nats + np.log(wide).sum()


def leaves_nats(
    x: np.ndarray,
    width: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Nats of rows under weighted leaves, in each a product of truncated normals: the density of a random forest of leaves.

    The probability of a cell is that between its edges, so that a leaf of one value has an atom there.

    Args:
        x: rows [rows, columns].
        width: of the columns' cells [columns].
        weight: of the leaves [leaves], one in sum.
        mean: of the normals before they are truncated [leaves, columns].
        spread: their standard deviations; 0 or NaN is a leaf of one value.
        low: where they are truncated.
        high: the same, above.

    Returns:
        [rows].
    """
    from scipy.special import logsumexp
    from scipy.stats import norm

    total = np.tile(np.log(weight), (len(x), 1))
    with np.errstate(all="ignore"):
        for j, half in enumerate(width / 2):
            m, s, a, b, here = mean[:, j], spread[:, j], low[:, j], high[:, j], x[:, j, None]
            lower, upper = (norm.cdf((np.clip(here + side, a, b) - m) / s) for side in (-half, half))
            p = (upper - lower) / (norm.cdf((b - m) / s) - norm.cdf((a - m) / s))
            total += np.log(np.where(s > 0, p, np.abs(here - m) < half))
    return logsumexp(total, axis=1)


def main() -> None:
    folder, seed = Path(sys.argv[2]), int(sys.argv[3])
    said = {}
    if numeric(read(folder / "train.csv")):
        begin = time.process_time()
        nats = mixture(folder, seed)
        said = {"draw_cpu": time.process_time() - begin, "nats": float(nats.mean())}
        said["nats_error"] = float(nats.std(ddof=1) / math.sqrt(len(nats)))
    print("RESULT " + json.dumps(said))


if __name__ == "__main__":
    main()
