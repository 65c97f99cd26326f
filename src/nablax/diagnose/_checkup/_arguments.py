"""What a check-up is asked with, refused in words where it makes no sense."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._core import check_callable, check_count, check_optimizer, check_rate, check_shape, described, fault


def check_functions(loss: Callable[..., Any], **others: Callable[..., Any] | None) -> None:
    """Refuse what is no function of parameters and batch; what is None was not given."""
    check_callable(loss, what="loss", fix="Pass loss(params, batch) -> scalar.", takes=2)
    for name, function in others.items():
        if function is not None:
            check_callable(function, what=name, fix=f"Pass {name}(params, batch).", takes=2)


def check_counts(rows: int, steps: int, count: int, batch_size: int | None) -> None:
    """Refuse what is no number of rows, products or eigenvalues."""
    for name, number, least in (("rows", rows, 0), ("steps", steps, 1), ("count", count, 1)):
        check_count(number, what=name, least=least)
    if batch_size is not None:
        check_count(batch_size, what="batch_size")


def check_batch(batch: PyTree) -> None:
    """Refuse a batch without rows."""
    if any(jnp.ndim(leaf) and jnp.shape(leaf)[0] == 0 for leaf in jax.tree.leaves(eqx.filter(batch, eqx.is_array))):
        raise fault(expected="a batch with rows", got=described(batch), fix="Leave empty batches out.")


def check_mover(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | Array | None,
    momentum: float | Array | None,
) -> None:
    """Refuse two things that make the step, and what makes none."""
    if optimizer is not None and learning_rate is not None:
        raise fault(
            expected="an optimizer or a learning_rate", got="both", fix="The optimiser's own rate is read from it."
        )
    if momentum is not None and learning_rate is None:
        raise fault(expected="a learning_rate with momentum", got="None", fix="Pass both, or the optimizer.")
    if optimizer is not None:
        check_optimizer(optimizer)
    if learning_rate is not None:
        check_rate(learning_rate)
    if momentum is not None:
        check_shape(momentum, (), what="momentum", fix="Pass momentum=0.9, for one.")
        if not 0 <= float(momentum) < 1:
            raise fault(expected="momentum in [0, 1)", got=momentum, fix="At 1 and beyond no run settles.")


def check_chance(chance: float | Array | None) -> None:
    """Refuse what is no loss of a model that knows nothing."""
    if chance is not None:
        check_shape(chance, (), what="chance", fix="Pass the loss of a model that knows nothing, a number.")
        if not 0 < float(chance) < math.inf:
            fix = "Of a loss that is no size, such as a log-density, leave it out."
            raise fault(expected="chance above 0 and finite", got=chance, fix=fix)


__all__ = ["check_batch", "check_chance", "check_counts", "check_functions", "check_mover"]
