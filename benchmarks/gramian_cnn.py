"""Gramian of 128 examples' gradients, a small convolutional network on 28×28 images."""

from pathlib import Path

import numpy as np

from .gramian_mlp import timed, torch_gramian

TITLE = "Gramian, 128 samples, small CNN"
PEER = "torchjd 0.18.0, autogram"
UNIT = "ms"
TARGET = "5×"
BETTER = "lower"
CHANNELS, COUNT, CLASSES, REPEATS = (1, 16, 32), 128, 10, 5
FEATURES = CHANNELS[-1] * 5 * 5


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    arrays = {}
    for i, (a, b) in enumerate(zip(CHANNELS, CHANNELS[1:])):
        arrays[f"weight{i}"] = (random.standard_normal((b, a, 3, 3)) / np.sqrt(9 * a)).astype(np.float32)
        arrays[f"bias{i}"] = 0.1 * random.standard_normal(b).astype(np.float32)
    arrays["weight2"] = (random.standard_normal((CLASSES, FEATURES)) / np.sqrt(FEATURES)).astype(np.float32)
    arrays["bias2"] = 0.1 * random.standard_normal(CLASSES).astype(np.float32)
    images = random.standard_normal((COUNT, 1, 28, 28)).astype(np.float32)
    np.savez(folder / "case.npz", images=images, labels=random.integers(0, CLASSES, COUNT), **arrays)
    return {}


def ours(folder: Path) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from nablax.regulate import gramian

    arrays = np.load(folder / "case.npz")
    keys = jax.random.split(jax.random.key(0), 3)
    layers = [eqx.nn.Conv2d(a, b, 3, key=k) for a, b, k in zip(CHANNELS, CHANNELS[1:], keys)]
    layers.append(eqx.nn.Linear(FEATURES, CLASSES, key=keys[2]))
    for i, layer in enumerate(layers):
        bias = jnp.asarray(arrays[f"bias{i}"]).reshape(layer.bias.shape)
        layers[i] = eqx.tree_at(lambda l: (l.weight, l.bias), layer, (jnp.asarray(arrays[f"weight{i}"]), bias))
    pool = eqx.nn.MaxPool2d(2, 2)

    def losses(layers, images, labels):
        def loss(image, label):
            for layer in layers[:-1]:
                image = pool(jax.nn.relu(layer(image)))
            return -jax.nn.log_softmax(layers[-1](image.reshape(-1)))[label]

        return jax.vmap(loss)(images, labels)

    compiled = eqx.filter_jit(lambda layers, images, labels: gramian(losses, layers, images, labels))
    images, labels = jnp.asarray(arrays["images"]), jnp.asarray(arrays["labels"])
    return timed(lambda: compiled(layers, images, labels).block_until_ready(), REPEATS)


def peer(folder: Path) -> dict:
    import torch
    from torchjd.autogram import Engine

    arrays, layers = np.load(folder / "case.npz"), []
    for i, (a, b) in enumerate(zip(CHANNELS, CHANNELS[1:])):
        layers += [torch.nn.Conv2d(a, b, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        layers[-3].weight.data = torch.tensor(arrays[f"weight{i}"])
        layers[-3].bias.data = torch.tensor(arrays[f"bias{i}"])
    layers += [torch.nn.Flatten(), torch.nn.Linear(FEATURES, CLASSES)]
    layers[-1].weight.data, layers[-1].bias.data = torch.tensor(arrays["weight2"]), torch.tensor(arrays["bias2"])
    images, labels = torch.tensor(arrays["images"]), torch.tensor(arrays["labels"])
    return timed(torch_gramian(torch.nn.Sequential(*layers), images, labels, Engine), REPEATS)
