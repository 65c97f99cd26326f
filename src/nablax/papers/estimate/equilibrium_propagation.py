"""Equilibrium propagation: the second phase's contrast is a gradient, and as few updates train a network of digits.

Digits averaged over blocks of 2 × 2 pixels; one hidden layer, 20 free updates and 4 nudged, as the paper has it for one
layer, at a nudge of one half; sigmoids in place of the paper's hard ones, whose units at a bound leave backpropagation
without a gradient (it ended 30 points below both nudges). The two-sided nudge is of a later paper (Laborieux et al.,
2020).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import Equilibrium, equilibrium_gradient
from .._contrast import Contrast
from .._problems._classifier import pooled_digits
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="equilibrium-propagation",
    title="Equilibrium Propagation: Bridging the Gap Between Energy-Based Models and Backpropagation",
    year=2016,
    link="https://arxiv.org/abs/1602.05179",
    rooms=("estimate",),
    row=43,
    read="text",
)

_NUDGE, _SMALL, _NUDGED, _BATCH, _TRAIN = 0.5, 0.1, 4, 32, 1400
_RATES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Compare the contrast of two phases with the gradient, and train by both.

    Args:
        key: of all randomness.
        full: all pixels, 64 hidden units and ten times the steps, in place of 16, 32 and 200. The paper's MNIST and its
            nets of two and three hidden layers are not run.

    Returns:
        Two checks.
    """
    images, labels = pooled_digits(full)
    order = jax.random.permutation(jax.random.key(3), len(images))
    data = images[order], jax.nn.one_hot(labels[order], 10)
    sizes, steps = ((64, 64, 10), 3000) if full else ((16, 32, 10), 200)
    roads: dict[str, Callable[..., Any]] = {
        "symmetric": functools.partial(equilibrium_gradient, nudge=_NUDGE, steps=_NUDGED),
        "one-sided": functools.partial(equilibrium_gradient, nudge=_NUDGE, points=1, steps=_NUDGED),
        "backpropagation through the updates": jax.value_and_grad,
    }
    runs = tuned(
        {name: _run(road, data, sizes, steps) for name, road in roads.items()},
        _RATES,
        "higher",
        key=key,
        keys=8,
        tuning=8,
    )
    found, names = runs.results, ("symmetric", "one-sided")
    exact = found["backpropagation through the updates"]
    missed = jax.jit(jax.vmap(lambda key: _missed(key, data, sizes)))(jax.random.split(jax.random.fold_in(key, 1), 4))
    return [
        Check(
            "Where the output is nudged a little, the difference of the two phases is the gradient; where it is "
            "clamped, as in contrastive Hebbian learning, it is not.",
            "stated in words (theorem 1)",
            contrasts=Contrast(
                "share of the gradient that is missed, best length",
                {name: np.asarray(missed[name]) for name in (f"equilibrium propagation, nudge {_SMALL}", "clamped")},
                "lower",
                threshold=0.05,
            ),
        ),
        Check(
            f"With a nudge of {_NUDGE} on either side training comes within a point of backpropagation, and with one "
            "on one side it does not.",
            "of a later paper, on CIFAR-10 (Laborieux et al., 2020): 11.7 % of errors against 86.6 %",
            contrasts=Contrast(
                "test accuracy below backpropagation's, points",
                {name: 100 * (exact - found[name]) for name in names},
                "lower",
                threshold=1.0,
                settings={name: runs.settings[name] for name in names},
                seconds={name: runs.seconds[name] for name in names},
            ),
            expected=False,
            moved_from="the same with each rate chosen at two keys, where runs at the chosen one failed now and then",
            tried="300 steps of hard sigmoids: 31 ± 12 points above backpropagation and 5 ± 19 below. With one hidden "
            "layer and so few steps the one-sided nudge is no worse; deeper networks, in which its bias adds up, and "
            "longer training were not run.",
        ),
    ]


def _network(key: Key, sizes: tuple[int, ...]) -> Equilibrium:
    keys = jax.random.split(key, len(sizes) - 1)
    layers = [eqx.nn.Linear(a, b, key=k) for a, b, k in zip(sizes, sizes[1:], keys)]
    return Equilibrium(layers, activation="sigmoid", steps=20)


def _loss(net: Equilibrium, batch: tuple[Array, Array]) -> Float[Array, ""]:
    return 0.5 * jnp.mean(jnp.sum((net(batch[0]) - batch[1]) ** 2, axis=1))


def _run(
    road: Callable[..., Any], data: tuple[Array, Array], sizes: tuple[int, ...], steps: int
) -> Callable[[Array, Key], Array]:
    def run(rate: Array, key: Key) -> Float[Array, ""]:
        start_key, run_key = jax.random.split(key)

        def batch(step: Array, key: Key) -> PyTree:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return jax.tree.map(lambda part: part[rows], data)

        start = _network(start_key, sizes)
        net, _ = trained(_loss, start, optax.sgd(rate), batch, steps, key=run_key, value_and_grad=road)
        right = jnp.argmax(net(data[0][_TRAIN:]), axis=1) == jnp.argmax(data[1][_TRAIN:], axis=1)
        return jnp.mean(right.astype(jnp.float32))

    return run


def _missed(key: Key, data: tuple[Array, Array], sizes: tuple[int, ...]) -> dict[str, Array]:
    """Share of the gradient off the line of each contrast, which leaves its length to the learning rate."""
    net = dataclasses.replace(_network(key, sizes), steps=200)
    batch = jax.tree.map(lambda part: part[:64], data)

    def relaxed(net: Equilibrium, top: Array | None) -> tuple[Array, ...]:
        def update(u: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
            a = net.activate(u)
            a = a if top is None else (*a[:-1], top)
            drive = jax.vmap(net.drive)(a, batch[0])
            return jax.tree.map(lambda now, new: 0.5 * (now + new), u, drive), None

        zeros = tuple(jnp.zeros((len(batch[0]), size)) for size in sizes[1:])
        # Own loop: a network that settles.
        a = net.activate(jax.lax.scan(update, zeros, length=200)[0])
        return a if top is None else (*a[:-1], top)

    free, clamped = relaxed(net, None), relaxed(net, batch[1])

    def contrast(net: Equilibrium) -> Array:
        potential = jax.vmap(net.potential)
        return jnp.mean(potential(free, batch[0]) - potential(clamped, batch[0]))

    exact = _flat(jax.grad(_loss)(net, batch))
    found = {
        f"equilibrium propagation, nudge {_SMALL}": equilibrium_gradient(_loss, nudge=_SMALL, points=1)(net, batch)[1],
        "clamped": jax.grad(contrast)(net),
    }

    def off(grads: PyTree) -> Array:
        direction = _flat(grads)
        share = jnp.vdot(direction, exact) / jnp.vdot(direction, direction)
        return jnp.linalg.norm(exact - share * direction) / jnp.linalg.norm(exact)

    return {name: off(grads) for name, grads in found.items()}


def _flat(grads: PyTree) -> Array:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])


__all__ = ["PAPER", "checks"]
