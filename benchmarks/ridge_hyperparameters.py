"""Gradient of a validation loss in 500 strengths of a ridge regression, by implicit differentiation, double precision."""

import time
from pathlib import Path

import numpy as np

TITLE = "500 ridge hyperparameters by implicit differentiation, x64"
PEER = "jaxopt 0.8.5, custom_root"
UNIT = "ms"
TARGET = "1×, error at most 1e-8"
BETTER = "lower"
ROWS, HELD, WEIGHTS, REPEATS = 1000, 300, 500, 10


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    x, v = random.standard_normal((ROWS, WEIGHTS)), random.standard_normal((HELD, WEIGHTS))
    # Columns of scales from one to a tenth: conditioned as data are.
    x, v = (part * np.geomspace(1, 0.1, WEIGHTS) for part in (x, v))
    w = random.standard_normal(WEIGHTS)
    y, t = (part @ w + random.standard_normal(len(part)) for part in (x, v))
    log = random.uniform(-3, 1, WEIGHTS)
    hessian = x.T @ x + np.diag(np.exp(log))
    fit = np.linalg.solve(hessian, x.T @ y)
    exact = -np.exp(log) * fit * np.linalg.solve(hessian, v.T @ (v @ fit - t))
    np.savez(folder / "ridge.npz", x=x, v=v, y=y, t=t, log=log, exact=exact)
    return {}


def _problem(folder: Path):
    """Arrays, solver and condition, the same for both sides."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    arrays = {name: jnp.asarray(value) for name, value in np.load(folder / "ridge.npz").items()}

    def solve(init, log, x, y):
        return jax.scipy.linalg.solve(x.T @ x + jnp.diag(jnp.exp(log)), x.T @ y, assume_a="pos")

    def condition(w, log, x, y):
        return x.T @ (x @ w - y) + jnp.exp(log) * w

    return arrays, solve, condition


def _timed(solution, arrays, words: str) -> dict:
    import jax
    import jax.numpy as jnp

    def validated(log, x, y, v, t):
        return 0.5 * jnp.sum((v @ solution(jnp.zeros(WEIGHTS), log, x, y) - t) ** 2)

    slope = jax.jit(jax.grad(validated))
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        found = jax.block_until_ready(slope(*(arrays[name] for name in ("log", "x", "y", "v", "t"))))
        times.append(time.perf_counter() - start)
    error = float(jnp.linalg.norm(found - arrays["exact"]) / jnp.linalg.norm(arrays["exact"]))
    return {
        "values": [1e3 * one for one in times[1:]],
        "compile": times[0],
        "accuracy": f"relative error {error:.1e}{words}",
    }


def ours(folder: Path) -> dict:
    arrays, solve, condition = _problem(folder)
    from nablax.estimate import implicit

    return _timed(implicit(solve, condition, symmetric=True), arrays, "")


def peer(folder: Path) -> dict:
    arrays, solve, condition = _problem(folder)
    from jaxopt.implicit_diff import custom_root

    return _timed(custom_root(condition)(solve), arrays, ", its own tolerance")
