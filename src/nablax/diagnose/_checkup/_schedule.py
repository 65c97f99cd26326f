"""How far an optimiser's schedule raises the step: asked of its response, with the schedule's count moved on."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import tree_norm
from ._fed import Fed
from ._optimizer_state import emitted

# Steps within which a run is said to fail or not, and a schedule to raise the rate.
HORIZON = 200


def growth(
    transform: optax.GradientTransformationExtraArgs, state: PyTree, update: PyTree, here: Fed, params: PyTree
) -> Float[Array, ""]:
    """Length of the step with its schedules 200 steps on, over that of this step; infinite where this is none."""
    later = _ahead(state, HORIZON)
    if later is None:
        return jnp.ones(())
    now, then = tree_norm(update), tree_norm(emitted(transform, here.gradient, later, params, **here.extra)[0])
    return jnp.where(now > 0, then / jnp.where(now > 0, now, 1), jnp.where(then > 0, jnp.inf, 1)).astype(jnp.float32)


def _ahead(state: PyTree, steps: int) -> PyTree:
    """The state with its schedules so many steps on, and all else as it is; None where there are none.

    A schedule's state is its count alone, in Optax's ``scale_by_schedule`` and in injected hyperparameters.
    """
    if not any(_is_schedule(part) for part in jax.tree.leaves(state, is_leaf=_is_schedule)):
        return None

    def moved(part: Any) -> Any:
        return part._replace(count=part.count + steps) if _is_schedule(part) else part

    return jax.tree.map(moved, state, is_leaf=_is_schedule)


def _is_schedule(part: Any) -> bool:
    return isinstance(part, tuple) and getattr(part, "_fields", ()) == ("count",)


__all__ = ["HORIZON", "growth"]
