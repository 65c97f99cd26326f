"""Exact log-likelihood of 2 000 points in the plane."""

import time
from pathlib import Path

import numpy as np

from . import _plane

TITLE = "exact log-likelihood of 2k points, 2-D"
PEER = "flow_matching 1.0.10 with torchdiffeq 0.2.5"
UNIT = "s"
TARGET = "4×"
BETTER = "lower"
COUNT, TOLERANCE, REPEATS = 2_000, 1e-5, 5
PANELS = {2: 32, 64: 8}  # as many as bring the error of a row to the peer's


def prepare(folder: Path, dim: int = 2) -> dict:
    if dim == 2:
        data = _plane.eight_gaussians(12_000, 0)
    else:
        random = np.random.default_rng(0)
        mix = random.standard_normal((dim, dim)) / np.sqrt(dim)
        data = np.tanh(random.standard_normal((12_000, dim)) @ mix).astype(np.float32)
    _plane.save_weights(_plane.train(dim, data[COUNT:]), folder, "field")
    np.save(folder / "points.npy", data[:COUNT])
    transport, points = _problem(folder, dim)
    np.save(folder / "truth.npy", transport.log_prob(points, panels=8 * PANELS[dim]).value)
    return {}


def _problem(folder: Path, dim: int):
    import jax.numpy as jnp

    from nablax.spaces import Euclidean
    from nablax.transport import Linear, Normal, Transport

    transport = Transport(_plane.our_field(folder, "field", dim), Linear(), Normal((dim,)), Euclidean((dim,)))
    return transport, jnp.asarray(np.load(folder / "points.npy"))


def _accuracy(folder: Path, value: np.ndarray) -> str:
    error = np.sqrt(np.mean((np.asarray(value) - np.load(folder / "truth.npy")) ** 2))
    return f"mean {value.mean():.4f} nats, RMS error of a row {error:.4f}"


def ours(folder: Path, dim: int = 2) -> dict:
    transport, points = _problem(folder, dim)

    from nablax.follow import Solver

    solver = Solver(rtol=TOLERANCE, atol=TOLERANCE)

    def run():
        result = transport.log_prob(points, divergence="exact", panels=PANELS[dim], solver=solver)
        return result.value.block_until_ready()

    start = time.perf_counter()
    value = run()
    first, times = time.perf_counter() - start, []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {"values": times, "compile": first, "accuracy": _accuracy(folder, value)}


def peer(folder: Path, dim: int = 2, repeats: int = REPEATS) -> dict:
    import torch
    from flow_matching.solver import ODESolver

    solver = ODESolver(velocity_model=_plane.peer_field(folder, "field", dim))
    points = torch.tensor(np.load(folder / "points.npy"))
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(dim), torch.ones(dim)), 1)

    def run():
        return (
            solver.compute_likelihood(
                x_1=points,
                log_p0=prior.log_prob,
                step_size=None,
                method="dopri5",
                atol=TOLERANCE,
                rtol=TOLERANCE,
                exact_divergence=True,
            )[1]
            .detach()
            .numpy()
        )

    start = time.perf_counter()
    value = run()
    first, times = time.perf_counter() - start, []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {"values": times, "compile": first, "accuracy": _accuracy(folder, value)}
