"""Rows of mini-batches, epoch by epoch, and gradients that come with what a regulator asks for besides."""

from typing import Any

import jax
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import Key


def shuffled(key: Key, examples: int, size: int, epochs: int) -> Int[Array, "steps size"]:
    """Rows of every batch, in an order of its own each epoch; the last examples, that fill no batch, are left out."""
    used = examples // size * size
    orders = jax.vmap(lambda k: jax.random.permutation(k, used))(jax.random.split(key, epochs))
    return orders.reshape(-1, size)


def accompanied(regulator: optax.GradientTransformationExtraArgs, name: str) -> optax.GradientTransformationExtraArgs:
    """The regulator, given ``(gradient, more)`` as gradient, of which the second is its extra argument ``name``."""

    def update(both: tuple[PyTree, Any], state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        gradient, more = both
        return regulator.update(gradient, state, params, **{name: more})

    return optax.GradientTransformationExtraArgs(regulator.init, update)


__all__ = ["accompanied", "shuffled"]
