"""Bidirectional learning on the digits: accuracy under noise and attacks, beside weight decay and training on noise.

A network of sigmoid units with one hidden layer, as the authors' smallest. Each method has one number to be tuned for
the mean of its accuracies on clean, noisy and attacked images, on one budget.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...estimate import Bidirectional
from .._problems._classifier import cross_entropy, split_digits
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="bidirectional-learning",
    title="Bidirectional Learning for Robust Neural Networks",
    year=2018,
    link="https://arxiv.org/abs/1805.08006",
    rooms=("estimate",),
    row=46,
    read="code",
)

_TRAIN, _BATCH, _HIDDEN, _RATE = 1200, 32, 32, 0.01
_MOVED = "the same over 4 networks at each key, three times as many after their spread had been seen"
_GRIDS = {
    "bidirectional": (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),  # weight of the images drawn
    "plain": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),  # rate of Adam
    "weight decay": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    "training on noise": (0.03, 0.1, 0.2, 0.4, 0.8, 1.6),  # its width
}
_NOISE, _ATTACK, _RESTARTS, _CLIMBS = 0.6, 0.1, 2, 6


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train four ways, and look at clean, noisy and attacked test images.

    Args:
        key: of all randomness.
        full: sixteen times the steps; deeper and convolutional networks and the adversarial
            generator are not trained.

    Returns:
        Two checks.
    """
    keys, steps = (12, 6400) if full else (12, 400)
    runs = tuned({way: _run(way, steps) for way in _GRIDS}, _GRIDS, "higher", key=key, keys=keys, of="mean")
    return [
        Check(
            "Weights that also draw their classes classify noisy images more accurately.",
            "tables of accuracy on images with noise added",
            contrasts=runs.contrast(f"accuracy with uniform noise up to {_NOISE} added, %", "higher", of="noisy"),
            expected=False,
            moved_from=_MOVED,
            tried="weights of the drawn images from 0.01 to 1000; more accurate than the plain network and than weight "
            "decay, less than one trained on noisy images",
        ),
        Check(
            "They resist adversarial images.",
            "tables of accuracy under the fast gradient sign method",
            contrasts=[
                runs.contrast(f"accuracy under one signed step of {_ATTACK}, %", "higher", of="signed"),
                runs.contrast(f"accuracy under {_CLIMBS} steps, worst of {_RESTARTS} starts, %", "higher", of="worst"),
            ],
            moved_from=_MOVED,
        ),
    ]


def _run(way: str, steps: int) -> Run:
    def run(setting: Float[Array, ""], key: Key) -> dict[str, Array]:
        data_key, net_key, batch_key, test_key = jax.random.split(key, 4)
        x, y, test_x, test_y = split_digits(data_key, _TRAIN)
        net = eqx.nn.MLP(64, 10, _HIDDEN, 1, activation=jax.nn.sigmoid, key=net_key)
        arrays, rest = eqx.partition(Bidirectional(net), eqx.is_inexact_array)

        def loss(arrays: Bidirectional, batch: tuple[Array, Array], *, key: Key) -> Array:
            model, (images, labels) = eqx.combine(arrays, rest), batch
            if way == "training on noise":
                images = images + setting * jax.random.uniform(key, images.shape)
            value = cross_entropy(jax.vmap(model)(images), labels)
            if way != "bidirectional":
                return value
            drawn = jax.vmap(model.back)(jax.nn.one_hot(labels, 10))
            return value + setting * jnp.mean(optax.sigmoid_binary_cross_entropy(drawn, images))

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return x[rows], y[rows]

        decay = setting if way == "weight decay" else 0.0
        optimizer = optax.adamw(setting if way == "plain" else _RATE, weight_decay=decay)
        arrays, _ = trained(loss, arrays, optimizer, batches, steps, key=batch_key)
        model = eqx.combine(arrays, rest)

        def right(images: Array) -> Array:
            return (jnp.argmax(jax.vmap(model)(images), axis=1) == test_y).astype(jnp.float32)

        def uphill(images: Array) -> Array:
            return jnp.sign(jax.grad(lambda images: cross_entropy(jax.vmap(model)(images), test_y))(images))

        def attacked(key: Key) -> Array:
            start = test_x + _ATTACK * jax.random.uniform(key, test_x.shape, minval=-1.0)

            def climb(_: int, images: Array) -> Array:
                images = images + 0.25 * _ATTACK * uphill(images)
                return jnp.clip(jnp.clip(images, test_x - _ATTACK, test_x + _ATTACK), 0, 1)

            # Own loop: an attack, along signs and back into the box.
            return right(jax.lax.fori_loop(0, _CLIMBS, climb, start))

        noise_key, *starts = jax.random.split(test_key, 1 + _RESTARTS)
        noisy = jnp.clip(test_x + _NOISE * jax.random.uniform(noise_key, test_x.shape), 0, 1)
        signed = right(jnp.clip(test_x + _ATTACK * uphill(test_x), 0, 1))
        found = {
            "clean": jnp.mean(right(test_x)),
            "noisy": jnp.mean(right(noisy)),
            "signed": jnp.mean(signed),
            "worst": jnp.mean(jnp.min(jnp.stack([signed, *map(attacked, starts)]), axis=0)),
        }
        found["mean"] = (found["clean"] + found["noisy"] + found["worst"]) / 3
        return {name: 100 * value for name, value in found.items()}

    return run


__all__ = ["PAPER", "checks"]
