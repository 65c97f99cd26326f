"""ConFIG and CAGrad of eight gradients with a million components each, single precision."""

import time
from pathlib import Path

import numpy as np

TITLE = "ConFIG and CAGrad, K = 8, 1e6 parameters"
PEER = "conflictfree 0.1.8 (ConFIG), torchjd 0.18.0 (CAGrad)"
UNIT = "s for both"
TARGET = "3×"
BETTER = "lower"
COUNT, SIZE, REPEATS = 8, 1_000_000, 15


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    common = random.standard_normal(SIZE)
    rows = [0.3 * common * (-1) ** k + random.standard_normal(SIZE) for k in range(COUNT)]
    np.save(folder / "grads.npy", np.array(rows, np.float32))
    return {}


def _side(calls: dict, grads: np.ndarray) -> dict:
    first, totals, words = 0.0, np.zeros(REPEATS), []
    for name, call in calls.items():
        start = time.perf_counter()
        update = np.asarray(call())
        first += time.perf_counter() - start
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        totals += times
        slopes = grads @ update / np.linalg.norm(grads, axis=1)
        words.append(
            f"{name} {1e3 * np.median(times):.1f} ms, length {np.linalg.norm(update):.2f}, worst slope {slopes.min():.2f}"
        )
    return {"values": totals.tolist(), "compile": first, "accuracy": "; ".join(words)}


def ours(folder: Path) -> dict:
    import jax
    import jax.numpy as jnp

    from nablax import regulate

    grads = np.load(folder / "grads.npy")
    stacked = jnp.asarray(grads)
    calls = {}
    for name, method in (("ConFIG", regulate.conflict_free()), ("CAGrad", regulate.cagrad(0.5))):
        state = method.init(jnp.zeros(SIZE))
        step = jax.jit(method.update)
        calls[name] = lambda step=step, state=state: jax.block_until_ready(step(stacked, state)[0])
    return _side(calls, grads)


def peer(folder: Path) -> dict:
    import torch
    from conflictfree.grad_operator import ConFIG_update
    from torchjd.aggregation import CAGrad

    grads = np.load(folder / "grads.npy")
    stacked = torch.tensor(grads)
    cagrad = CAGrad(0.5)
    return _side({"ConFIG": lambda: ConFIG_update(stacked), "CAGrad": lambda: cagrad(stacked)}, grads)
