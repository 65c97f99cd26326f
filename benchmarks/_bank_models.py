"""The models of the bank of runs: small enough that hundreds of them train in minutes, unlike enough to disagree."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

CLASSES, SYMBOLS, LENGTH = 10, 64, 16


class Model(NamedTuple):
    """A model and its data.

    Attributes:
        start: key -> parameters; the first entry is the one that a run may freeze.
        data: random generator, settings of the run -> (arrays with rows, the loss of a model that knows nothing).
        loss: (parameters, batch) -> scalar.
        draw: (key, arrays, rows) -> batch; None to take rows at random.
        logits: of a cross-entropy.
        losses: several losses by name.
        floor: arrays -> the loss that no parameters can go below.
        head: name of the last weights.
    """

    start: Callable
    data: Callable
    loss: Callable
    head: str
    draw: Callable | None = None
    logits: Callable | None = None
    losses: Any = None
    floor: Callable = lambda arrays: 0.0


def dense(key, sizes, dtype=jnp.float32):
    """Weights of He's scale and no biases yet, layer by layer."""
    params = {}
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        key, draw = jax.random.split(key)
        params[f"w{i}"] = (jax.random.normal(draw, (a, b)) * (2 / a) ** 0.5).astype(dtype)
        params[f"b{i}"] = jnp.zeros(b, dtype)
    return params


def layers(params, x, act):
    depth = len(params) // 2
    for i in range(depth):
        x = x @ params[f"w{i}"] + params[f"b{i}"][None]
        x = act(x) if i < depth - 1 else x
    return x


def cross_entropy(logits):
    def loss(params, batch):
        values = logits(params, batch).astype(jnp.float32)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(values, batch[1]))

    return loss


def digits(random, noise):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = random.permutation(len(images))[:1024]
    x, y = (images[order] / 8 - 1).astype(np.float32), labels[order].astype(np.int32)
    wrong = random.random(len(y)) < noise
    return x, np.where(wrong, random.integers(0, CLASSES, len(y)), y).astype(np.int32)


def plain(random, settings):
    return digits(random, settings["label_noise"]), np.log(CLASSES)


def mlp(dtype=jnp.float32):
    def logits(params, batch):
        return layers(params, batch[0].astype(dtype), jax.nn.relu)

    start = lambda key: dense(key, (64, 32, 32, CLASSES), dtype)  # noqa: E731
    return Model(start, plain, cross_entropy(logits), "w2", logits=logits)


def cnn():
    """Convolutions as sums of shifted products, which many runs at once can share."""

    def convolve(x, w):
        high, wide = x.shape[1] - 2, x.shape[2] - 2
        return sum(x[:, i : i + high, j : j + wide] @ w[i, j] for i in range(3) for j in range(3))

    def start(key):
        a, b, c = jax.random.split(key, 3)
        return {
            "w0": jax.random.normal(a, (3, 3, 1, 8)) * (2 / 9) ** 0.5,
            "b0": jnp.zeros(8),
            "w1": jax.random.normal(b, (3, 3, 8, 16)) * (2 / 72) ** 0.5,
            "b1": jnp.zeros(16),
            "w2": jax.random.normal(c, (64, CLASSES)) * (2 / 64) ** 0.5,
            "b2": jnp.zeros(CLASSES),
        }

    def logits(params, batch):
        x = batch[0].reshape(-1, 8, 8, 1)
        x = jax.nn.relu(convolve(x, params["w0"]) + params["b0"][None, None, None])
        x = jax.nn.relu(convolve(x, params["w1"]) + params["b1"][None, None, None])
        x = x.reshape(-1, 2, 2, 2, 2, 16).mean((2, 4)).reshape(-1, 64)
        return x @ params["w2"] + params["b2"][None]

    return Model(start, plain, cross_entropy(logits), "w2", logits=logits)


