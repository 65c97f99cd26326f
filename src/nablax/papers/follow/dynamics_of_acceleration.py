r"""Accelerated methods and the equations that they step along: which equation is nearest, and which method arrives.

A piecewise quadratic on which heavy ball goes round in circles; regressions whose loss grows in proportion far off, on
which methods' points are held against the flow of equations; and quadratics that are bent at random, of which the worst
counts.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...follow import Solver, flow, momentum_field
from ...optimize import (
    triple_momentum,
    triple_momentum_coefficients,
    triple_momentum_eval_params,
    xgrad,
    xgrad_eval_params,
)
from .._contrast import Contrast, Curve
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="dynamics-of-acceleration",
    title="On the Dynamics of Acceleration in First order Gradient Methods",
    year=2025,
    link="https://arxiv.org/abs/2509.18346",
    rooms=("follow", "optimize"),
    row=69,
    read="abstract",
)

_TRIPLE, _NESTEROV, _BALL, _DESCENT = _METHODS = ("triple momentum", "Nesterov's method", "heavy ball", "descent")
_DAMPED, _UNDAMPED, _LOW = _EQUATIONS = (
    "the equation with the Hessian's damping",
    "that without it",
    "the low-resolution equation",
)
# The circle: curvatures from 1 to 25.
_LARGEST, _STEPS = 25.0, 100
# Regressions, and bent quadratics: columns, least curvature, steps.
_DIM, _ROWS, _MU, _ALONG = 10, 40, 0.05, 60
_WORST, _FUNCTIONS, _RATIO, _LONG = 10, 32, 400.0, 150

Loss = Callable[[Float[Array, "..."]], Float[Array, ""]]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Start where heavy ball circles, follow methods along, and put them to the worst of many functions.

    Args:
        key: of starts and functions.
        full: four times the repetitions.

    Returns:
        Four checks.
    """
    keys = 64 if full else 16
    circle_key, along_key, worst_key = jax.random.split(key, 3)
    circles = _over(_circled, _METHODS[:3], circle_key, keys)
    circle = Curve("step", np.arange(1, _STEPS + 1), circles)
    nesterov, triple = (
        _over(functools.partial(_apart, kind), _EQUATIONS, along_key, keys) for kind in (_NESTEROV, _TRIPLE)
    )
    worst = _over(_worst, _METHODS, worst_key, keys)

    def arrived(first: str) -> Contrast:
        values = {name: circles[name][:, -1] for name in (first, _BALL)}
        metric = "log10 of the distance to the minimum"
        return Contrast(metric, values, "lower", margin=3.0, curve=circle if first == _TRIPLE else None)

    def near(apart: dict[str, np.ndarray], of: str) -> Contrast:
        return Contrast(
            f"distance of {of}'s points from the flow, largest over their way, shares of the start's",
            {name: curve.max(axis=1) for name, curve in apart.items()},
            "lower",
            ratio=0.5,
            curve=Curve("step", np.arange(1, _ALONG + 1), apart),
        )

    return [
        Check(
            f"On a function with curvatures from 1 to 25, after {_STEPS} steps, triple momentum and Nesterov's method "
            "are at the minimum, and heavy ball is not, from any start near 3.3.",
            "justifies that heavy ball may not converge, in the abstract",
            contrasts=(arrived(_TRIPLE), arrived(_NESTEROV)),
        ),
        Check(
            "Nesterov's method goes along the equation with the Hessian's damping, at half of its distance from that "
            "without or less.",
            "Hessian damping explains the acceleration, in words",
            contrasts=near(nesterov, _NESTEROV),
        ),
        Check(
            "So does triple momentum.",
            "extends to triple momentum, in the abstract",
            contrasts=near(triple, _TRIPLE),
        ),
        Check(
            f"On the worst of {_FUNCTIONS} functions triple momentum is nearer to the minimum after {_LONG} steps than "
            "Nesterov's method, heavy ball and descent, each by the numbers that its theorem gives.",
            "the acceleration achieved by it, in the abstract",
            contrasts=Contrast(
                "log10 of the distance over the first, on the worst function",
                worst,
                "lower",
            ),
        ),
    ]


def _over(run: Callable[[Key], dict[str, Array]], names: Sequence[str], key: Key, keys: int) -> dict[str, np.ndarray]:
    """What is found by each key, in the order of the names, which a compiled program does not keep."""
    found = jax.jit(jax.vmap(run))(jax.random.split(key, keys))
    return {name: np.asarray(found[name]) for name in names}


def _numbers(kind: str, largest: float | Array, least: float | Array) -> tuple[Any, Any, Any]:
    """Rate, momentum and lookahead; heavy ball's are those for quadratics, of the others any function's."""
    root = jnp.sqrt(least / largest)
    if kind == _TRIPLE:
        return triple_momentum_coefficients(1 / largest, least)[:3]
    beta = (1 - root) / (1 + root)
    if kind == _NESTEROV:
        return 1 / largest, beta, beta
    return 4 / (jnp.sqrt(largest) + jnp.sqrt(least)) ** 2, beta**2, jnp.zeros(())


