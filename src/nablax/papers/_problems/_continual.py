"""What papers on learning tasks in sequence share: the tasks, and a small network without biases."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key, require

Weights = tuple[Float[Array, "outputs inputs"], ...]


class Tasks(NamedTuple):
    """A sequence of tasks, on leading axis ``tasks``.

    Attributes:
        inputs: training inputs ``[tasks, samples, 64]``, in units of the standard deviation.
        labels: training labels ``[tasks, samples]``.
        test_inputs: test inputs ``[tasks, samples, 64]``.
        test_labels: test labels ``[tasks, samples]``.
    """

    inputs: Float[Array, "*batch tasks samples pixels"]
    labels: Int[Array, "*batch tasks samples"]
    test_inputs: Float[Array, "*batch tasks samples pixels"]
    test_labels: Int[Array, "*batch tasks samples"]


def permuted_digits(key: Key, *, tasks: int, train: int = 1280) -> Tasks:
    """Make tasks of the 8 by 8 digits whose pixels are permuted, differently in each task but the first.

    Args:
        key: of the permutations and of the split into training and test set.
        tasks: in the sequence.
        train: training samples; the remaining ones of the 1797 test.

    Returns:
        Tasks, drawn within a jitted function too.
    """
    digits = require("sklearn.datasets", extra="app").load_digits()
    labels = jnp.asarray(digits.target, jnp.int32)
    images = jnp.asarray((digits.data - digits.data.mean()) / digits.data.std(), jnp.float32)
    order_key, pixel_key = jax.random.split(key)
    order = jax.random.permutation(order_key, len(images))
    others = jax.vmap(lambda key: jax.random.permutation(key, 64))(jax.random.split(pixel_key, tasks - 1))
    pixels = jnp.concatenate([jnp.arange(64)[None], others])
    views = jnp.moveaxis(images[order][:, pixels], 1, 0)
    classes = jnp.broadcast_to(labels[order], (tasks, len(images)))
    return Tasks(views[:, :train], classes[:, :train], views[:, train:], classes[:, train:])


def initial_weights(key: Key, sizes: tuple[int, ...]) -> Weights:
    """Draw the weights of dense layers without biases, of variance two over the inputs."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(sizes[:-1], sizes[1:])
    return tuple(jax.random.normal(k, (n, m)) * jnp.sqrt(2 / m) for k, (m, n) in zip(keys, pairs))


def layer_inputs(weights: Weights, x: Float[Array, "samples inputs"]) -> tuple[tuple[Array, ...], Array]:
    """What every layer is given, and the logits, of a network of rectified layers."""
    seen = []
    for weight in weights[:-1]:
        seen.append(x)
        x = jax.nn.relu(x @ weight.T)
    return (*seen, x), x @ weights[-1].T


def cross_entropy(weights: Weights, x: Float[Array, "samples inputs"], y: Int[Array, " samples"]) -> Float[Array, ""]:
    """Mean cross-entropy in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(layer_inputs(weights, x)[1], y))


def accuracies(
    weights: Weights, xs: Float[Array, "tasks samples inputs"], ys: Int[Array, "tasks samples"]
) -> Float[Array, " tasks"]:
    """Share of right answers on each task."""
    return jax.vmap(lambda x, y: jnp.mean((layer_inputs(weights, x)[1].argmax(-1) == y).astype(x.dtype)))(xs, ys)
