"""What every estimator of this room is: a drop-in for `jax.value_and_grad`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._core import Key, check_callable, check_key, check_loss, check_loss_and_aux, fault, space, split

Objective = Callable[[PyTree], tuple[Array, PyTree]]
ValueAndGrad = Callable[..., tuple[Any, PyTree]]
"""``(params, *args, key=key) -> (value, grads)``; with auxiliary values ``((value, aux), grads)``."""


def estimator(
    loss: Callable[..., Any], estimate: Callable[[Objective, PyTree, Any], tuple], *, has_aux: bool, by: str | None
) -> ValueAndGrad:
    """Make an estimator from what it does with a loss of the trained leaves alone.

    Args:
        loss: ``loss(params, *args, **kwargs) -> scalar``, or ``(scalar, aux)``.
        estimate: ``estimate(objective, trained, key) -> (value, aux, grads)``; ``objective(trained) -> (value, aux)``.
        has_aux: which of both the loss returns.
        by: name of the estimator, for the error where it is called without a key; None for one that draws nothing.

    Raises:
        ValueError: the loss is no function.
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.")

    # Without the loss's own signature: who looks for an argument `key` (`nablax.follow.train_step`) finds this one.
    def value_and_grad(params: PyTree, *args: Any, key: Key | None = None, **kwargs: Any) -> tuple[Any, PyTree]:
        key = key if by is None else required_key(key, by=by)
        trained, held = split(params)
        # A weak type would give way to single precision, in which directions are drawn at least.
        trained = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), trained)
        space(trained)  # refuses parameters of integers, and complex ones

        def objective(trained: PyTree) -> tuple[Array, PyTree]:
            found = loss(eqx.combine(trained, held), *args, **kwargs)
            if not has_aux:
                return check_loss(found), None
            return check_loss_and_aux(found)

        value, aux, grads = estimate(objective, trained, key)
        return ((value, aux) if has_aux else value), grads

    return value_and_grad


def required_key(key: Key | None, *, by: str) -> Key:
    """The key that an estimator was called with.

    Raises:
        ValueError: it was called without, or with what is none.
    """
    if key is None:
        raise fault(
            expected=f"a key for the draws of {by}",
            got="none",
            fix="Pass key=jax.random.fold_in(key, step), another one at each step.",
        )
    check_key(key)
    return key


def shaped_as(grads: PyTree, params: PyTree) -> PyTree:
    """Gradients in the parameters' own dtypes."""
    return jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
