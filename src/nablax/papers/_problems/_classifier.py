"""Small classifiers of the digits and of clusters of points, whose Hessians several papers look at."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key, require


def digits() -> tuple[Float[Array, "images 64"], Int[Array, " images"]]:
    """The 1797 images of 8 × 8 pixels in [0, 1], and what they show."""
    images, labels = require("sklearn.datasets", extra="app").load_digits(return_X_y=True)
    return jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels, jnp.int32)


def split_digits(key: Key, train: int) -> tuple[Array, Array, Array, Array]:
    """The digits in an order drawn with the key: images and labels to train on, and all the others."""
    images, labels = digits()
    order = jax.random.permutation(key, len(images))
    images, labels = images[order], labels[order]
    return images[:train], labels[:train], images[train:], labels[train:]


def pooled_digits(full: bool = False) -> tuple[Float[Array, "images pixels"], Int[Array, " images"]]:
    """The digits averaged over blocks of 2 × 2 pixels, so that a network has few parameters; in full as they are."""
    images, labels = digits()
    return images if full else images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16), labels


def network(key: Key, sizes: Sequence[int]) -> PyTree:
    """Weights and biases of a dense network."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (fan_in, out)) / jnp.sqrt(jnp.float32(fan_in)), jnp.zeros(out))
        for k, fan_in, out in zip(keys, sizes, sizes[1:])
    ]


def logits(params: PyTree, inputs: Float[Array, "batch inputs"]) -> Float[Array, "batch classes"]:
    """Hidden layers of tanh units."""
    *hidden, (weight, bias) = params
    for inner, shift in hidden:
        inputs = jnp.tanh(inputs @ inner + shift[None])
    return inputs @ weight + bias[None]


def cross_entropy(scores: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, ""]:
    """Mean over the batch, nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, labels))


def loss(params: PyTree, inputs: Float[Array, "batch inputs"], labels: Int[Array, " batch"]) -> Float[Array, ""]:
    """Cross-entropy of the network."""
    return cross_entropy(logits(params, inputs), labels)
