"""Rounds of gradient sliding, whatever is done in them, and what comes of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float, Int, PyTree

from ..._core import AbstractRecord, Key, check_count, check_floats, check_like, checked_loss, fault, space
from .._outcome import outcome

_SMOOTH = "Write smooth(params) -> number."
_PROXIMAL = "Write proximal(params, rate) -> params, the least of simple(u) + |u - params|²/(2 rate)."

Inner = Callable[[Array, Array, Array, Key | None], tuple[Array, Array, Array]]


class GradientSliding(AbstractRecord):
    """Where gradient sliding has led.

    Attributes:
        params: the last average.
        values: the whole objective at the start and after each round, [steps + 1].
        subgradients: of the function that is not smooth, or gradients of it smoothed, up to each round's end, [steps];
            gradients of the smooth one are as many as rounds.
        result: ``optimistix.RESULTS.successful``, or that a value was not finite.
    """

    params: PyTree
    values: Float[Array, " steps"]
    subgradients: Int[Array, " steps"]
    result: optimistix.RESULTS


class Setting(NamedTuple):
    """What a round is made of: the tree of a vector, χ's proximal step, γ, β and μ."""

    tree: Callable[[Array], PyTree]
    prox: Callable[[Array, Array], Array]
    gamma: Array
    beta: Array
    convexity: Array


def slid(
    smooth: Callable,
    nonsmooth: Callable[[PyTree, Key | None], Array],
    start: PyTree,
    constants: tuple[Any, Any, float],
    steps: int,
    rounds: Callable[[Setting], Inner],
    simple: Callable | None,
    proximal: Callable | None,
    key: Key | None,
    throw: bool,
) -> GradientSliding:
    """The rounds, whatever is done in them."""
    f = checked_loss(smooth, fix=_SMOOTH)
    steps = check_count(steps, what="steps")
    check_floats(start, what="start", fix="Pass the parameters that are moved, as floating-point arrays.")
    if (simple is None) != (proximal is None):
        raise fault(
            expected="simple and proximal together, or neither",
            got="simple" if proximal is None else "proximal",
            fix="Pass both, or none for convexity/2 times the squared norm.",
        )
    states = space(start)
    begin, tree = states.flat, states.tree
    curvature, mu = (jnp.asarray(constant, begin.dtype) for constant in constants[:2])
    # γ is the positive root of (1 + P)(Lγ + μ)γ = μ.
    linear = (1 + constants[2]) * mu
    gamma = 2 * mu / (linear + jnp.sqrt(linear**2 + 4 * linear * curvature))
    chi = None if simple is None else checked_loss(simple, fix="Write simple(params) -> number.")

    def prox(v: Array, rate: Array) -> Array:
        if proximal is None:
            return v / (1 + mu * rate)
        moved = proximal(tree(v), rate)
        check_like(moved, tree(v), what="what proximal returns", fix=_PROXIMAL)
        return space(moved).flat.astype(v.dtype)

    def value(x: Array, key: Key | None) -> Array:
        at = tree(x)
        strong = mu / 2 * jnp.sum(x**2) if chi is None else chi(at)
        return (f(at) + nonsmooth(at, key) + strong).astype(x.dtype)

    inner = rounds(Setting(tree, prox, gamma, curvature * gamma, mu))

    def one(carry: tuple[Array, Array, Array], now: tuple[Array, Key | None]) -> tuple[tuple, tuple[Array, Array]]:
        x, average, count = carry
        k, key = now
        pull = jax.grad(lambda x: f(tree(x)))(average + gamma * (x - average))
        x, tried, taken = inner(x, pull, k, key)
        average = average + gamma * (tried - average)
        count = count + taken
        return (x, average, count), (value(average, key), count)

    keys = None if key is None else jax.random.split(key, steps)
    carry = (begin, begin, jnp.array(0, jnp.int32))
    (_, average, _), (values, counts) = jax.lax.scan(one, carry, (jnp.arange(steps), keys))
    values = jnp.concatenate([value(begin, key)[None], values])
    params, result = outcome(tree(average), jnp.all(jnp.isfinite(values)), throw)
    return GradientSliding(params, values, counts, result)
