"""A tree of 500 nodes embedded in the hyperbolic disc, by Riemannian Adam."""

from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "Riemannian Adam: a tree of 500 nodes in the Poincaré disc, 128 pairs a step, a step"
PEER = "geoopt 0.5.1, PoincareBall"
UNIT = "ms of processor time, one thread"
TARGET = "3×, same loss"
BETTER = "lower"
NODES, BATCH, NEGATIVES, STEPS, RATE, REPEATS = 500, 128, 10, 300, 0.01, 3


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    pairs = []
    for node in range(1, NODES):
        above = node
        while above:
            above = (above - 1) // 2
            pairs.append((node, above))
    drawn = np.array(pairs)[random.integers(0, len(pairs), (STEPS, BATCH))]
    others = random.integers(0, NODES, (STEPS, BATCH, NEGATIVES))
    np.savez(
        folder / "case.npz",
        start=random.uniform(-1e-3, 1e-3, (NODES, 2)).astype(np.float32),
        nodes=np.concatenate([drawn, others], axis=2),  # a node, its ancestor, others
    )
    return {}


def ours(folder: Path) -> dict:
    _one_thread.jax_alone()
    import jax
    import jax.numpy as jnp
    import optax

    from nablax import optimize, spaces

    case, disc = np.load(folder / "case.npz"), spaces.PoincareBall(2)
    start, batches = jnp.asarray(case["start"]), jnp.asarray(case["nodes"])
    rule = optimize.riemannian_adam(RATE, disc)
    apart = jax.vmap(jax.vmap(disc.distance, in_axes=(None, 0)))

    def loss(points, nodes):
        far = apart(points[nodes[:, 0]], points[nodes[:, 1:]])
        return jnp.mean(far[:, 0] + jax.nn.logsumexp(-far, axis=1))

    @jax.jit
    def walk(points):
        def one(carry, nodes):
            points, state = carry
            value, slope = jax.value_and_grad(loss)(points, nodes)
            update, state = rule.update(slope, state, points)
            return (optax.apply_updates(points, update), state), value

        return jax.lax.scan(one, (points, rule.init(points)), batches)[1]

    found = []
    (first,) = _one_thread.seconds(lambda: found.append(np.asarray(walk(start))), 1)
    return _said(found[0], _one_thread.seconds(lambda: jax.block_until_ready(walk(start)), REPEATS), first)


def peer(folder: Path) -> dict:
    _one_thread.torch_alone()
    import geoopt
    import torch

    case, found = np.load(folder / "case.npz"), []
    batches, disc = torch.tensor(case["nodes"]), geoopt.PoincareBall()

    def walk() -> None:
        points = geoopt.ManifoldParameter(torch.tensor(case["start"]), manifold=disc)
        rule = geoopt.optim.RiemannianAdam([points], lr=RATE)
        values = []
        for nodes in batches:
            rule.zero_grad()
            far = disc.dist(points[nodes[:, :1]], points[nodes[:, 1:]])
            loss = torch.mean(far[:, 0] + torch.logsumexp(-far, dim=1))
            loss.backward()
            rule.step()
            values.append(loss.detach())
        found.append(torch.stack(values).numpy())

    (first,) = _one_thread.seconds(walk, 1)
    return _said(found[0], _one_thread.seconds(walk, REPEATS), first)


def _said(losses: np.ndarray, seconds: list[float], first: float) -> dict:
    return {
        "values": [1e3 * min(seconds) / STEPS],
        "compile": first,
        "accuracy": f"loss {losses[:20].mean():.3f} to {losses[-20:].mean():.3f} nats",
    }
