"""Randomised linear layers: a sketch of a batch against a batch that is as small as the sketch."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import RandomisedLinear
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="randomised-linear",
    title="Memory-Efficient Backpropagation through Large Linear Layers",
    year=2022,
    link="https://arxiv.org/abs/2201.13195",
    rooms=("estimate",),
    row=206,
    read="code",
)

_BATCH, _TRAIN, _WIDTH, _SHARE = 64, 1200, 64, 0.2
_RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
_METHODS = {"sketch of a fifth": _SHARE, "batch of a fifth": 1.0}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a net whose layers keep a fifth of their inputs, and one on batches of a fifth; count what is kept.

    Args:
        key: of the split, the net, the batches and the sketches.
        full: ten times the steps.

    Returns:
        Two checks.
    """
    steps = 3000 if full else 300
    runs = tuned({name: _run(name, steps) for name in _METHODS}, _RATES, "lower", key=key, keys=5)
    return [
        Check(
            "With a sketch of a fifth of the batch a net gets further than with batches of a fifth.",
            "stated in words: less memory with a moderate decrease of the test accuracy, on GLUE; the batch of equal "
            "memory is our baseline",
            contrasts=runs.contrast("test cross-entropy, nats", "lower"),
            expected=False,
            tried="five rates each; for examples of equal lengths whose gradients share no direction a Gaussian sketch "
            "has the variance of a batch of its own size, and spends the whole batch's operations on it",
        ),
        Check(
            "Between the passes the layers keep a fifth of what layers of the whole batch do.",
            "stated in words: less memory of linear layers",
            contrasts=Contrast(
                "numbers kept of the inputs of linear layers, thousands",
                {
                    "sketch of a fifth": [_kept(_SHARE)],
                    "linear layers": [_kept(None)],
                },
                "lower",
                ratio=0.25,
            ),
        ),
    ]


def _net(key: Key, share: float) -> list[RandomisedLinear]:
    sketch: Literal["gaussian", "rows"] = "gaussian" if share < 1 else "rows"  # of all rows, in another order: exact
    sizes = (64, _WIDTH, _WIDTH, 10)
    return [
        RandomisedLinear(inputs, outputs, share=share, sketch=sketch, key=k)
        for k, inputs, outputs in zip(jax.random.split(key, 3), sizes, sizes[1:])
    ]


def _scores(net: list, x: Float[Array, "batch pixels"], key: Key) -> Float[Array, "batch classes"]:
    *hidden, last = net
    keys = jax.random.split(key, len(net))
    for layer, k in zip(hidden, keys):
        x = jnp.tanh(layer(x, key=k))
    return last(x, key=keys[-1])


def _run(name: str, steps: int) -> Callable[[Array, Key], Array]:
    images, labels = digits()
    share = _METHODS[name]
    size = _BATCH if share < 1 else round(_SHARE * _BATCH)

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        split_key, net_key, run_key = jax.random.split(key, 3)
        order = jax.random.permutation(split_key, len(images))
        x, y = images[order], labels[order]
        weights, rest = eqx.partition(_net(net_key, share), eqx.is_inexact_array)

        def batches(step: Array, key: Key) -> PyTree:
            rows = jax.random.randint(key, (size,), 0, _TRAIN)
            return x[rows], y[rows]

        def loss(weights: PyTree, batch: PyTree, *, key: Key) -> Array:
            return cross_entropy(_scores(eqx.combine(weights, rest), batch[0], key), batch[1])

        weights, _ = trained(loss, weights, optax.adam(rate), batches, steps, key=run_key)
        return cross_entropy(_scores(eqx.combine(weights, rest), x[_TRAIN:], jax.random.key(0)), y[_TRAIN:])

    return run


def _kept(share: float | None) -> float:
    """Numbers that the layers' backward passes find besides their weights, in thousands; None is a plain layer."""
    total = 0
    for layer in _net(jax.random.key(0), share or 1.0):

        def apply(weight: Array, x: Array, layer: RandomisedLinear = layer) -> Array:
            if share is None:
                return x @ weight.T
            return eqx.tree_at(lambda one: one.weight, layer, weight)(x, key=jax.random.key(0))

        _, back = jax.vjp(apply, layer.weight, jnp.zeros((_BATCH, layer.weight.shape[1])))
        kept = [leaf.size for leaf in jax.tree.leaves(back) if leaf.dtype == jnp.float32]
        total += sum(kept) - layer.weight.size
    return total / 1000


__all__ = ["PAPER", "checks"]
