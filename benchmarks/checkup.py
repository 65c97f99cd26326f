"""A whole check-up against one training step at the same batch; the peer is our own training step."""

import statistics
from pathlib import Path

from ._checkup import timed, timed_steps

TITLE = "whole check-up, 16.5k-parameter classifier, batch 512"
PEER = "one training step of the same batch (ours)"
UNIT = "ms"
TARGET = "at most 60 steps"
BETTER = "higher"  # so that the ratio is ours over the peer's: how many steps a check-up costs (fewer is better)
ROUNDS, STEPS = 7, 200


def _setting():
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(512, 64)), jnp.float32)
    y = jnp.asarray(random.integers(0, 10, size=512))
    model = eqx.nn.MLP(64, 10, 96, 2, key=jax.random.key(0))
    optimizer = optax.adam(1e-3)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    def logits(model, batch):
        return jax.vmap(model)(batch[0])

    def loss(model, batch):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(model, batch), batch[1]))

    @eqx.filter_jit
    def step(model, state, batch):
        gradient = eqx.filter_grad(loss)(model, batch)
        updates, state = optimizer.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state

    for _ in range(20):
        model, state = step(model, state, (x, y))
    return model, state, (x, y), optimizer, loss, logits, step


def ours(folder: Path) -> dict:
    model, state, batch, optimizer, loss, logits, _ = _setting()
    values, compile_time, record = timed(ROUNDS, loss, model, batch, optimizer, state, logits)
    ratio, noise = record.sharpness.ratio, record.noise
    found = noise.preconditioned
    scale = f"{found.value:.0f} ± {found.standard_error:.0f}" if noise.resolved else f"at least {noise.at_least:.0f}"
    said = f"ratio {ratio.value:.3f} ± {ratio.standard_error:.3f}, noise scale {scale}"
    return {"values": values, "compile": compile_time, "accuracy": said}


def peer(folder: Path) -> dict:
    model, state, batch, *_, step = _setting()
    values, first = timed_steps(ROUNDS, STEPS // ROUNDS, step, model, state, batch)
    return {"values": values, "compile": first, "accuracy": f"median {statistics.median(values):.3g} ms"}
