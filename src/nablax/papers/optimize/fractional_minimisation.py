"""Ratios by coordinates: sparse recovery over the sum of the largest, independent components over a four-norm.

Each from a random start, with as many passes: a pass over all coordinates reads the matrix once forward and once back,
as a gradient does; it takes more time.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import AbstractDenominator, SquaredFourNorm, TopSum, fractional_descent
from .._problems._training import trained
from .._problems._tuning import Runs, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="fractional-minimisation",
    title="Coordinate Descent Methods for Fractional Minimization",
    year=2023,
    link="https://arxiv.org/abs/2201.12691",
    rooms=("optimize",),
    row=203,
    read="abstract",
)

_PASSES, _INNER = 30, 5
_PENALTY, _SPARSE = 0.1, 8
_RATIO, _DIFFERENCE = "coordinates, the ratio", "coordinates, the difference"
_STEPS, _LONG, _ADAM, _POINT = "Dinkelbach's steps", "Dinkelbach's steps, accelerated", "Adam", "fixed-point iteration"


class _Problem(NamedTuple):
    """(½‖Ax − b‖² + ρ‖x‖₁) / g, and a start."""

    matrix: Float[Array, "rows dim"]
    target: Float[Array, " rows"]
    penalty: float
    denominator: AbstractDenominator
    start: Float[Array, " dim"]

    def smooth(self, x: Array) -> Array:
        return jnp.sum((self.matrix @ x - self.target) ** 2) / 2

    def value(self, x: Array) -> Array:
        return (self.smooth(x) + self.penalty * jnp.sum(jnp.abs(x))) / self.denominator(x)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Compare ratios after 30 passes from random starts, baselines at the best of nine settings.

    Args:
        key: of data, starts and orders.
        full: 256 coordinates and 64 components. The paper's data, which are real, are at neither scale.

    Returns:
        Three checks.
    """
    dim, components = (256, 64) if full else (60, 12)
    rates, adam = (2.0 ** np.arange(-5, 4)).tolist(), (10.0 ** np.linspace(-3, 1, 9)).tolist()

    def runs(problem: Callable[[Key], _Problem], methods: dict[str, Callable], key: Key) -> Runs:
        def on(method: Callable) -> Callable:
            return lambda setting, key: method(problem(key), setting, key)

        return tuned(
            {name: on(method) for name, method in methods.items()},
            {name: adam if name == _ADAM else rates for name in methods},
            "lower",
            key=key,
            keys=10,
            tuning=5,
            ends={rates[-1]: "a step of no end is the fixed-point iteration"},
            passes=dict.fromkeys(methods, _PASSES),
        )

    methods = {_RATIO: _by_ratio, _DIFFERENCE: _by_difference, _STEPS: _steps, _LONG: _accelerated, _ADAM: _adam}
    sparse = runs(lambda key: _sparse(dim, key), methods, key)
    independent = runs(
        lambda key: _independent(components, key), methods | {_POINT: _fixed_point}, jax.random.fold_in(key, 1)
    )
    metric, stated = f"ratio after {_PASSES} passes", "more accurate than all others, in words"
    slower = (_STEPS, _LONG, _ADAM)
    return [
        Check(
            "In sparse recovery the ratio minimised by coordinates ends lower than by proximal steps of Dinkelbach's "
            "kind, accelerated or not, or by Adam.",
            stated,
            contrasts=sparse.contrast(metric, "lower", against=slower),
        ),
        Check(
            "So does the difference.",
            stated,
            contrasts=_of(sparse, _DIFFERENCE).contrast(metric, "lower", against=slower),
        ),
        Check(
            "Of independent components it ends lower than by these, or by the fixed-point iteration in use there.",
            stated,
            expected=False,
            tried="random orders, passes up to 30, the difference in place of the ratio",
            contrasts=independent.contrast(metric, "lower", against=(*slower, _POINT)),
        ),
    ]


def _of(runs: Runs, method: str) -> Runs:
    """The same runs, of another method."""
    return runs._replace(results={method: runs.results[method]} | runs.results)


def _sparse(dim: int, key: Key) -> _Problem:
    """Few entries, seen through two thirds as many random sums with noise."""
    matrix_key, place_key, value_key, noise_key, start_key = jax.random.split(key, 5)
    rows = 2 * dim // 3
    matrix = jax.random.normal(matrix_key, (rows, dim)) / rows**0.5
    places = jax.random.permutation(place_key, dim) < _SPARSE
    truth = jnp.where(places, jax.random.normal(value_key, (dim,)), 0.0)
    target = matrix @ truth + 0.05 * jax.random.normal(noise_key, (rows,))
    return _Problem(matrix, target, _PENALTY, TopSum(_SPARSE), jax.random.normal(start_key, (dim,)))


