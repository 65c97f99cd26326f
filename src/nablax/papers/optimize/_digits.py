"""A network of the digits that several first-order rules train alike: 64-64-10, tanh, batches of 32, 300 steps."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..._core import Key
from ...optimize import XGradState, xgrad_eval_params
from .._problems._classifier import logits, loss, network, split_digits
from .._problems._training import trained
from .._problems._tuning import Runs, tuned

TRAIN, BATCH, STEPS = 1280, 32, 300
LOSS, ACCURACY = "loss of the digits trained on, nats", "accuracy on digits held out, %"
# Of rules whose steps are as long as their rate, and of those whose steps are as long as the gradient times it.
RATES = np.logspace(-3.5, -0.5, 13).tolist()
LONG_RATES = np.logspace(-2, 1, 13).tolist()

Make = Callable[[Array], optax.GradientTransformation]


def heavy_ball(rate: Array) -> optax.GradientTransformation:
    """Momentum 0.9."""
    return optax.sgd(rate, momentum=0.9)


def on_digits(rules: Mapping[str, Make], grids: Mapping[str, list[float]], *, key: Key, keys: int) -> Runs:
    """Train by each rule at its best rate, chosen by the loss; of the weights at the end "loss" and "accuracy"."""
    runs = {name: lambda rate, key, make=make: _trained(make(rate), key) for name, make in rules.items()}
    return tuned(runs, grids, "lower", key=key, keys=keys, of="loss")


def _trained(rule: optax.GradientTransformation, key: Key) -> dict[str, Array]:
    data_key, start_key, batch_key = jax.random.split(key, 3)
    images, labels, *held_out = split_digits(data_key, TRAIN)
    rows = jax.random.randint(batch_key, (STEPS, BATCH), 0, TRAIN)

    def proper(params: PyTree, state: Any, value: Array) -> PyTree:
        """The weights that would be kept: XGrad's loop holds others."""
        return xgrad_eval_params(state, params) if isinstance(state, XGradState) else params

    _, records = trained(
        lambda params, batch: loss(params, *batch),
        network(start_key, (64, 64, 10)),
        rule,
        lambda step, key: (images[rows[step]], labels[rows[step]]),
        STEPS,
        key=batch_key,
        record=proper,
        every=STEPS,
    )
    params = jax.tree.map(lambda x: x[-1], records)
    right = jnp.mean(jnp.argmax(logits(params, held_out[0]), axis=1) == held_out[1])
    return {"loss": loss(params, images, labels), "accuracy": 100 * right}


__all__ = ["ACCURACY", "LONG_RATES", "LOSS", "RATES", "heavy_ball", "on_digits"]
