"""One check-up of a small causal transformer, in training steps of the same batch."""

import statistics
from pathlib import Path

from ._checkup import timed, timed_steps

TITLE = "whole check-up, two-block transformer of width 64, 32 sequences of 32 bytes"
PEER = "one training step of the same batch (ours)"
UNIT = "ms"
TARGET = "at most 60 steps"
BETTER = "higher"  # so that the ratio is ours over the peer's: how many steps a check-up costs (fewer is better)
ROUNDS, STEPS, WARM = 5, 40, 20
WIDTH, HEADS, BLOCKS, ROWS, LENGTH, SYMBOLS = 64, 4, 2, 32, 32, 128


def _setting():
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    text = np.frombuffer((Path(__file__).parents[1] / "LICENSE").read_bytes(), np.uint8) % SYMBOLS
    begins = np.random.default_rng(0).integers(0, len(text) - LENGTH - 1, ROWS)
    windows = text[begins[:, None] + np.arange(LENGTH + 1)].astype(np.int32)
    batch = (jnp.asarray(windows[:, :-1]), jnp.asarray(windows[:, 1:]))
    keys = iter(jax.random.split(jax.random.key(0), 3 + 4 * BLOCKS))
    normal = lambda *shape: jax.random.normal(next(keys), shape) / shape[0] ** 0.5  # noqa: E731
    model = {
        "symbols": normal(SYMBOLS, WIDTH) * SYMBOLS**0.5,
        "places": normal(LENGTH, WIDTH),
        "head": normal(WIDTH, SYMBOLS),
    }
    shapes = {"attend": (WIDTH, 3 * WIDTH), "mix": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    model["blocks"] = [{name: normal(*shape) for name, shape in shapes.items()} for _ in range(BLOCKS)]

    def normed(x):
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    def logits(model, batch):
        x = model["symbols"][batch[0]] + model["places"][None]
        for block in model["blocks"]:
            q, k, v = (
                part.reshape(*part.shape[:2], HEADS, -1) for part in jnp.split(normed(x) @ block["attend"], 3, axis=-1)
            )
            seen = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + seen.reshape(x.shape) @ block["mix"]
            x = x + jax.nn.gelu(normed(x) @ block["up"]) @ block["down"]
        return normed(x) @ model["head"]

    def loss(model, batch):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(model, batch), batch[1]))

    optimizer = optax.adam(1e-3)
    state = optimizer.init(model)

    @jax.jit
    def step(model, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(model, batch), state, model)
        return optax.apply_updates(model, updates), state

    for _ in range(WARM):
        model, state = step(model, state, batch)
    return model, state, batch, optimizer, loss, logits, step


def ours(folder: Path) -> dict:
    model, state, batch, optimizer, loss, logits, _ = _setting()
    values, compile_time, record = timed(ROUNDS, loss, model, batch, optimizer, state, logits)
    ratio = record.sharpness.ratio
    said = f"ratio {ratio.value:.3f} ± {ratio.standard_error:.3f}"
    return {"values": values, "compile": compile_time, "accuracy": said}


def peer(folder: Path) -> dict:
    model, state, batch, *_, step = _setting()
    values, first = timed_steps(ROUNDS, STEPS, step, model, state, batch)
    return {"values": values, "compile": first, "accuracy": f"median {statistics.median(values):.3g} ms"}
