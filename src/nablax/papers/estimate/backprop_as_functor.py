"""Backprop as functor: layers that learn from requests for a better input, and are gradient descent put together.

Three layers of eight tanh units each. The other way to send targets down is to invert the layer above, as target
propagation does: its parts learn too, but together they are no gradient descent.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key
from ...estimate import Learner, learner
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="backprop-as-functor",
    title="Backprop as Functor: A Compositional Perspective on Supervised Learning",
    year=2017,
    link="https://arxiv.org/abs/1711.10455",
    rooms=("estimate",),
    row=243,
    read="text",
)

_UNITS, _RATE = 8, 0.05


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train three layers from pairs, put together from learners, and by gradient descent on the whole.

    Args:
        key: of the layers and the pairs.
        full: ten times the pairs.

    Returns:
        One check.
    """
    keys = jax.random.split(key, 8)
    pairs = 2000 if full else 200
    requests = {"requests": _requested, "inverses": _inverted}
    found = {
        name: jax.jit(jax.vmap(lambda k, make=make: _distance(make, k, pairs)))(keys) for name, make in requests.items()
    }
    return [
        Check(
            "Learners that are composed by their requests train as gradient descent on the whole does.",
            "a theorem: making learners is a functor",
            contrasts=Contrast(
                "log10 of the weights' distance to gradient descent's, relative to how far that went",
                found,
                "lower",
                threshold=-4.0,
            ),
        )
    ]


def _layer(p: Float[Array, "units units"], a: Float[Array, " units"]) -> Float[Array, " units"]:
    return jnp.tanh(p @ a)


def _requested() -> Learner:
    one = learner(_layer, rate=_RATE)
    return one >> one >> one


def _inverted() -> Learner:
    """Each layer asks for the input that would have given what it is to give, moved there by the rate."""
    one = learner(_layer, rate=_RATE)

    def request(p: Array, a: Array, b: Array) -> Array:
        nearer = _layer(p, a) + _RATE * (b - _layer(p, a))
        return jnp.linalg.solve(p, jnp.arctanh(jnp.clip(nearer, -0.999, 0.999)))

    layer = Learner(one.implement, one.update, request)
    return layer >> layer >> layer


def _distance(make: Callable[[], Learner], key: Key, pairs: int) -> Float[Array, ""]:
    weight_key, pair_key = jax.random.split(key)
    # Near orthogonal ones, so that there is an inverse.
    drawn = jax.random.normal(weight_key, (3, _UNITS, _UNITS))
    weights = jnp.linalg.qr(drawn)[0]
    a, b = jnp.tanh(jax.random.normal(pair_key, (2, pairs, _UNITS)))
    together = make()

    def whole(p: Float[Array, "3 units units"], a: Array) -> Array:
        return _layer(p[2], _layer(p[1], _layer(p[0], a)))

    def descent(p: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        slope = jax.grad(lambda p: 0.5 * jnp.sum((whole(p, pair[0]) - pair[1]) ** 2))(p)
        return p - _RATE * slope, None

    def update(p: tuple, pair: tuple[Array, Array]) -> tuple[tuple, None]:
        return together.update(p, *pair), None

    # Own loops: a learner is its own update, and descent is put beside it pair by pair.
    exact = jax.lax.scan(descent, weights, (a, b))[0]
    (first, second), third = jax.lax.scan(update, ((weights[0], weights[1]), weights[2]), (a, b))[0]
    found = jnp.stack([first, second, third])
    return jnp.log10(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact - weights) + 1e-12)


__all__ = ["PAPER", "checks"]