def recurrent():
    """A plain recurrent network that reads a digit in sixteen pieces."""

    def start(key):
        a, b, c = jax.random.split(key, 3)
        return {
            "w0": jax.random.normal(a, (4, 24)) * 0.5,
            "w1": jax.random.normal(b, (24, 24)) / 24**0.5,
            "b1": jnp.zeros(24),
            "w2": jax.random.normal(c, (24, CLASSES)) / 24**0.5,
            "b2": jnp.zeros(CLASSES),
        }

    def logits(params, batch):
        def step(state, x):
            return jnp.tanh(x @ params["w0"] + state @ params["w1"] + params["b1"][None]), None

        state = jnp.zeros((batch[0].shape[0], 24))
        state, _ = jax.lax.scan(step, state, jnp.moveaxis(batch[0], 1, 0))
        return state @ params["w2"] + params["b2"][None]

    def data(random, settings):
        x, y = digits(random, settings["label_noise"])
        return (x.reshape(-1, LENGTH, 4), y), np.log(CLASSES)

    return Model(start, data, cross_entropy(logits), "w2", logits=logits)


def transformer():
    """One block on the bytes of this repository's licence, next byte."""
    from pathlib import Path

    width, heads = 16, 2

    def start(key):
        keys = jax.random.split(key, 6)
        normal = lambda key, *shape: jax.random.normal(key, shape) / shape[0] ** 0.5  # noqa: E731
        return {
            "w0": jax.random.normal(keys[0], (SYMBOLS, width)),
            "place": 0.1 * jax.random.normal(keys[1], (LENGTH, width)),
            "attend": normal(keys[2], width, 3 * width),
            "mix": normal(keys[3], width, width),
            "w1": normal(keys[4], width, 32),
            "b1": jnp.zeros(32),
            "w2": normal(keys[5], 32, width),
            "w3": normal(keys[1], width, SYMBOLS),
        }

    def normed(x):
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    def logits(params, batch):
        x = params["w0"][batch[0]] + params["place"][None]
        q, k, v = jnp.split(normed(x) @ params["attend"], 3, axis=-1)
        split = lambda a: a.reshape(*a.shape[:2], heads, -1)  # noqa: E731
        x = (
            x
            + jax.nn.dot_product_attention(split(q), split(k), split(v), is_causal=True).reshape(x.shape)
            @ params["mix"]
        )
        x = x + jax.nn.gelu(normed(x) @ params["w1"] + params["b1"][None, None]) @ params["w2"]
        return normed(x) @ params["w3"]

    def data(random, settings):
        text = (Path(__file__).parents[1] / "LICENSE").read_bytes()[:4096]
        _, symbols = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
        symbols = np.minimum(symbols, SYMBOLS - 1).astype(np.int32)
        begins = random.integers(0, len(symbols) - LENGTH - 1, 1024)
        windows = symbols[begins[:, None] + np.arange(LENGTH + 1)]
        wrong = random.random((1024, LENGTH)) < settings["label_noise"]
        y = np.where(wrong, random.integers(0, SYMBOLS, (1024, LENGTH)), windows[:, 1:])
        share = np.bincount(y.ravel(), minlength=SYMBOLS) / y.size
        chance = -np.sum(share[share > 0] * np.log(share[share > 0]))
        return (windows[:, :-1], y.astype(np.int32)), chance

    return Model(start, data, cross_entropy(logits), "w3", logits=logits)


