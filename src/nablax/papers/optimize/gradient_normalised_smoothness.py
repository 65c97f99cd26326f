"""Gradient-normalised Newton on logistic regression from afar, with the Hessian and with the empirical Fisher matrix.

500 rows of 20 features whose scales span two decades, noisy labels, starts with weights of size 3. Nothing of the
method is tuned. The others are: damping that stays, a line search, and first-order rules with as many gradients more as
the method takes products.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...calculus import fisher_product, hessian_product
from ...follow import train_step
from ...optimize import gradient_normalised_newton
from .._contrast import Contrast
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-normalised-smoothness",
    title="Gradient-Normalized Smoothness for Optimization with Approximate Hessians",
    year=2025,
    link="https://arxiv.org/abs/2506.13710",
    rooms=("optimize",),
    row=0,
    read="code",
)

_ROWS, _FEATURES = 500, 20
_LEAST = 1e-6  # what single precision tells of a loss


class _Problem(NamedTuple):
    rows: Float[Array, "rows features"]  # each times its label, 1 or -1
    start: Float[Array, " features"]


def _problem(key: Key) -> _Problem:
    row_key, weight_key, label_key, start_key = jax.random.split(key, 4)
    rows = jax.random.normal(row_key, (_ROWS, _FEATURES)) * jnp.geomspace(1.0, 1e-2, _FEATURES)[None]
    weights = jax.random.normal(weight_key, (_FEATURES,))
    likely = jax.nn.sigmoid(2 * rows @ weights)
    labels = jnp.where(jax.random.bernoulli(label_key, likely), 1.0, -1.0)
    return _Problem(rows * labels[:, None], 3 * jax.random.normal(start_key, (_FEATURES,)))


def _losses(w: Array, rows: Array) -> Float[Array, " rows"]:
    return jnp.logaddexp(0, -rows @ w)


def _loss(w: Array, rows: Array) -> Float[Array, ""]:
    return jnp.mean(_losses(w, rows))


def _solving(damping: Any) -> optax.GradientTransformationExtraArgs:
    """The whole step with the same curvature, and damping that stays."""

    def update(
        grads: Array, state: Any, params: Any = None, *, product_fn: Callable | None = None, **extra: Any
    ) -> tuple[Array, Any]:
        assert product_fn is not None
        matrix = jax.vmap(product_fn)(jnp.eye(_FEATURES)) + damping * jnp.eye(_FEATURES)
        return -jnp.linalg.solve(matrix, grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _searching(damping: Any) -> optax.GradientTransformationExtraArgs:
    return optax.chain(_solving(damping), optax.scale_by_backtracking_linesearch(40))


def _run(make: Callable, product: Callable, steps: int) -> Callable[[Array, Key], Array]:
    def run(setting: Array, key: Key) -> Float[Array, ""]:
        problem = _problem(key)

        def trained(optimizer: optax.GradientTransformation, product: Callable, steps: int) -> Array:
            step = train_step(
                _loss, optimizer, extra=lambda w, rows, grads: {"product_fn": lambda v: product(w, v, rows)}
            )
            start = (problem.start, optimizer.init(problem.start))
            w, _ = jax.lax.fori_loop(0, steps, lambda _, c: step(*c, problem.rows)[:2], start)
            return _loss(w, problem.rows)

        # Where 100 steps of Newton's with a line search end nothing is left to gain in single precision.
        best = trained(_searching(1e-6), hessian_product(_loss), 100)
        gap = trained(make(setting), product, steps) - best
        return jnp.log10(jnp.clip(jnp.nan_to_num(gap, nan=1e3), _LEAST, 1e3))

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Minimise from afar with the Hessian in 20 steps, and with the Fisher matrix in 200.

    Args:
        key: of data and starts.
        full: four times the keys. The paper's softmax regressions and networks are at neither scale.

    Returns:
        Two checks.
    """
    keys = 32 if full else 8
    exact_key, fisher_key = jax.random.split(key)
    dampings = [10.0**power for power in range(-6, 6)]
    rates = [float(f"{10 ** (half / 2):.2g}") for half in range(-6, 6)]

    def compared(product: Callable, steps: int, key: Key) -> Contrast:
        solving = partial(_run, product=product, steps=steps)
        descending = partial(_run, product=product, steps=steps * (_FEATURES + 2))
        methods = {
            "gradient-normalised Newton": solving(lambda _: gradient_normalised_newton()),
            "damping that stays": solving(_solving),
            "the same, with a line search": solving(_searching),
            "descent": descending(optax.sgd),
            "Adam": descending(optax.adam),
        }
        first, stays, searched, *others = methods
        grid = {first: rates, stays: dampings, searched: dampings} | dict.fromkeys(others, rates)
        ends = {1e-6: "no damping"}
        found = tuned(methods, grid, "lower", key=key, keys=keys, ends=ends)
        return found.contrast(f"log10 of the loss above its minimum after {steps} steps", "lower")

    return [
        Check(
            "With the Hessian, untuned, it is nearer the minimum after 20 steps than Newton's method with tuned "
            "damping, with or without a line search, and than tuned descent and Adam of 22 gradients for each of its "
            "steps.",
            "global linear rates on logistic regression, in the abstract",
            contrasts=compared(hessian_product(_loss), 20, exact_key),
        ),
        Check(
            "And so it is with the empirical Fisher matrix after 200 steps.",
            "the same with approximate Hessians",
            contrasts=compared(fisher_product(_losses), 200, fisher_key),
        ),
    ]


__all__ = ["PAPER", "checks"]
