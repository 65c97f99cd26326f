"""10 000 samples by an adaptive solver: one error norm for the batch."""

import time
from pathlib import Path

import numpy as np

from . import _plane

TITLE = "adaptive sampling, same network, tolerance 1e-5, 10k points"
PEER = "flow_matching 1.0.10 with torchdiffeq 0.2.5"
UNIT = "s"
TARGET = "2×"
BETTER = "lower"
COUNT, TOLERANCE, REPEATS = 10_000, 1e-5, 7
PER_SAMPLE = False


def prepare(folder: Path) -> dict:
    _plane.save_weights(_plane.train(2, _plane.eight_gaussians(10_000, 0)), folder, "plane")
    np.save(folder / "noise.npy", np.random.default_rng(1).standard_normal((COUNT, 2)).astype(np.float32))
    return {}


def _reference(folder: Path) -> np.ndarray:
    """The same network in double precision at a far smaller tolerance."""
    from scipy.integrate import solve_ivp

    arrays = np.load(folder / "plane.npz")

    def velocity(t, flat):
        h = np.concatenate([flat.reshape(-1, 2), np.full((len(flat) // 2, 1), t)], axis=1)
        for i in range(_plane.LAYERS):
            h = h @ arrays[f"weight{i}"].T.astype(float) + arrays[f"bias{i}"]
            h = 1.0507009873554805 * np.where(h > 0, h, 1.6732632423543772 * np.expm1(np.minimum(h, 0)))
        last = _plane.LAYERS
        return (h @ arrays[f"weight{last}"].T + arrays[f"bias{last}"]).ravel()

    noise = np.load(folder / "noise.npy")[:200].astype(float)
    return solve_ivp(velocity, (0, 1), noise.ravel(), rtol=1e-9, atol=1e-9).y[:, -1].reshape(-1, 2)


def _summary(times: list[float], first: float, ends: np.ndarray, folder: Path, note: str = "") -> dict:
    error = float(np.sqrt(np.mean(np.square(ends[:200] - _reference(folder)))))
    return {"values": times, "compile": first, "accuracy": f"error {error:.1e}{note}"}


def ours(folder: Path, per_sample: bool = PER_SAMPLE) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from nablax.follow import Solver, flow

    field = _plane.our_field(folder, "plane", 2)
    noise = jnp.asarray(np.load(folder / "noise.npy"))

    @eqx.filter_jit
    def run(field, noise):
        def solve(velocity, y0):
            return flow(velocity, y0, 0.0, 1.0, solver=Solver(rtol=TOLERANCE, atol=TOLERANCE)).ys

        if per_sample:
            return jax.vmap(lambda y0: solve(field, y0))(noise)
        return solve(lambda t, ys, args: jax.vmap(lambda y: field(t, y, None))(ys), noise)

    start = time.perf_counter()
    ends = run(field, noise).block_until_ready()
    first, times = time.perf_counter() - start, []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(field, noise).block_until_ready()
        times.append(time.perf_counter() - start)
    return _summary(times, first, np.asarray(ends), folder)


def peer(folder: Path) -> dict:
    import torch
    from flow_matching.solver import ODESolver

    solver = ODESolver(velocity_model=_plane.peer_field(folder, "plane", 2))
    noise = torch.tensor(np.load(folder / "noise.npy"))

    def run():
        with torch.no_grad():
            return solver.sample(
                x_init=noise,
                step_size=None,
                method="dopri5",
                atol=TOLERANCE,
                rtol=TOLERANCE,
                time_grid=torch.tensor([0.0, 1.0]),
            )

    start = time.perf_counter()
    ends = run()
    first, times = time.perf_counter() - start, []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return _summary(times, first, ends.numpy(), folder)
