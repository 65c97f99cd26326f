"""A step behind an aggregator: the direction that it hands on, and the sum of losses whose gradient that is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import UpdateRule, divide, largest, unknown_rule, verified, wide_dtype
from ...regulate import AggregatorState
from ._along import Point
from ._fed import fed
from ._optimizer_state import aggregators_of, behind, emitted
from ._update_rule import update_rule

WEIGHED = (
    "loss, curvature and noise are of the several losses' sum by the weights that the aggregator finds at this step, "
    "which are taken as standing still"
)
UNWEIGHED = (
    "the aggregator's direction is no weighted sum of gradients: curvature and noise are of the loss that was given"
)


class Aggregated(NamedTuple):
    """A step behind an aggregator.

    Attributes:
        loss: ``(params, batch) -> scalar`` whose gradient the direction is; as given where there are no weights.
        weights: of the losses; None where the direction is no weighted sum of their gradients.
        update: that the whole chain makes.
        after: its state after the step.
        resting: whether the direction is zero, and what the weights leave of the gradients rounding.
        note: what the numbers are of.
    """

    loss: Callable[..., Array]
    weights: Float[Array, " losses"] | None
    update: PyTree
    after: PyTree
    resting: Bool[Array, ""]
    note: str


def quiet(transform: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """The same, whose aggregator raises nothing: what is not finite is for the check-up to say."""

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        return transform.update(grads, state, params, **extra | {"throw": False})

    return optax.GradientTransformationExtraArgs(transform.init, update)


def aggregate(
    loss: Callable[..., Array],
    losses: Callable[..., Array],
    point: Point,
    batch: PyTree,
    transform: optax.GradientTransformationExtraArgs,
    state: PyTree,
) -> Aggregated:
    """Make the step of the losses' gradients, and read off by which weights they were combined."""
    moving, here = point.tree(point.vector), fed(point, loss, losses, batch)(point.vector)
    count = len(here.extra["values"])

    def step(state: PyTree) -> tuple[PyTree, PyTree]:
        return emitted(transform, here.gradient, state, moving, **here.extra)

    # Weights are kept where the state has room for them, which it has where the factory was told their number.
    room = jnp.zeros(count, wide_dtype(moving))
    roomy = _mapped(lambda part: part._replace(weights=room if part.weights is None else part.weights), state)
    jax.eval_shape(step, state)
    try:
        jax.eval_shape(step, roomy)
        weighed = len(aggregators_of(state)) == 1
    except ValueError:
        weighed = False
    if not weighed:
        update, after = step(state)
        return Aggregated(loss, None, update, after, jnp.asarray(False), UNWEIGHED)
    update, after = step(roomy)
    (before,), (found,) = aggregators_of(state), aggregators_of(after)
    if before.weights is None:
        after = _mapped(lambda part: part._replace(weights=None), after)

    weights = jnp.asarray(found.weights)

    def combined(params: PyTree, batch: PyTree) -> Float[Array, ""]:
        return jnp.sum(weights * losses(params, batch))

    return Aggregated(combined, weights, update, after, found.stationary, WEIGHED)


def rule_behind(
    transform: optax.GradientTransformationExtraArgs,
    state: PyTree,
    params: PyTree,
    gradient: PyTree,
    aggregated: Aggregated,
    **extra: Any,
) -> UpdateRule:
    """How what follows the aggregator moves; believed where it makes the whole chain's step of the weighted sum."""
    if aggregated.weights is None:
        return unknown_rule(params, UNWEIGHED)
    gradient = jax.tree.map(lambda leaf: jnp.where(aggregated.resting, 0, leaf), gradient)
    rule = update_rule(transform, state, params, gradient, **extra)
    if rule.reason:
        return rule
    # Averages over steps, or gradients that were changed before they were weighed, make another direction.
    again, _ = emitted(behind(transform), gradient, state, params, **extra)
    missed = largest(jax.tree.map(lambda a, b: a - b, again, aggregated.update))
    missed = divide(missed, largest(aggregated.update)).astype(rule.mismatch.dtype)
    return verified(eqx.tree_at(lambda r: r.mismatch, rule, jnp.maximum(rule.mismatch, missed)))


def _mapped(function: Callable[[AggregatorState], AggregatorState], state: PyTree) -> PyTree:
    def one(part: Any) -> Any:
        return function(part) if isinstance(part, AggregatorState) else part

    return jax.tree.map(one, state, is_leaf=lambda part: isinstance(part, AggregatorState))


__all__ = ["Aggregated", "aggregate", "quiet", "rule_behind"]
