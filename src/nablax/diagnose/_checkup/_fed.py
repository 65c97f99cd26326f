"""What an optimiser is given at a step: one gradient or several for its aggregator, and what it may ask for."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import ExtraArguments, push_forward
from ._along import Point
from ._losses import gradients_of


class Fed(NamedTuple):
    """A step's gradient and what goes with it.

    Attributes:
        loss: that is followed.
        slope: its gradient.
        gradient: what the optimiser is given: that gradient as a tree, or a stack of several losses' gradients.
        extra: its extra arguments.
    """

    loss: Float[Array, ""]
    slope: Float[Array, " dim"]
    gradient: PyTree
    extra: ExtraArguments


def fed(
    point: Point, loss: Callable[..., Array], losses: Callable[..., Array] | None, batch: PyTree
) -> Callable[[Float[Array, " dim"]], Fed]:
    """What it is given, as a function of the parameters; nothing is computed that none asks for.

    Args:
        point: the parameters.
        loss: ``(params, batch) -> scalar`` that is followed.
        losses: ``(params, batch) -> [K]`` whose gradients an aggregator is given, as a training loop does it; None
            where there is one loss.
        batch: for both.
    """
    value = point.loss(loss, batch)

    def of_one(vector: Array) -> Fed:
        at, slope = jax.value_and_grad(value)(vector)
        gradient = point.tree(slope)

        def value_fn(tree: PyTree) -> Array:
            return value(point.like(tree, "parameters"))

        extra = ExtraArguments(
            value=at,
            grad=gradient,
            value_fn=value_fn,
            grad_fn=jax.value_and_grad(value_fn),
            product_fn=lambda direction: push_forward(jax.grad(value_fn), point.tree(vector), direction)[1],
        )
        return Fed(at, slope, gradient, extra)

    if losses is None:
        return of_one
    several = point.take(losses, batch)

    def of_several(vector: Array) -> Fed:
        def stacked(vector: Array) -> tuple[Array, PyTree]:
            values, rows = gradients_of(several, vector)
            return values, jax.vmap(point.tree)(rows)

        def value_fn(tree: PyTree) -> Array:
            return jnp.mean(several(point.like(tree, "parameters")))

        at, slope = jax.value_and_grad(value)(vector)
        values, gradients = stacked(vector)
        extra = ExtraArguments(
            value=jnp.mean(values),
            values=values,
            grad=jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients),
            gradients=gradients,
            value_fn=value_fn,
            grad_fn=lambda tree: stacked(point.like(tree, "parameters")),
            product_fn=lambda direction: push_forward(jax.grad(value_fn), point.tree(vector), direction)[1],
        )
        return Fed(at, slope, gradients, extra)

    return of_several


__all__ = ["Fed", "fed"]
