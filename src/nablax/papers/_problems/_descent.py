"""Descent of a function of the parameters alone: `trained` without batches."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from ._training import trained


def descended(
    loss: Callable[[PyTree], Any],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    steps: int,
    **options: Any,
) -> tuple[PyTree, PyTree]:
    """The point after the last step and what was recorded; ``options`` are those of `trained`.

    Args:
        loss: ``loss(params)``, without randomness.
        params: arrays to start from.
        optimizer: any Optax transformation; it is given the extra arguments of `nablax.follow.train_step`.
        steps: number of updates.
        **options: ``record``, ``every``, ``value_and_grad``, ``extra`` and ``has_aux``.
    """
    key = jax.random.key(0)  # asked for by the batches, of which there are none
    return trained(lambda params, _: loss(params), params, optimizer, lambda *_: None, steps, key=key, **options)


__all__ = ["descended"]
