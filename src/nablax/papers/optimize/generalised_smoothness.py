"""Phase retrieval, whose curvature grows with the slope: powers of the gradient's norm, and SPIDER.

Half the mean squared error of squared projections, a polynomial of degree four: the authors' problem with fewer rows
and dimensions. Steps are counted without noise, gradients are measured with it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import beta_normalised, scale_by_beta_norm, spider
from .._problems._descent import descended
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="generalised-smoothness",
    title="Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth Nonconvex Optimization",
    year=2023,
    link="https://arxiv.org/abs/2303.02854",
    rooms=("optimize",),
    row=158,
    read="code",
)

_DIM, _ROWS, _MOST = 20, 400, 1000
_STARTS = (5.0, 30.0)
_EVERY, _SMALL, _EPOCHS = 5, 20, 20


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Count steps from starts near and far, and measure gradients after equal numbers of rows.

    Args:
        key: of the problem and the starts.
        full: 100 dimensions and 3,000 rows, the authors' numbers, and five times the steps.

    Returns:
        Four checks.
    """
    dim, rows, most = (100, 3000, 5 * _MOST) if full else (_DIM, _ROWS, _MOST)
    counted = tuned(
        {name: _steps(make, dim, rows, most) for name, (make, _) in _RULES.items()},
        {name: (least * 2.0 ** np.arange(16)).tolist() for name, (_, least) in _RULES.items()},
        "lower",
        key=jax.random.fold_in(key, 0),
        keys=5,
        tuning=4,
        of="steps",
    )
    noisy = tuned(
        {name: _measured(name, dim, rows) for name in _STOCHASTIC},
        {name: (least * 2.0 ** np.arange(12)).tolist() for name, least in _STOCHASTIC.items()},
        "lower",
        key=jax.random.fold_in(key, 1),
        keys=5,
    )
    metric = "steps until the loss is 1e-6 of what it is at zero, mean of starts at 5 and 30"
    return [
        Check(
            "With the power 2/3 descent takes at most half the steps that it takes with no power or the power 1, from "
            "a near and a far start at one rate.",
            "the optimal number of steps, a theorem in the abstract; faster on phase retrieval in a figure of the code",
            contrasts=counted.contrast(
                metric, "lower", of="steps", against=("gradient descent", "normalised descent"), ratio=0.5
            ),
            moved_from="the same, of Adam too",
        ),
        Check(
            "It takes at most half of Adam's.",
            "not among the code's baselines",
            expected=False,
            tried="sixteen rates each, a factor of two apart: fewer by a third",
            contrasts=counted.contrast(metric, "lower", of="steps", against=("Adam",), ratio=0.5),
        ),
        Check(
            "It takes no more steps than descent by gradients that are clipped at a norm of 10.",
            "clipped descent is a baseline of the code's",
            contrasts=counted.contrast(
                metric,
                "lower",
                of="steps",
                against=("clipped descent",),
            ),
        ),
        Check(
            "After as many rows SPIDER leaves a smaller gradient than stochastic descent, normalised or clipped.",
            "the optimal number of samples, a theorem in the abstract",
            expected=False,
            tried="large batches at every fifth and every twentieth step, small ones of 20 rows of 400, twelve rates: "
            "with so few rows a large batch costs as much as twenty small steps",
            contrasts=noisy.contrast(f"norm of the full gradient after {_EPOCHS} passes, over that at first", "lower"),
        ),
    ]


def _clipped(rate: Array) -> optax.GradientTransformation:
    """Steps of at most one length, and below it descent; as in the code, the rate scales both."""
    return optax.chain(optax.clip_by_global_norm(10.0), optax.sgd(rate))


_RULES: dict[str, tuple[Callable, float]] = {
    "power 2/3": (beta_normalised, 2.0**-9),
    "gradient descent": (optax.sgd, 2.0**-18),
    "normalised descent": (lambda rate: beta_normalised(rate, 1.0), 2.0**-10),
    "Adam": (optax.adam, 2.0**-10),
    "clipped descent": (_clipped, 2.0**-9),
}
_STOCHASTIC = {
    "SPIDER": 2.0**-11,
    "stochastic descent": 2.0**-16,
    "normalised stochastic descent": 2.0**-11,
    "clipped stochastic descent": 2.0**-11,
}


