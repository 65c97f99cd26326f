"""Images whose class is one planted pattern among noise, and a small convolutional network that reads them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Array, Float

from ..._core import Key
from ...follow import fit

SIDE, CLASSES = 10, 4
_CHANNELS = 8


class Planted(NamedTuple):
    """Images [n, side, side, 1], what they show [n], and where [n, side, side]."""

    images: np.ndarray
    labels: np.ndarray
    where: np.ndarray


class Reader(eqx.Module):
    """Three 3×3 convolutions with ReLU, a mean over places, and a linear layer."""

    kernels: tuple[Array, ...]
    weights: Array

    def __init__(self, key: Key):
        keys = jax.random.split(key, 4)
        inputs = (1, _CHANNELS, _CHANNELS)
        self.kernels = tuple(
            jax.random.normal(k, (3, 3, n, _CHANNELS)) * jnp.sqrt(2 / (9 * n)) for k, n in zip(keys[:3], inputs)
        )
        self.weights = jax.random.normal(keys[3], (_CHANNELS, CLASSES)) / jnp.sqrt(jnp.float32(_CHANNELS))

    def features(self, x: Array, layer: int) -> Array:
        """Activation after the given number of convolutions."""
        return self._convolve(x, self.kernels[:layer])

    def head(self, activation: Array, layer: int) -> Array:
        """The rest of the network."""
        return jnp.mean(self._convolve(activation, self.kernels[layer:]), axis=(0, 1)) @ self.weights

    def __call__(self, x: Array) -> Array:
        """Logits of one image."""
        return self.head(x, 0)

    @staticmethod
    def _convolve(x: Array, kernels: tuple[Array, ...]) -> Array:
        # As a product over patches: small convolutions are slow on a processor.
        for kernel in kernels:
            height, width, _ = x.shape
            padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
            shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
            x = jax.nn.relu(jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1]))
        return x


def planted(generator: np.random.Generator, count: int) -> Planted:
    """Noise of deviation 0.3, one of four 3×3 patterns of ±1 somewhere, and one of no class elsewhere."""
    patterns = np.random.default_rng(7).choice([-1.0, 1.0], size=(CLASSES + 1, 3, 3))
    images = 0.3 * generator.normal(size=(count, SIDE, SIDE))
    labels = generator.integers(CLASSES, size=count)
    where = np.zeros((count, SIDE, SIDE), bool)
    for i, label in enumerate(labels):
        row, other = generator.permutation([0, 3, 6])[:2] + generator.integers(2, size=1)
        column, beside = generator.integers(SIDE - 2, size=2)
        images[i, row : row + 3, column : column + 3] += patterns[label]
        images[i, other : other + 3, beside : beside + 3] += patterns[-1]
        where[i, row : row + 3, column : column + 3] = True
    return Planted(images[..., None].astype(np.float32), labels, where)


def reader(train: Planted, key: Key, *, steps: int) -> Reader:
    """Train a network on planted images."""

    def loss(model: Reader, batch: tuple[Array, Array], *, key: Key) -> Float[Array, ""]:
        logits = jax.vmap(model)(batch[0])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))

    first, second = jax.random.split(key)
    data = (jnp.asarray(train.images), jnp.asarray(train.labels))
    optimizer = optax.adam(optax.cosine_decay_schedule(8e-3, steps))
    return fit(loss, Reader(first), data, optimizer=optimizer, steps=steps, batch_size=32, key=second).model


def localisation(maps: Array, where: np.ndarray) -> np.ndarray:
    """Of each map: the chance that a pixel of the pattern outranks one elsewhere; ½ for an uninformed map."""
    inside = where.reshape(len(where), -1)
    ranks = scipy.stats.rankdata(np.asarray(maps).reshape(len(where), -1), axis=1)
    within = inside.sum(1)
    without = inside.shape[1] - within
    return ((ranks * inside).sum(1) - within * (within + 1) / 2) / (within * without)
