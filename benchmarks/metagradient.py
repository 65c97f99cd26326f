"""A metagradient through 4,096 steps of a small net's training, and the same by reverse mode through all of them."""

import time
from pathlib import Path

import numpy as np

TITLE = "metagradient through 4,096 steps, 2.4k parameters, batch 32, x64"
PEER = "jax.grad through the scan (ours has no peer)"
UNIT = "s"
TARGET = "at most 6 forward passes' worth of replay, 32 states; equal to 1e-12"
BETTER = "lower"
STEPS, BATCH, BRANCHING = 4096, 32, 8


def _problem():
    import jax
    import jax.numpy as jnp
    from sklearn.datasets import load_digits

    jax.config.update("jax_enable_x64", True)
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.asarray(images / 16), jnp.asarray(labels)
    random = np.random.default_rng(0)
    params = [jnp.asarray(random.standard_normal((a, b)) / np.sqrt(a)) for a, b in ((64, 32), (32, 10))]

    def loss(params, images, labels):
        scores = jax.nn.log_softmax(jnp.tanh(images @ params[0]) @ params[1])
        return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))

    def update(params, rates, step):
        rows = jax.random.randint(jax.random.fold_in(jax.random.key(0), step), (BATCH,), 0, len(images))
        slope = jax.grad(loss)(params, images[rows], labels[rows])
        return jax.tree.map(lambda p, g: p - rates[step // 256] * g, params, slope)

    def metric(params, rates):
        return loss(params, images, labels)

    return params, jnp.full(STEPS // 256, 0.05), update, metric


def _side(gradient, params, rates, folder: Path, words: str) -> dict:
    import jax

    start = time.perf_counter()
    compiled = jax.jit(gradient).lower(rates, params).compile()
    first = time.perf_counter() - start
    states = compiled.memory_analysis().temp_size_in_bytes / sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    start = time.perf_counter()
    value, slope = jax.block_until_ready(compiled(rates, params))
    took = time.perf_counter() - start
    kept = folder / "slope.npy"
    if not kept.exists():
        np.save(kept, slope)
    other = np.load(kept)
    apart = np.linalg.norm(slope - other) / np.linalg.norm(other)
    return {
        "values": [took],
        "compile": first,
        "accuracy": f"memory of {states:.0f} states{words}, {apart:.0e} from the first result",
    }


def ours(folder: Path) -> dict:
    params, rates, update, metric = _problem()
    from nablax.estimate import metagradient

    levels = round(np.log(STEPS) / np.log(BRANCHING))  # a power of it
    through = metagradient(update, metric, steps=STEPS, branching=BRANCHING)
    return _side(
        through,
        params,
        rates,
        folder,
        f", {(BRANCHING - 1) * levels + 1} of them the tree's, {(1 - 1 / BRANCHING) * levels:.1f} trainings replayed",
    )


def peer(folder: Path) -> dict:
    import jax
    import jax.numpy as jnp

    params, rates, update, metric = _problem()

    def unrolled(rates, params):
        last = jax.lax.scan(lambda p, step: (update(p, rates, step), None), params, jnp.arange(STEPS))[0]
        return metric(last, rates)

    return _side(jax.value_and_grad(unrolled), params, rates, folder, "")