def _independent(components: int, key: Key) -> _Problem:
    """Whitened mixtures of Laplace noise: along a component the four-norm is largest."""
    source_key, mix_key, start_key = jax.random.split(key, 3)
    rows = 40 * components
    mixed = jax.random.laplace(source_key, (rows, components)) @ jax.random.normal(mix_key, (components, components))
    white = jnp.linalg.qr(mixed)[0] * rows**0.5
    start = jax.random.normal(start_key, (components,))
    return _Problem(jnp.eye(components), jnp.zeros(components), 0.0, SquaredFourNorm(white / rows**0.25), start)


def _coordinates(problem: _Problem, key: Key, parametric: bool) -> Array:
    return fractional_descent(
        problem.matrix,
        problem.target,
        problem.denominator,
        problem.start,
        steps=_PASSES,
        penalty=problem.penalty,
        parametric=parametric,
        key=key,
        throw=False,
    ).values[-1]


def _by_ratio(problem: _Problem, setting: Array, key: Key) -> Array:
    return _coordinates(problem, key, False)


def _by_difference(problem: _Problem, setting: Array, key: Key) -> Array:
    return _coordinates(problem, key, True)


def _ended(problem: _Problem, loss: Callable, rule: optax.GradientTransformation) -> Array:
    """The ratio that a rule ends with, or that of the start where it is no number."""
    end, _ = trained(lambda x, _: loss(x), problem.start, rule, lambda step, key: (), _PASSES, key=jax.random.key(0))
    # Without a penalty the length is nothing to the ratio, but may leave what a number can be.
    last = problem.value(end if problem.penalty else end / jnp.linalg.norm(end))
    return jnp.where(jnp.isfinite(last), last, problem.value(problem.start))


def _curvature(problem: _Problem) -> Array:
    return jnp.linalg.eigvalsh(problem.matrix.T @ problem.matrix)[-1]


def _shrunk(problem: _Problem, x: Array, rate: Array) -> Array:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - rate * problem.penalty, 0)


def _steps(problem: _Problem, setting: Array, key: Key) -> Array:
    """A proximal step on N - F g, F renewed at each; one on the quadratic transform of the ratio is the same."""
    rate = setting / _curvature(problem)

    def loss(x: Array) -> Array:
        return problem.smooth(x) - jax.lax.stop_gradient(problem.value(x)) * problem.denominator(x)

    def update(gradient: Array, state: tuple, x: Array) -> tuple[Array, tuple]:
        return _shrunk(problem, x - rate * gradient, rate) - x, state

    return _ended(problem, loss, optax.GradientTransformation(lambda x: (), update))


def _accelerated(problem: _Problem, setting: Array, key: Key) -> Array:
    """F and the denominator's slope are held for a few steps of FISTA on what is convex then."""
    rate = setting / _curvature(problem)

    def init(x: Array) -> tuple[Array, ...]:
        return jnp.array(0), x, jnp.zeros_like(x)

    def update(gradient: Array, state: tuple[Array, ...], y: Array) -> tuple[Array, tuple[Array, ...]]:
        count, last, pull = state
        turn = count % _INNER
        pull = jnp.where(turn == 0, problem.value(y) * jax.grad(problem.denominator)(y), pull)
        x = _shrunk(problem, y - rate * (gradient - pull), rate)
        # At the last of the few no momentum is taken along: the next has another objective.
        inertia = jnp.where(turn == _INNER - 1, 0.0, turn / (turn + 3.0))
        return x + inertia * (x - last) - y, (count + 1, x, pull)

    return _ended(problem, problem.smooth, optax.GradientTransformation(init, update))


def _adam(problem: _Problem, setting: Array, key: Key) -> Array:
    return _ended(problem, problem.value, optax.adam(setting))


def _fixed_point(problem: _Problem, setting: Array, key: Key) -> Array:
    """The slope of the four-norm, made of length 1, in place of the direction."""

    def update(gradient: Array, state: tuple, x: Array) -> tuple[Array, tuple]:
        return gradient / jnp.linalg.norm(gradient) - x, state

    return _ended(problem, problem.denominator, optax.GradientTransformation(lambda x: (), update))


__all__ = ["PAPER", "checks"]
