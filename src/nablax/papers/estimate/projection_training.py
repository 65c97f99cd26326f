"""Training as feasibility: a network of digits by projections alone, rectified and of signs.

Digits averaged over blocks of 2 × 2 pixels. One batch is as many projections for each method of projections. The
settings are the strength of the step towards the label, and Adam's rate.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..._core import Key
from ...estimate import feasibility
from .._problems._classifier import cross_entropy, pooled_digits
from .._problems._training import trained
from .._problems._tuning import Runs, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="projection-training",
    title="A projection-based framework for gradient-free and parallel learning",
    year=2025,
    link="https://arxiv.org/abs/2506.05878",
    rooms=("estimate",),
    row=218,
    read="code",
)

_BATCH, _TRAIN, _LEVEL = 32, 1400, 0.1
_STRENGTHS = [0.1, 1.0, 5.0, 25.0]
_RATES = {
    "Adam": [1e-2, 3e-2, 1e-1, 3e-1],
    "Adam, straight through": [3e-2, 1e-1, 3e-1, 1.0],
    "Adam, by the gradient": [1e-1, 3e-1, 1.0, 3.0],
}
_ENDS = {25.0: "the label is met there already: more strength is no more pull"}
Layers = tuple[eqx.nn.Linear, ...]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train by Douglas–Rachford, by alternating projections and by Adam.

    Args:
        key: of all randomness.
        full: all pixels, 64 hidden units and 400 batches of 50 steps, in place of 16, 16 and 30 of 20. HIGGS,
            Shakespeare and CIFAR are not run.

    Returns:
        Four checks.
    """
    images, labels = pooled_digits(full)
    order = jax.random.permutation(jax.random.key(3), len(images))
    data = images[order], labels[order]
    hidden, batches, steps = (64, 400, 50) if full else (16, 30, 20)

    def compared(number: int, methods: dict[str, Any]) -> Runs:
        grids = {name: _RATES.get(name, _STRENGTHS) for name in methods}
        runs = {name: _run(data, hidden, batches, **options, steps=steps) for name, options in methods.items()}
        return tuned(runs, grids, "higher", key=jax.random.fold_in(key, number), keys=4, tuning=1, ends=_ENDS)

    rectified = compared(
        0, {"Douglas–Rachford": {}, "alternating projections": {"method": "alternating"}, "Adam": {"adam": "exact"}}
    )
    signs = compared(
        1,
        {
            "Douglas–Rachford": {"activation": "sign"},
            "Adam, by the gradient": {"activation": "sign", "adam": "exact"},
            "Adam, straight through": {"activation": "sign", "adam": "straight through"},
        },
    )
    metric = "test accuracy, %"
    return [
        Check(
            "Douglas–Rachford trains further than alternating projections do, at equal projections.",
            "stated in words",
            contrasts=rectified.contrast(metric, "higher", against=("alternating projections",)),
        ),
        Check(
            "A network of signs, whose gradient leaves the hidden layer where it was, is trained all the same.",
            "stated in words: non-differentiable operations",
            contrasts=signs.contrast(metric, "higher", against=("Adam, by the gradient",), margin=5.0),
        ),
        Check(
            f"It is an alternative to training by gradients: as many batches, each of {steps} projections in place of "
            "one gradient, take it further than Adam.",
            "stated in words: a compelling alternative (abstract)",
            contrasts=rectified.contrast(metric, "higher", against=("Adam",)),
        ),
        Check(
            "It has the advantage where operations are not differentiable, over gradients handed straight through.",
            "stated in words: clear advantages in the ability to handle them (abstract)",
            contrasts=signs.contrast(metric, "higher", against=("Adam, straight through",)),
            expected=False,
            tried="Signs of size 0.1, where they are ±1 no hidden unit ever changes its own. 40 batches of 30 steps of "
            "64 whole images, 32 units: 89 % at 0.1, 77 % at 0.3, 69 % at 1.",
        ),
    ]


def _run(
    data: tuple[Array, Array],
    hidden: int,
    batches: int,
    *,
    steps: int,
    activation: Literal["relu", "sign"] = "relu",
    method: Literal["douglas-rachford", "alternating"] = "douglas-rachford",
    adam: str = "",
) -> Callable[[Array, Key], Array]:
    def logits(layers: Layers, x: Array) -> Array:
        drive = jax.vmap(layers[0])(x)
        if activation == "relu":
            return jax.vmap(layers[1])(jax.nn.relu(drive))
        sign = jnp.where(drive > 0, _LEVEL, -_LEVEL)
        if adam == "straight through":
            through = jnp.where(jnp.abs(drive) < 1, _LEVEL * drive, 0)
            sign = sign + through - jax.lax.stop_gradient(through)
        return jax.vmap(layers[1])(sign)

    def loss(layers: Layers, batch: tuple[Array, Array]) -> Array:
        return cross_entropy(logits(layers, batch[0]), batch[1])

    def drawn(key: Key) -> tuple[Array, Array]:
        rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
        return data[0][rows], data[1][rows]

    def run(setting: Array, key: Key) -> Array:
        keys = jax.random.split(key, 3)
        layers: Layers = (
            eqx.nn.Linear(data[0].shape[1], hidden, key=keys[0]),
            eqx.nn.Linear(hidden, 10, key=keys[1]),
        )
        if activation == "sign":
            wide = layers[1].weight / (2 * _LEVEL)
            layers = layers[0], eqx.tree_at(lambda layer: layer.weight, layers[1], wide)
        if adam:
            layers, _ = trained(loss, layers, optax.adam(setting), lambda _, key: drawn(key), batches, key=keys[2])
        else:
            project = feasibility(activation, method=method, steps=steps, strength=setting, level=_LEVEL)
            # Own loop: no gradient, for a batch ends in the weights nearest to which its constraints hold.
            layers, _ = jax.lax.scan(
                lambda layers, key: (project(layers, *drawn(key))[0], None), layers, jax.random.split(keys[2], batches)
            )
        right = jnp.argmax(logits(layers, data[0][_TRAIN:]), axis=1) == data[1][_TRAIN:]
        return 100 * jnp.mean(right.astype(jnp.float32))

    return run


__all__ = ["PAPER", "checks"]
