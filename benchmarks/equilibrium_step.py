"""Steps of equilibrium propagation with a nudge on either side, as many updates for both, digits."""

from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "equilibrium-propagation step, nudges ±0.5, digits 64-64-10, batch 32, 100 + 20 updates"
PEER = "torch 2.13.0, a plain loop without autograd, both nudges in one batch"
UNIT = "ms of processor time, one thread"
TARGET = "3×"
BETTER = "lower"
SIZES, BATCH, FREE, NUDGED, NUDGE, STEP, RATE, STEPS = (64, 64, 10), 32, 100, 20, 0.5, 0.5, 0.1, 300


def prepare(folder: Path) -> dict:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    arrays = {}
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        arrays[f"weight{i}"] = (random.uniform(-1, 1, (b, a)) / np.sqrt(a)).astype(np.float32)
        arrays[f"bias{i}"] = np.zeros(b, np.float32)
    rows = random.integers(0, len(images), (STEPS, BATCH))
    np.savez(
        folder / "case.npz",
        images=(images / 16).astype(np.float32)[rows],
        targets=np.eye(SIZES[-1], dtype=np.float32)[labels][rows],
        **arrays,
    )
    return {}


def ours(folder: Path) -> dict:
    _one_thread.jax_alone()
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from nablax import estimate, follow

    arrays = {name: jnp.asarray(value) for name, value in np.load(folder / "case.npz").items()}
    layers = []
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:])):
        layer = eqx.nn.Linear(a, b, key=jax.random.key(0))
        parts = (arrays[f"weight{i}"], arrays[f"bias{i}"])
        layers.append(eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, parts))
    net = estimate.Equilibrium(layers, activation="sigmoid", step=STEP, steps=FREE)

    def loss(net, batch):
        return 0.5 * jnp.mean(jnp.sum((net(batch[0]) - batch[1]) ** 2, axis=1))

    optimizer = optax.sgd(RATE)
    step = follow.train_step(
        loss,
        optimizer,
        value_and_grad=lambda loss: estimate.equilibrium_gradient(loss, nudge=NUDGE, steps=NUDGED),
    )

    @jax.jit
    def train(net, batches):
        def one(carry, batch):
            *carry, value = step(*carry, batch)
            return tuple(carry), value

        (net, _), values = jax.lax.scan(one, (net, optimizer.init(net)), batches)
        return net, values

    batches, compiled = (arrays["images"], arrays["targets"]), []
    (compiling,) = _one_thread.seconds(lambda: compiled.append(train.lower(net, batches).compile()), 1)
    trained, values = compiled[0](net, batches)
    times = _one_thread.seconds(lambda: jax.block_until_ready(compiled[0](net, batches)), 3)
    return _result(times, compiling, np.asarray(values), np.asarray(trained.layers[0].weight))


def peer(folder: Path) -> dict:
    _one_thread.torch_alone()
    import torch

    arrays = {name: torch.tensor(value) for name, value in np.load(folder / "case.npz").items()}

    def settled(u, v, drive, weight, bias, updates, force=None):
        """Hidden and output units on their way to rest; what the input drives does not change."""
        for _ in range(updates):
            a, b = u.sigmoid(), v.sigmoid()
            u_drive = torch.addmm(drive, b, weight)
            v_drive = torch.addmm(bias, a, weight.T)
            if force is not None:
                v_drive = v_drive - force[0] * (b - force[1])
            u, v = u.lerp(u_drive, STEP), v.lerp(v_drive, STEP)
        return u, v

    @torch.no_grad()
    def train():
        lower, upper = arrays["weight0"].clone(), arrays["weight1"].clone()
        low, high = arrays["bias0"].clone(), arrays["bias1"].clone()
        nudges = torch.tensor([NUDGE, -NUDGE]).repeat_interleave(BATCH)[:, None]
        values = []
        for x, y in zip(arrays["images"], arrays["targets"]):
            drive = torch.addmm(low, x, lower.T)
            u, v = x.new_zeros(BATCH, SIZES[1]), x.new_zeros(BATCH, SIZES[2])
            u, v = settled(u, v, drive, upper, high, FREE)
            values.append(0.5 * ((v.sigmoid() - y) ** 2).sum(1).mean())
            u, v, drive, y = (part.repeat(2, 1) for part in (u, v, drive, y))
            u, v = settled(u, v, drive, upper, high, NUDGED, (nudges, y))
            # Of the potential's slopes the difference, over the distance of the nudges; the sign as in the paper.
            a, b = u.sigmoid(), v.sigmoid()
            scale = RATE / (2 * NUDGE * BATCH)
            (a_up, a_down), (b_up, b_down) = a.split(BATCH), b.split(BATCH)
            low += scale * (a_up - a_down).sum(0)
            high += scale * (b_up - b_down).sum(0)
            lower += scale * (a_up - a_down).T @ x
            upper += scale * (b_up.T @ a_up - b_down.T @ a_down)
        return torch.stack(values), lower

    values, lower = train()
    return _result(_one_thread.seconds(train, 3), 0.0, values.numpy(), lower.numpy())


def _result(times: list[float], first: float, values: np.ndarray, weight: np.ndarray) -> dict:
    words = f"loss {values[0]:.5f} to {values[-20:].mean():.5f}, norm of the first layer {np.linalg.norm(weight):.5f}"
    return {"values": [1e3 * min(times) / STEPS], "compile": first, "accuracy": words}
