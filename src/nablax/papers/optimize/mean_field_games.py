"""Mixed equilibria by crowds of particles: how much either player could still gain.

Payoffs on the circle, trigonometric polynomials whose coefficients each key draws, without a pure equilibrium as a
rule. The gain of a best reply is a maximum over a grid, by the crowds' moments, exact for these payoffs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import mean_field_descent_ascent
from .._problems._descent import descended
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="mean-field-games",
    title="Two-Scale Gradient Descent Ascent Dynamics Finds Mixed Nash Equilibria of Continuous Games: A Mean-Field "
    "Perspective",
    year=2022,
    link="https://arxiv.org/abs/2212.08791",
    rooms=("optimize",),
    row=207,
    read="abstract",
)

_PARTICLES, _STEPS, _ORDER = 64, 1500, 2


class _Circles(NamedTuple):
    """Payoff φ(x)ᵀ A φ(y) with φ the constant, cosines and sines up to an order."""

    table: Float[Array, "features features"]

    def payoff(self, x: Array, y: Array) -> Array:
        return _features(x) @ self.table @ _features(y)

    def gain(self, xs: Float[Array, " N"], ys: Float[Array, " M"]) -> Float[Array, ""]:
        """What the best replies of both players to the other's mixture would bring together, 0 at an equilibrium."""
        replies = jax.vmap(_features)(jnp.linspace(0, 2 * jnp.pi, 256, endpoint=False))
        mine, yours = (jnp.mean(jax.vmap(_features)(points), axis=0) for points in (xs, ys))
        return jnp.max(replies @ self.table.T @ mine) - jnp.min(replies @ self.table @ yours)


def _features(x: Array) -> Array:
    orders = jnp.arange(1, _ORDER + 1)
    return jnp.concatenate([jnp.ones(1), jnp.cos(orders * x), jnp.sin(orders * x)])


def _problem(key: Key) -> tuple[_Circles, tuple[Array, Array], Key]:
    table_key, start_key, key = jax.random.split(key, 3)
    size = 2 * _ORDER + 1
    starts = jax.random.uniform(start_key, (2, _PARTICLES), maxval=2 * jnp.pi)
    return _Circles(jax.random.normal(table_key, (size, size))), (starts[0], starts[1]), key


def _noisy(setting: Array, key: Key) -> Array:
    """The temperature falls like one over the time, to a tenth of the payoff's unit divided by the setting."""
    game, start, key = _problem(key)
    sharpness, timescale = setting
    found = mean_field_descent_ascent(
        game.payoff,
        start,
        steps=_STEPS,
        step_size=0.02,
        sharpness=lambda step: sharpness * (0.1 + 0.9 * step / _STEPS),
        timescale=timescale,
        key=key,
        throw=False,
    )
    return game.gain(*found.params)


def _plain(rule: Callable[[Array], optax.GradientTransformation], *, averaged: bool = False) -> Run:
    """Crowds without noise; by the last points, or by those of the second half of the way together."""

    def run(setting: Array, key: Key) -> Array:
        game, start, _ = _problem(key)
        rate, timescale = setting
        optimizer = optax.partition({"x": rule(rate), "y": rule(rate * timescale)}, ("x", "y"))

        def total(crowds: tuple[Array, Array]) -> Array:
            return jnp.mean(jax.vmap(lambda x: jax.vmap(lambda y: game.payoff(x, y))(crowds[1]))(crowds[0]))

        def of_players(total: Callable) -> Callable:
            """The payoff's gradient for each point, downhill for the first player and uphill for the second."""

            def value_and_grad(*given: Any) -> tuple[Array, tuple[Array, Array]]:
                value, (down, up) = jax.value_and_grad(total)(*given)
                return value, (_PARTICLES * down, -_PARTICLES * up)

            return value_and_grad

        def where(crowds: tuple[Array, Array], *_: Any) -> tuple[Array, Array]:
            return crowds

        crowds, path = descended(total, start, optimizer, _STEPS, value_and_grad=of_players, record=where)
        if averaged:
            crowds = (path[0][_STEPS // 2 :].ravel(), path[1][_STEPS // 2 :].ravel())
        return game.gain(*crowds)

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Play games of which each key draws one.

    Args:
        key: of the games, starts and noise.
        full: ten times the games. The paper has no experiments of this kind.

    Returns:
        One check.
    """
    timescales = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
    rates = (0.002, 0.005, 0.01, 0.02, 0.05)
    runs = tuned(
        {
            "crowds with noise that dies down": _noisy,
            "descent and ascent, last points": _plain(optax.sgd),
            "optimistic gradients, last points": _plain(lambda rate: optax.optimistic_gradient_descent(rate)),
            "descent and ascent, averaged": _plain(optax.sgd, averaged=True),
        },
        {
            "crowds with noise that dies down": ((2.0, 5.0, 10.0, 20.0, 50.0), timescales),
            "descent and ascent, last points": (rates, timescales),
            "optimistic gradients, last points": (rates, timescales),
            "descent and ascent, averaged": (rates, timescales),
        },
        "lower",
        key=key,
        keys=250 if full else 25,
        tuning=2,
        ends={
            1 / 16: "a slower player stands still here",
            16.0: "a faster one overshoots",
            0.002: "slower ones do not come far in so many steps",
            0.05: "steps of a radian",
        },
    )
    return [
        Check(
            "With noise that dies down the crowds come nearer to a mixed equilibrium than descent and ascent without "
            "noise, optimistic ones, and their average over time: what both could gain is a third less or better.",
            "converges to the mixed equilibrium of the original objective by annealing, a theorem in the abstract",
            contrasts=runs.contrast("what the best replies would gain, units of the payoff", "lower", ratio=2 / 3),
        )
    ]


__all__ = ["PAPER", "checks"]
