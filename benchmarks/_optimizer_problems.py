"""The problems on which optimisers stand side by side, from two numbers to a transformer on text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._bank_models import cnn as small_cnn
from ._bank_models import cross_entropy, dense, layers

WIDTH, HEADS, LENGTH = 32, 2, 16


class Problem(NamedTuple):
    """What is to be minimised.

    Attributes:
        title: in a few words.
        start: key -> parameters.
        loss: (parameters, batch) -> scalar.
        arrays: all rows to train on, arrays of one length; None where the loss has no data.
        rows: of a batch.
        steps: of a run.
        judged: rows on which the loss is judged, the same for every run; all of them where None.
        rate: the rate of plain gradient descent round which its grid lies; of the other rules it is their own.
        known: loss that cannot be gone below.
    """

    title: str
    start: Callable[[Any], Any]
    loss: Callable[[Any, Any], Any]
    arrays: Any = None
    rows: int = 1
    steps: int = 300
    judged: int | None = None
    rate: float = 0.1
    known: float = 0.0

    def batch(self, key: Any) -> Any:
        """Rows drawn at random, with repetition."""
        if self.arrays is None:
            return ()
        chosen = jax.random.randint(key, (self.rows,), 0, len(jax.tree.leaves(self.arrays)[0]))
        return jax.tree.map(lambda rows: rows[chosen], self.arrays)

    def judge(self, params: Any) -> Any:
        """The loss on the rows that are judged."""
        rows = jax.tree.map(lambda array: array[: self.judged], self.arrays)
        return self.loss(params, () if self.arrays is None else rows) - self.known


def quadratic() -> Problem:
    """Curvatures from 1e-3 to 1 along axes turned at random."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))
    hessian = jnp.asarray(turn @ np.diag(np.logspace(-3, 0, 20)) @ turn.T, jnp.float32)
    return Problem(
        "quadratic, condition 1,000, turned",
        lambda key: {"x": jax.random.normal(key, (20,))},
        lambda params, batch: params["x"] @ hessian @ params["x"] / 2,
        steps=500,
        rate=1.0,
    )


def rosenbrock() -> Problem:
    """The valley of two numbers, from (-1.2, 1) and a little about it."""

    def loss(params, batch):
        x, y = params["x"][0], params["x"][1]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    return Problem(
        "Rosenbrock, two numbers",
        lambda key: {"x": jnp.array([-1.2, 1.0]) + 0.1 * jax.random.normal(key, (2,))},
        loss,
        steps=1000,
        rate=1e-3,
    )


def logistic() -> Problem:
    """Breast cancer, columns as they come but for their mean, which leaves them badly scaled; a little weight decay."""
    from sklearn.datasets import load_breast_cancer

    columns, labels = load_breast_cancer(return_X_y=True)
    x = (columns - columns.mean(0)) / np.sqrt(columns.std(0))
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(2 * labels - 1, jnp.float32)

    def loss(params, batch):
        margins = batch[1] * (batch[0] @ params["w"] + params["b"])
        return jnp.mean(jax.nn.softplus(-margins)) + 1e-3 * jnp.sum(params["w"] ** 2)

    return Problem(
        "logistic regression, 30 columns, badly scaled",
        lambda key: {"w": 0.01 * jax.random.normal(key, (30,)), "b": jnp.zeros(())},
        loss,
        arrays,
        rows=32,
        steps=500,
        rate=1e-2,
    )


def _digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images / 8 - 1, jnp.float32), jnp.asarray(labels, jnp.int32)


def network() -> Problem:
    """Two layers on the digits, 64 hidden units."""
    loss = cross_entropy(lambda params, batch: layers(params, batch[0], jnp.tanh))
    return Problem("digits, two-layer net", lambda key: dense(key, (64, 64, 10)), loss, _digits(), rows=64)


def convolution() -> Problem:
    """Two convolutions and a linear layer on the digits."""
    model = small_cnn()
    return Problem("digits, small convolution", model.start, model.loss, _digits(), rows=64, judged=512)


def transformer() -> Problem:
    """Two blocks on the bytes of this repository's licence, next byte."""
    text = (Path(__file__).parents[1] / "LICENSE").read_bytes()
    values, symbols = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    begins = np.random.default_rng(0).permutation(len(symbols) - LENGTH - 1)
    windows = jnp.asarray(symbols[begins[:, None] + np.arange(LENGTH + 1)], jnp.int32)

    def start(key):
        keys = iter(jax.random.split(key, 20))
        normal = lambda *shape: jax.random.normal(next(keys), shape) / shape[0] ** 0.5  # noqa: E731
        blocks = [
            {
                "attend": normal(WIDTH, 3 * WIDTH),
                "mix": normal(WIDTH, WIDTH),
                "up": normal(WIDTH, 4 * WIDTH),
                "down": normal(4 * WIDTH, WIDTH),
            }
            for _ in range(2)
        ]
        place, symbols = (
            jax.random.normal(next(keys), (LENGTH, WIDTH)),
            jax.random.normal(next(keys), (len(values), WIDTH)),
        )
        return {"symbols": symbols, "place": 0.1 * place, "blocks": blocks, "head": normal(WIDTH, len(values))}

    def normed(x):
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    def logits(params, batch):
        x = params["symbols"][batch[0]] + params["place"][None]
        for block in params["blocks"]:
            split = (*x.shape[:2], HEADS, -1)
            query, key, value = (part.reshape(split) for part in jnp.split(normed(x) @ block["attend"], 3, axis=-1))
            mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True).reshape(x.shape)
            x = x + mixed @ block["mix"]
            x = x + jax.nn.gelu(normed(x) @ block["up"]) @ block["down"]
        return normed(x) @ params["head"]

    return Problem(
        "text by bytes, small transformer",
        start,
        cross_entropy(logits),
        (windows[:, :-1], windows[:, 1:]),
        rows=16,
        judged=64,
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": quadratic,
    "rosenbrock": rosenbrock,
    "logistic": logistic,
    "network": network,
    "convolution": convolution,
    "transformer": transformer,
}

# Whose parameters are vectors.
VECTORS = ("quadratic", "rosenbrock", "logistic")

__all__ = ["PROBLEMS", "VECTORS", "Problem"]