def _path(rule: optax.GradientTransformation, loss: Loss, start: Array, steps: int, read: Callable, key: Key) -> Array:
    """What is read of each step, of a loss without batches."""

    def record(params: Array, state: PyTree, value: Array) -> Array:
        return read(state, params)

    return trained(lambda x, batch: loss(x), start, rule, lambda step, key: None, steps, key=key, record=record)[1]


def _rules(largest: float, least: float) -> dict[str, tuple[optax.GradientTransformation, Callable]]:
    """Each method by its theorem's numbers, and what of it is read."""
    momentum = _numbers(_NESTEROV, largest, least)[1]
    alpha, beta, _ = _numbers(_BALL, largest, least)

    def held(state: PyTree, x: Array) -> Array:
        return x

    def output(state: PyTree, y: Array) -> Array:
        return triple_momentum_eval_params(state, y, 1 / largest, least)

    return {
        _TRIPLE: (triple_momentum(1 / largest, least), output),
        _NESTEROV: (optax.sgd(1 / largest, momentum, nesterov=True), held),
        _BALL: (optax.sgd(alpha, beta), held),
        _DESCENT: (optax.sgd(2 / (largest + least)), held),
    }


def _circled(key: Key) -> dict[str, Array]:
    """Decades of the distance after each step, on a parabola whose middle part is shallow."""

    def loss(x: Array) -> Array:
        middle, far = 12 + x**2 / 2 + 24 * (x - 1), 36 + 12.5 * x**2 - 24 * x
        return jnp.where(x < 1, 12.5 * x**2, jnp.where(x < 2, middle, far))

    start = 3.3 + jax.random.uniform(key, minval=-0.1, maxval=0.1)
    return {
        name: jnp.log10(jnp.maximum(jnp.abs(_path(rule, loss, start, _STEPS, read, key)), 1e-6))
        for name, (rule, read) in _rules(_LARGEST, 1.0).items()
        if name != _DESCENT
    }


def _apart(kind: str, key: Key) -> dict[str, Array]:
    """How far a method's points are from the flow of each equation at their times, in units of the start's distance."""
    rows_key, start_key = jax.random.split(key)
    rows = jax.random.normal(rows_key, (_ROWS, _DIM))
    largest = _MU + jnp.linalg.norm(rows, 2) ** 2 / _ROWS

    def loss(x: Array) -> Array:
        return _MU * jnp.sum(x**2) / 2 + jnp.mean(jnp.logaddexp(rows @ x, -rows @ x))

    start = jax.random.normal(start_key, (_DIM,))
    alpha, beta, gamma = _numbers(kind, largest, _MU)
    rule = xgrad(optax.sgd(alpha, beta), gamma)
    points = _path(rule, loss, start, _ALONG, xgrad_eval_params, key)
    time, gradient = jnp.sqrt(alpha), jax.grad(loss)
    ts = time * jnp.arange(1, _ALONG + 1)

    def distance(field: Any, velocity: Array) -> Array:
        tight = Solver(rtol=1e-5, atol=1e-6)
        ys, _ = flow(field, (start, velocity), 0.0, ts[-1], ts=ts, solver=tight).ys
        return jnp.linalg.norm(ys - points, axis=1) / jnp.linalg.norm(start)

    def low(t: Array, phase: PyTree, args: PyTree) -> PyTree:
        """To the order of a step's time: neither the Hessian's term nor the factors that tend to 1."""
        x, v = phase
        return v, -2 * (1 - beta) / ((1 + beta) * time) * v - gradient(x)

    begin = -time / (1 + beta) * gradient(start)
    return {
        _DAMPED: distance(momentum_field(gradient, rate=alpha, momentum=beta, lookahead=gamma), begin),
        _UNDAMPED: distance(momentum_field(gradient, rate=alpha, momentum=beta), begin),
        _LOW: distance(low, jnp.zeros(_DIM)),
    }


def _worst(key: Key) -> dict[str, Array]:
    """Decades from the start, on the function on which a method is farthest; curvatures from 1 to 400."""

    def one(key: Key) -> dict[str, Array]:
        steep_key, bend_key, start_key = jax.random.split(key, 3)
        steep = _RATIO ** jax.random.uniform(steep_key, (_WORST,))
        bend = jnp.exp(jax.random.normal(bend_key, (_WORST,)))

        def loss(x: Array) -> Array:
            """Of the steepness within a bend of each coordinate, and of curvature 1 beyond."""
            return jnp.sum(x**2) / 2 + jnp.sum((steep - 1) * bend**2 * optax.losses.huber_loss(x / bend))

        start = 3 * jax.random.normal(start_key, (_WORST,))
        ends = {
            name: _path(rule, loss, start, _LONG, read, key)[-1] for name, (rule, read) in _rules(_RATIO, 1.0).items()
        }
        return {name: jnp.log10(jnp.linalg.norm(end) / jnp.linalg.norm(start)) for name, end in ends.items()}

    found = jax.vmap(one)(jax.random.split(key, _FUNCTIONS))
    return {name: jnp.max(values) for name, values in found.items()}


__all__ = ["PAPER", "checks"]
