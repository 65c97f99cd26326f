r"""The classic rules where their overview draws them, at a saddle and on Beale's function, and on sparse rows.

The overview, whose text was read, says in words what its pictures show, of one start and one rate each. Here every rule
has the best of twelve rates, and starts are drawn with the keys. At the saddle

.. math:: f(x, y) = c x^2 / 2 - y^2 + y^4 / 4

all begin at x near 1 and y within a thousandth of the ridge; c is 2, as in the picture, and 200.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..._core import Key
from .._contrast import Contrast
from .._problems._training import trained
from .._problems._tuning import Runs, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="overview-of-gradient-descent",
    title="An overview of gradient descent optimization algorithms",
    year=2016,
    link="https://arxiv.org/abs/1609.04747",
    rooms=("optimize",),
    row=174,
    read="text",
)

_STEPS = 2000
_PLAIN: dict[str, Callable[[Array], Any]] = {
    "SGD": optax.sgd,
    "momentum .9": lambda rate: optax.sgd(rate, momentum=0.9),
    "Nesterov's momentum .9": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
}
_ADAPTIVE: dict[str, Callable[[Array], Any]] = {
    "Adagrad": lambda rate: optax.adagrad(rate, initial_accumulator_value=0.0),
    "RMSProp": optax.rmsprop,
    "Adadelta": optax.adadelta,
}

_RATES = {
    name: [float(rate) for rate in 10.0 ** (0.4 * jnp.arange(-9, 3) + shift)]
    for name, shift in {"Adadelta": 2.0, "Adagrad": 0.4, "RMSProp": 0.0, **dict.fromkeys(_PLAIN, 0.0)}.items()
}


def _saddle(curvature: float) -> tuple[Callable, Callable]:
    def height(point: Array) -> Array:
        """Above the minimum, which is -1."""
        x, y = point[0], point[1]
        return curvature * x**2 / 2 - y**2 + y**4 / 4 + 1

    def start(key: Key) -> Array:
        return jnp.array([1.0, 1e-3]) * (1 + 0.2 * jax.random.normal(key, (2,)))

    return height, start


def _beale() -> tuple[Callable, Callable]:
    def height(point: Array) -> Array:
        x, y = point[0], point[1]
        return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2

    def start(key: Key) -> Array:
        return jax.random.uniform(key, (2,), minval=0.5, maxval=1.5)

    return height, start


def _until(height: Callable, start: Callable, make: Callable[[Array], Any], goal: float) -> Callable:
    """Steps until the height is below the goal, as decades; of a run that never gets there all of them."""

    def run(rate: Array, key: Key) -> Array:
        optimizer, point = make(rate), start(key)

        def go_on(carry: tuple[Array, Any, Array]) -> Array:
            point, _, number = carry
            return (number < _STEPS) & ~(height(point) < goal)

        def step(carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
            point, state, number = carry
            updates, state = optimizer.update(jax.grad(height)(point), state, point)
            return optax.apply_updates(point, updates), state, number + 1

        # Own loop: it ends at a goal.
        *_, number = jax.lax.while_loop(go_on, step, (point, optimizer.init(point), jnp.zeros((), jnp.int32)))
        return jnp.log10(jnp.maximum(number, 1).astype(jnp.float32))

    return run


_FEATURES, _EXAMPLES, _FRESH = 400, 2000, 8000


def _sparse(make: Callable[[Array], Any]) -> Callable:
    """One pass over rows of a few features each, the k-th in a share 1/(k+1) of them: the loss on fresh rows.

    With 2,000 fresh rows and 8 keys, as it stood first, nothing was resolved.
    """

    def run(rate: Array, key: Key) -> Array:
        truth_key, row_key, sign_key = jax.random.split(key, 3)
        truth = jax.random.normal(truth_key, (_FEATURES,))
        present = jax.random.uniform(row_key, (_EXAMPLES + _FRESH, _FEATURES)) < 1 / (1 + jnp.arange(_FEATURES))[None]
        rows = present.astype(jnp.float32)
        signs = jnp.where(jax.random.uniform(sign_key, (len(rows),)) < jax.nn.sigmoid(2 * rows @ truth), 1.0, -1.0)

        def loss(w: Array, rows: Array, signs: Array) -> Array:
            return jnp.mean(jax.nn.softplus(-signs * (rows @ w)))

        batches = rows[:_EXAMPLES].reshape(-1, 4, _FEATURES), signs[:_EXAMPLES].reshape(-1, 4)
        w, _ = trained(
            lambda w, batch: loss(w, *batch),
            jnp.zeros(_FEATURES),
            make(rate),
            lambda step, key: (batches[0][step], batches[1][step]),
            _EXAMPLES // 4,
            key=key,
        )
        return jnp.nan_to_num(jnp.minimum(loss(w, rows[_EXAMPLES:], signs[_EXAMPLES:]), 10.0), nan=10.0)

    return run


def _each(runs: Runs, metric: str, methods: Mapping[str, Any], **decides: Any) -> tuple[Contrast, ...]:
    """Each of these methods against all that adapt nothing."""
    return tuple(
        Contrast(
            metric,
            {one: runs.results[one], **{name: runs.results[name] for name in _PLAIN}},
            "lower",
            settings={name: runs.settings[name] for name in (one, *_PLAIN)},
            **decides,
        )
        for one in methods
    )


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Race the rules in the plane, and train on sparse rows.

    Args:
        key: of starts and rows.
        full: four times as many repetitions.

    Returns:
        Four checks.
    """
    count = 64 if full else 16
    every = {**_ADAPTIVE, **_PLAIN}
    keys = jax.random.split(key, 4)
    races = [
        tuned(
            {name: _until(*problem, make, goal) for name, make in every.items()},
            _RATES,
            "lower",
            key=one,
            keys=count,
            tuning=4,
        )
        for problem, goal, one in (
            (_saddle(2.0), 0.1, keys[0]),
            (_saddle(200.0), 0.1, keys[1]),
            (_beale(), 0.01, keys[2]),
        )
    ]
    sparse = tuned({name: _sparse(make) for name, make in every.items()}, _RATES, "lower", key=keys[3], keys=count)
    steps = "steps to within a tenth of the minimum, decades"
    return [
        Check(
            "From beside the ridge of an even saddle Adagrad, RMSProp and Adadelta get down in fewer steps than SGD "
            "and momentum.",
            "a picture: they head down the slope at once, the others are stuck for long",
            contrasts=_each(races[0], steps, _ADAPTIVE),
        ),
        Check(
            "So they do where the saddle is a hundred times steeper across than along, in half the steps.",
            "the same picture, in words: the others oscillate across ravines",
            contrasts=_each(races[1], steps, _ADAPTIVE, margin=0.3),
        ),
        Check(
            "On Beale's function they arrive in fewer steps than momentum, Nesterov's or not, and SGD.",
            "a picture: momentum is led off the track",
            expected=False,
            tried="every rule at the best of twelve rates, from 16 starts: the picture's order is one of its rates",
            contrasts=_each(races[2], "steps to a height of 0.01, decades", _ADAPTIVE),
        ),
        Check(
            "On rows whose features are rare Adagrad learns more from one pass than SGD and momentum.",
            "in words: well suited to sparse data",
            contrasts=_each(sparse, "loss on fresh rows, nats", {"Adagrad": None}),
        ),
    ]


__all__ = ["PAPER", "checks"]
