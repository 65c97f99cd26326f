"""Ten principal components as an orthonormal frame, by Riemannian Adam."""

from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "Riemannian Adam: 10 principal components of 500 numbers, frames on the Stiefel manifold, a step"
PEER = "geoopt 0.5.1, CanonicalStiefel"
UNIT = "ms of processor time, one thread"
TARGET = "3×, same loss"
BETTER = "lower"
DIM, COUNT, STEPS, RATE, REPEATS = 500, 10, 300, 0.03, 3


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.normal(size=(DIM, DIM)))
    values = np.linspace(1.0, 0.1, DIM) ** 4
    start, _ = np.linalg.qr(random.normal(size=(DIM, COUNT)))
    matrix = turn @ np.diag(values) @ turn.T
    np.savez(folder / "case.npz", matrix=matrix.astype(np.float32), start=start.astype(np.float32), values=values)
    return {}


def ours(folder: Path) -> dict:
    _one_thread.jax_alone()
    import jax
    import jax.numpy as jnp
    import optax

    from nablax import optimize, spaces

    case = np.load(folder / "case.npz")
    matrix, start = jnp.asarray(case["matrix"]), jnp.asarray(case["start"])
    rule = optimize.riemannian_adam(RATE, spaces.Stiefel(DIM, COUNT))

    @jax.jit
    def walk(frame):
        def one(carry, _):
            frame, state = carry
            update, state = rule.update(jax.grad(lambda x: -jnp.sum(x * (matrix @ x)))(frame), state, frame)
            return (optax.apply_updates(frame, update), state), None

        return jax.lax.scan(one, (frame, rule.init(frame)), length=STEPS)[0][0]

    found = []
    (first,) = _one_thread.seconds(lambda: found.append(np.asarray(walk(start))), 1)
    seconds = _one_thread.seconds(lambda: jax.block_until_ready(walk(start)), REPEATS)
    return _said(case, found[0], seconds, first)


def peer(folder: Path) -> dict:
    _one_thread.torch_alone()
    import geoopt
    import torch

    case = np.load(folder / "case.npz")
    matrix, found = torch.tensor(case["matrix"]), []

    def walk() -> None:
        frame = geoopt.ManifoldParameter(torch.tensor(case["start"]), manifold=geoopt.CanonicalStiefel())
        rule = geoopt.optim.RiemannianAdam([frame], lr=RATE)
        for _ in range(STEPS):
            rule.zero_grad()
            (-torch.sum(frame * (matrix @ frame))).backward()
            rule.step()
        found.append(frame.detach().numpy().copy())

    (first,) = _one_thread.seconds(walk, 1)
    return _said(case, found[0], _one_thread.seconds(walk, REPEATS), first)


def _said(case: dict, frame: np.ndarray, seconds: list[float], first: float) -> dict:
    best = case["values"][:COUNT].sum()
    short = 1 - np.sum(frame * (case["matrix"] @ frame)) / best
    apart = np.abs(frame.T @ frame - np.eye(COUNT)).max()
    return {
        "values": [1e3 * min(seconds) / STEPS],
        "compile": first,
        "accuracy": f"short of the most by {short:.1e} of it after {STEPS} steps, columns off by {apart:.0e}",
    }
