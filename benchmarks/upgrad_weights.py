"""UPGrad's weights of a Gramian, for K objectives in a space of 4 K dimensions, double precision."""

import time
from pathlib import Path

import numpy as np

TITLE = "UPGrad weights, K = 8, 32, 64, 128, 256, x64"
PEER = "torchjd 0.18.0 with quadprog"
UNIT = "s for all five"
TARGET = "50×; by K: 1×, 1×, 5×, 5×, 50×"
BETTER = "lower"
COUNTS, REPEATS = (8, 32, 64, 128, 256), 5


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    for count in COUNTS:
        jacobian = random.standard_normal((count, 4 * count))
        np.save(folder / f"{count}.npy", jacobian @ jacobian.T)
    return {}


def _violation(gramian: np.ndarray, weights: np.ndarray) -> float:
    """By how much the most hurt objective is hurt: cosine with the step."""
    product = gramian @ weights
    return float(np.max(-product / np.sqrt(np.diag(gramian) * (weights @ product))).clip(0))


def _side(folder: Path, call, repeats: int) -> dict:
    first, totals, middle, worst = 0.0, np.zeros(repeats), [], 0.0
    for count in COUNTS:
        gramian = np.load(folder / f"{count}.npy")
        start = time.perf_counter()
        weights = call(gramian)
        first += time.perf_counter() - start
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call(gramian)
            times.append(time.perf_counter() - start)
        totals += times
        middle.append(f"{count}: {1e3 * np.median(times):.2f} ms")
        worst = max(worst, _violation(gramian, np.asarray(weights)))
    return {"values": totals.tolist(), "compile": first, "accuracy": f"{', '.join(middle)}; conflict {worst:.1e}"}


def ours(folder: Path) -> dict:
    import jax

    jax.config.update("jax_enable_x64", True)
    from nablax.regulate import upgrad_weights

    compiled, residuals = jax.jit(upgrad_weights), []

    def call(gramian: np.ndarray) -> np.ndarray:
        found = jax.block_until_ready(compiled(gramian))
        residuals.append(float(found.residual))
        return found.weights

    result = _side(folder, call, REPEATS)
    return result | {"accuracy": f"{result['accuracy']}, KKT residual {max(residuals):.1e}"}


def peer(folder: Path) -> dict:
    import torch
    from torchjd.aggregation import UPGradWeighting

    weighting = UPGradWeighting()
    return _side(folder, lambda gramian: weighting(torch.tensor(gramian)).numpy(), 1)
