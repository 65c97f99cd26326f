"""Two-timescale extragradient at local minimax points where the ascending player's curvature is singular.

Quadratic games of three numbers each: in two of the directions the first player's own curvature is negative and the
second has none, in the third it has some. Each method has the same number of gradients. Optimistic gradients with two
rates agree with extragradient to second order in the rate; the paper does not set itself against them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..._core import Key
from ...optimize import extragradient, two_timescale_extragradient
from .._problems._games import Game, decades, field, turned
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="two-timescale-extragradient",
    title="Two-timescale Extragradient for Finding Local Minimax Points",
    year=2023,
    link="https://arxiv.org/abs/2305.16242",
    rooms=("optimize",),
    row=253,
    read="abstract",
)

_GRADIENTS = 4000
_RATES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6)
_TIMESCALES = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)
_PAIR = (False, True)


def _game(key: Key) -> Game:
    """Zero is a local minimax point: where y has no curvature of its own it is B that holds x."""
    shape_key, turn_key = jax.random.split(key)
    own, coupling, last = jax.random.split(shape_key, 3)
    a = -jax.random.uniform(own, (3,), minval=0.1, maxval=0.3)
    b = jax.random.uniform(coupling, (3,), minval=0.8, maxval=1.4)
    c = jnp.array([0.0, 0.0, 1.0]) * jax.random.uniform(last, (), minval=0.5, maxval=1.0)
    return turned(Game(jnp.diag(a), jnp.diag(b), jnp.diag(c)), turn_key)


def _adam(rate: jax.Array, timescale: jax.Array) -> optax.GradientTransformation:
    return field(optax.partition({"x": optax.adam(rate / timescale), "y": optax.adam(rate)}, ("x", "y")))


def _descent(rate: jax.Array, timescale: jax.Array) -> optax.GradientTransformation:
    return field(optax.partition({"x": optax.sgd(rate / timescale), "y": optax.sgd(rate)}, ("x", "y")))


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Play games of which each key draws one, by every method at its best rates.

    Args:
        key: of the games and starts.
        full: 64 games. The paper's experiments are at neither scale.

    Returns:
        One check.
    """

    def run(make: Callable[..., optax.GradientTransformation], a_step: int) -> Run:
        def one(setting: Array, key: Key) -> Array:
            game_key, start_key = jax.random.split(key)
            return decades(make(*setting), _game(game_key), start_key, gradients=_GRADIENTS, a_step=a_step)

        return one

    runs = tuned(
        {
            "two-timescale extragradient": run(
                lambda rate, timescale: two_timescale_extragradient(rate, timescale, ascends=_PAIR), 2
            ),
            "descent and ascent with two rates": run(_descent, 1),
            "extragradient with one rate": run(lambda rate, _: extragradient(rate, ascends=_PAIR), 2),
            "Adam with two rates": run(_adam, 1),
        },
        {
            "two-timescale extragradient": (_RATES, _TIMESCALES),
            "descent and ascent with two rates": (_RATES, _TIMESCALES),
            "extragradient with one rate": (_RATES, _TIMESCALES),
            "Adam with two rates": (tuple(0.002 * 2.0**k for k in range(9)), _TIMESCALES),
        },
        "lower",
        key=key,
        keys=64 if full else 16,
        tuning=8,
        ends={
            _RATES[0]: "a rule that spirals out does so least where it hardly moves",
            0.002: "the same",
            0.25: "the same",
            128: "the same",
        },
    )
    metric = "distance to the point over the first after 4,000 gradients, decades"
    failing = ("descent and ascent with two rates", "Adam with two rates")
    return [
        Check(
            "It comes to local minimax points at which the ascending player's curvature is singular, by two decades or "
            "more, where descent and ascent and Adam, both with two rates, do not; and by two more than with one rate.",
            "converges under mild conditions, without a nondegenerate Hessian, where two-timescale gradient descent "
            "ascent fails, a theorem in the abstract",
            contrasts=[
                runs.contrast(metric, "lower", threshold=-2.0, against=failing),
                runs.contrast(metric, "lower", margin=2.0, against=("extragradient with one rate",)),
            ],
            moved_from="extragradient with one rate was among those that do not come to -2; it does in most games here",
        )
    ]


__all__ = ["PAPER", "checks"]