def physics():
    """The heat equation's residual, boundary and start; arrays of unequal lengths."""

    def field(params, t, x):
        return layers(params, jnp.stack([t, x])[None], jnp.tanh)[0, 0]

    def residual(params, batch):
        def one(point):
            t, x = point
            u = lambda x: field(params, t, x)  # noqa: E731
            slope = lambda x: jax.jvp(u, (x,), (1.0,))[1]  # noqa: E731
            return jax.jvp(lambda t: field(params, t, x), (t,), (1.0,))[1] - 0.1 * jax.jvp(slope, (x,), (1.0,))[1]

        return jnp.mean(jax.vmap(one)(batch["inside"]) ** 2)

    def boundary(params, batch):
        return jnp.mean(jax.vmap(lambda p: field(params, p[0], p[1]))(batch["edge"]) ** 2)

    def begin(params, batch):
        values = jax.vmap(lambda p: field(params, p[0], p[1]))(batch["start"])
        return jnp.mean((values - jnp.sin(jnp.pi * batch["start"][:, 1])) ** 2)

    def loss(params, batch):
        return residual(params, batch) + boundary(params, batch) + begin(params, batch)

    def data(random, settings):
        count = 512
        inside = random.random((count, 2)).astype(np.float32)
        edge = np.stack([random.random(count), random.integers(0, 2, count)], 1).astype(np.float32)
        start = np.stack([np.zeros(count), random.random(count)], 1).astype(np.float32)
        # Of constants the best is half of the start's mean, which pays as much at the boundary.
        wave = np.sin(np.pi * start[:, 1])
        return {"inside": inside, "edge": edge, "start": start}, float(np.mean(wave**2) - np.mean(wave) ** 2 / 2)

    def draw(key, arrays, rows):
        chosen = {"inside": rows, "edge": rows // 2, "start": rows // 4}
        return {
            name: jnp.take(arrays[name], jax.random.randint(jax.random.fold_in(key, i), (count,), 0, 512), axis=0)
            for i, (name, count) in enumerate(chosen.items())
        }

    losses = {"residual": residual, "boundary": boundary, "begin": begin}
    return Model(lambda key: dense(key, (2, 16, 16, 1)), data, loss, "w2", draw=draw, losses=losses)


def multitask():
    """One output for two targets whose correlation is known: their gradients' cosine, at first."""

    def one(k):
        def loss(params, batch):
            return jnp.mean((layers(params, batch[0], jnp.tanh)[:, 0] - batch[1][:, k]) ** 2)

        return loss

    first, second = one(0), one(1)

    def data(random, settings):
        x = random.normal(size=(1024, 8)).astype(np.float32)
        a, b = (np.sin(x @ random.normal(size=8)) for _ in range(2))
        a, b = a / a.std(), b / b.std()
        c = settings["target_cosine"]
        targets = np.stack([a, c * a + (1 - c**2) ** 0.5 * b], 1).astype(np.float32)
        return (x, targets), float(np.sum(targets.var(0)))

    def floor(arrays):
        targets = np.asarray(arrays[1])
        return float(np.mean(np.sum((targets - targets.mean(1, keepdims=True)) ** 2, 1)))

    loss = lambda params, batch: first(params, batch) + second(params, batch)  # noqa: E731
    losses = {"first": first, "second": second}
    return Model(lambda key: dense(key, (8, 32, 1)), data, loss, "w1", losses=losses, floor=floor)


def flow():
    """Flow matching onto two moons; time and noise are drawn with the data."""

    def loss(params, batch):
        end, start, t = batch
        x = t[:, None] * end + (1 - t[:, None]) * start
        moved = layers(params, jnp.concatenate([x, t[:, None]], 1), jax.nn.silu)
        return jnp.mean(jnp.sum((moved - (end - start)) ** 2, axis=1))

    def data(random, settings):
        from sklearn.datasets import make_moons

        end = make_moons(1024, noise=0.1, random_state=int(random.integers(1 << 30)))[0]
        end = (2 * (end - end.mean(0)) / end.std(0)).astype(np.float32)
        start, t = random.normal(size=(1024, 2)).astype(np.float32), random.random(1024).astype(np.float32)
        return (end, start, t), float(np.sum((end - start).var(0)))

    return Model(lambda key: dense(key, (3, 32, 32, 2)), data, loss, "w2")


MODELS = {
    "mlp": mlp,
    "mlp, bfloat16": lambda: mlp(jnp.bfloat16),
    "cnn": cnn,
    "recurrent": recurrent,
    "transformer": transformer,
    "physics": physics,
    "multitask": multitask,
    "flow": flow,
}