def _problem(key: Key, dim: int, rows: int, noise: float) -> tuple[Float[Array, "rows dim"], Float[Array, " rows"]]:
    matrix_key, truth_key, noise_key = jax.random.split(key, 3)
    matrix = jax.random.normal(matrix_key, (rows, dim)) * 0.5**0.5
    truth = jax.random.normal(truth_key, (dim,))
    return matrix, (matrix @ truth) ** 2 + noise * jax.random.normal(noise_key, (rows,))


def _loss(x: Float[Array, " dim"], matrix: Array, y: Array) -> Float[Array, ""]:
    return jnp.mean(((matrix @ x) ** 2 - y) ** 2) / 4


def _steps(make: Callable, dim: int, rows: int, most: int) -> Callable[[Array, Key], dict[str, Array]]:
    """Steps to a small loss, without noise; as many as are made where it is not reached."""

    def run(rate: Float[Array, ""], key: Key) -> dict[str, Array]:
        problem_key, start_key = jax.random.split(key)
        matrix, y = _problem(problem_key, dim, rows, 0.0)
        direction = jax.random.normal(start_key, (dim,))
        small = 1e-6 * jnp.mean(y**2) / 4  # of the loss at zero
        rule = make(rate)

        def count(distance: float) -> Array:
            start = distance * direction / jnp.linalg.norm(direction)

            _, values = descended(lambda x: _loss(x, matrix, y), start, rule, most, record=lambda x, s, value: value)
            reached = values < small
            return jnp.where(jnp.any(reached), jnp.argmax(reached), most)

        counts = [count(distance) for distance in _STARTS]
        return {"steps": jnp.mean(jnp.stack(counts).astype(jnp.float32))}

    return run


def _measured(name: str, dim: int, rows: int) -> Callable[[Array, Key], Array]:
    """The gradient that is left after some passes over the rows, noisy ones, from where descent has been led to."""

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        problem_key, start_key, run_key = jax.random.split(key, 3)
        matrix, y = _problem(problem_key, dim, rows, 4.0)
        start = jax.random.normal(start_key, (dim,)) + 5.0
        x, _ = descended(lambda x: _loss(x, matrix, y), start, beta_normalised(0.1), 30)
        draw = _spider if name == "SPIDER" else _stochastic(name)
        found = draw(rate, x, matrix, y, run_key)
        return jnp.linalg.norm(jax.grad(_loss)(found, matrix, y)) / jnp.linalg.norm(jax.grad(_loss)(x, matrix, y))

    return run


def _spider(rate: Array, x: Array, matrix: Array, y: Array, key: Key) -> Array:
    """Rounds of one gradient of all rows and four of two small ones each."""
    rule = spider(rate, every=_EVERY)
    rounds = _EPOCHS * len(y) // (len(y) + 2 * (_EVERY - 1) * _SMALL)

    def one(carry: tuple, a: Array, b: Array) -> tuple:
        x, state = carry
        value_and_grad = jax.value_and_grad(_loss)
        updates, state = rule.update(value_and_grad(x, a, b)[1], state, x, grad_fn=lambda at: value_and_grad(at, a, b))
        return optax.apply_updates(x, updates), state

    def small(carry: tuple, rows: Array) -> tuple[tuple, None]:
        return one(carry, matrix[rows], y[rows]), None

    def round_of(carry: tuple, key: Key) -> tuple[tuple, None]:
        batches = jax.random.randint(key, (_EVERY - 1, _SMALL), 0, len(y))
        # Own loops: a large batch, then small ones.
        return jax.lax.scan(small, one(carry, matrix, y), batches)

    # Own loop: as above.
    (x, _), _ = jax.lax.scan(round_of, (x, rule.init(x)), jax.random.split(key, rounds))
    return x


def _stochastic(name: str) -> Callable[..., Array]:
    def run(rate: Array, x: Array, matrix: Array, y: Array, key: Key) -> Array:
        first: Any = {
            "stochastic descent": optax.identity(),
            "normalised stochastic descent": scale_by_beta_norm(1.0),
            "clipped stochastic descent": optax.clip_by_global_norm(1.0),
        }[name]
        rule = optax.chain(first, optax.sgd(rate))
        batches = jax.random.randint(key, (_EPOCHS * len(y) // _SMALL, _SMALL), 0, len(y))

        def loss(x: Array, rows: Array) -> Array:
            return _loss(x, matrix[rows], y[rows])

        return trained(loss, x, rule, lambda step, _: batches[step], len(batches), key=key)[0]

    return run


__all__ = ["PAPER", "checks"]
