"""TrAct on the digits: how fast a network learns, and how far one image of a mixed batch moves its pre-activations.

The first layer is a convolution of stride two or, for images of uneven contrast, sees each of them whole. One rate
serves all layers, as in the paper; so that no gain is that of a greater rate of the first layer, a baseline has that.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...regulate import tract
from .._contrast import Contrast
from .._problems._classifier import digits
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="tract",
    title="TrAct: Making First-layer Pre-Activations Trainable",
    year=2024,
    link="https://arxiv.org/abs/2410.23970",
    rooms=("regulate",),
    row=32,
    read="code",
)

_TRAIN, _BATCH, _HIDDEN, _SIDE = 1200, 64, 32, 8
_STEPS, _EVERY, _GOAL = 160, 4, 0.95
_MOMENTUM = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ADAM = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


class _Task(NamedTuple):
    """A first layer's kernel, stride, margin and channels, and by how much images differ in contrast (log-normal)."""

    kernel: int
    stride: int
    margin: int
    channels: int
    spread: float

    @property
    def window(self) -> dict[str, Any]:
        """Strides and padding."""
        return {"strides": (self.stride,) * 2, "padding": ((self.margin, self.margin),) * 2}


_CONVOLUTION, _UNEVEN = _Task(3, 2, 1, 16, 0.0), _Task(_SIDE, 1, 0, 64, 1.0)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train from the same starts with and without, each at its own best rates, and scale one image of a batch.

    Args:
        key: of all randomness.
        full: 24 keys in place of six. The paper's networks and images are not used.

    Returns:
        Four checks.
    """
    even, uneven, last = jax.random.split(key, 3)
    keys = 24 if full else 6
    by_momentum, by_adam = _races(_UNEVEN, keys, uneven)
    return [
        Check(
            "Training of a convolution is faster, with either optimiser.",
            "speedups of 1.25 to 4 times, with different optimisers (abstract)",
            contrasts=_races(_CONVOLUTION, keys, even),
            expected=False,
            tried="on other draws, the first layer's rate tuned apart: 54 steps with and 53 without by momentum, 40 "
            "and 42 by Adam. Digits differ little in contrast, and nine pixels of a patch little in scale",
        ),
        Check(
            "Where images differ in contrast training by momentum is faster.",
            "the aim of the method, stated in words",
            contrasts=by_momentum,
            moved_from="the same against plain descent alone, a rate being taken by the judging keys",
        ),
        Check(
            "And so it is by Adam.",
            "the aim of the method, stated in words",
            contrasts=by_adam,  # six draws of one key do not tell: 85 ± 16 steps against 87 ± 10
        ),
        Check(
            "How far an image of a mixed batch moves its pre-activations depends less on its contrast.",
            "the aim of the method, stated in words",
            contrasts=[
                Contrast(
                    f"largest over smallest move, contrast 1/4 to 4, batches of {size}",
                    dict(zip(("TrAct", "plain gradient"), _moves(size, k))),
                    "lower",
                    ratio=0.5,
                )
                for size, k in zip((16, 64, 256), jax.random.split(last, 3))
            ],
            moved_from="at most 1.5, of an image that is a batch by itself: there the second moment is the image's "
            "own, which no batch in training has",
        ),
    ]


def _momentum(rate: Array) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


def _races(task: _Task, keys: int, key: Key) -> list[Contrast]:
    """With and without, by momentum and by Adam."""
    metric = f"steps to a test accuracy of {100 * _GOAL:.0f} %, at the best rate"
    optimisers = {"momentum": (_momentum, _MOMENTUM), "Adam": (optax.adam, _ADAM)}
    found: list[Contrast] = []
    for name, (optimiser, grid) in optimisers.items():
        methods = {
            f"TrAct, {name}": _run(optimiser, task, ours=True),
            name: _run(optimiser, task),
            f"{name}, ten times the rate in the first layer": _run(optimiser, task, first=10.0),
        }
        runs = tuned(methods, grid, "lower", key=jax.random.fold_in(key, len(found)), keys=keys)
        found.append(runs.contrast(f"{name}: {metric}", "lower", ratio=1 / 1.25))
    return found


def _run(
    optimiser: Callable[[Array], optax.GradientTransformation], task: _Task, *, ours: bool = False, first: float = 1.0
) -> Run:
    """Steps to the goal, for a rate; all steps where it is not reached."""
    regulator = tract(lambda weights: weights[0], outputs_axis=0, **task.window) if ours else optax.identity()

    def run(rate: Float[Array, ""], key: Key) -> Int[Array, ""]:
        order_key, contrast_key, start_key, batch_key = jax.random.split(key, 4)
        images, labels = digits()
        order = jax.random.permutation(order_key, len(images))
        x = (images - jnp.mean(images))[order] * jnp.exp(
            task.spread * jax.random.normal(contrast_key, (len(images), 1))
        )
        x, y = (x / jnp.std(x)).reshape(-1, 1, _SIDE, _SIDE), labels[order]
        # The first layer as a product over patches, which are the same at every step.
        patches = jax.lax.conv_general_dilated_patches(x, (task.kernel,) * 2, *task.window.values())

        def logits(weights: tuple[Array, ...], rows: Array) -> Array:
            kernel, hidden, last = weights
            seen = jax.nn.relu(jnp.einsum("npij,cp->ncij", rows, kernel.reshape(len(kernel), -1)))
            return jax.nn.relu(seen.reshape(len(rows), -1) @ hidden.T) @ last.T

        def right(weights: tuple[Array, ...], *_: object) -> Array:
            answers = jnp.argmax(logits(weights, patches[_TRAIN:]), axis=1)
            return jnp.mean((answers == y[_TRAIN:]).astype(jnp.float32))

        def loss(weights: tuple[Array, ...], rows: Array) -> Array:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(weights, patches[rows]), y[rows]))

        parts = {"first": optimiser(first * rate), "others": optimiser(rate)}
        curve = trained(
            loss,
            _start(start_key, task),
            optax.chain(regulator, optax.partition(parts, ("first", "others", "others"))),
            lambda step, key: jax.random.randint(key, (_BATCH,), 0, _TRAIN),
            _STEPS,
            key=batch_key,
            record=right,
            every=_EVERY,
            extra=lambda weights, rows, grads: {"inputs": x[rows]},
        )[1]
        reached = curve >= _GOAL
        return jnp.where(jnp.any(reached), _EVERY * (jnp.argmax(reached) + 1), _STEPS)

    return run


def _start(key: Key, task: _Task) -> tuple[Array, ...]:
    places = (_SIDE + 2 * task.margin - task.kernel) // task.stride + 1
    fan_in = (task.kernel**2, task.channels * places**2, _HIDDEN)
    shapes = ((task.channels, 1, task.kernel, task.kernel), (_HIDDEN, fan_in[1]), (10, _HIDDEN))
    draws = zip(jax.random.split(key, 3), shapes, fan_in)
    return tuple(jax.random.normal(k, shape) * jnp.sqrt(2 / jnp.float32(n)) for k, shape, n in draws)


@partial(jax.jit, static_argnums=0)
def _moves(size: int, key: Key) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Largest over smallest move of an image's own pre-activations by its own slope, over its contrasts; mean of 64.

    The first layer is dense, as in the equations; the other images of the batch keep their contrast.
    """
    images, _ = digits()
    x = (images - jnp.mean(images)) / jnp.std(images)
    regulator = tract(lambda weight: weight, outputs_axis=0)

    def spread(key: Key) -> Float[Array, "2"]:
        batch = x[jax.random.choice(key, len(x), (size,), replace=False)]

        def moves(contrast: Array) -> Array:
            inputs = batch.at[0].multiply(contrast)
            gradient = jnp.ones((1, 1)) @ inputs[:1] / size
            solved, _ = regulator.update(gradient, optax.EmptyState(), inputs=inputs)
            return jnp.stack([jnp.abs(inputs[0] @ g[0]) for g in (solved, gradient)])

        found = jax.vmap(moves)(jnp.array([0.25, 0.5, 1.0, 2.0, 4.0]))
        return jnp.max(found, axis=0) / jnp.min(found, axis=0)

    ours, plain = jnp.mean(jax.vmap(spread)(jax.random.split(key, 64)), axis=0)
    return ours, plain


__all__ = ["PAPER", "checks"]
