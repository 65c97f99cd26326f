"""Gradient-normalised Newton on logistic regression from afar, with the Hessian and with the empirical Fisher matrix.

500 rows of 20 features whose scales span two decades, noisy labels, starts with weights of size 3. Nothing of the
method is tuned. A step of a second-order method counts as 22: a product for each feature, a gradient, and a trial.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...calculus import fisher_product, hessian_product
from ...optimize import gradient_normalised_newton
from .._contrast import Contrast
from .._problems._training import trained
from .._problems._tuning import Runs, tuned
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
_NEAR = 1e-5  # a hundred roundings of the loss


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


def _searching(damping: Any) -> optax.GradientTransformationExtraArgs:
    """The whole step with the same curvature and damping that stays, shortened until the loss falls."""

    def update(
        grads: Array, state: Any, params: Any = None, *, product_fn: Callable | None = None, **extra: Any
    ) -> tuple[Array, Any]:
        assert product_fn is not None
        matrix = jax.vmap(product_fn)(jnp.eye(_FEATURES)) + damping * jnp.eye(_FEATURES)
        return -jnp.linalg.solve(matrix, grads), state

    rule = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    return optax.chain(rule, optax.scale_by_backtracking_linesearch(40))


def _minimum(rows: Array) -> Float[Array, ""]:
    """By Newton's method from 0, where it converges."""

    def step(w: Array, _: None) -> tuple[Array, None]:
        return w - jnp.linalg.solve(
            jax.hessian(_loss)(w, rows) + 1e-7 * jnp.eye(_FEATURES), jax.grad(_loss)(w, rows)
        ), None

    # Own loop: Newton.
    return _loss(jax.lax.scan(step, jnp.zeros(_FEATURES), length=20)[0], rows)


def _run(make: Callable, product: Callable | None, steps: int, each: int) -> Callable[[Array, Key], Array]:
    """Logarithm of what it costs to come near the minimum, of ``each`` a step; all steps where it does not."""

    def run(setting: Array, key: Key) -> Float[Array, ""]:
        problem = _problem(key)
        optimizer = make(setting)

        def products(w: Array, rows: Array, grads: Array) -> dict[str, Any]:
            return {} if product is None else {"product_fn": lambda v: product(w, v, rows)}

        _, values = trained(
            _loss,
            problem.start,
            optimizer,
            lambda *_: problem.rows,
            steps,
            key=key,
            extra=products,
            record=lambda w, state, value: value,
        )
        near = values <= _minimum(problem.rows) + _NEAR
        return jnp.log10(each * jnp.where(jnp.any(near), jnp.argmax(near), steps).astype(jnp.float32))

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Count gradients and products from afar to near the minimum, with the Hessian and with the Fisher matrix.

    Args:
        key: of data and starts.
        full: four times the keys. The paper's softmax regressions and networks are at neither scale.

    Returns:
        Three checks.
    """
    keys = 32 if full else 8
    exact_key, fisher_key = jax.random.split(key)
    dampings = [10.0**power for power in range(-6, 6)]
    rates = [float(f"{10 ** (half / 2):.2g}") for half in range(-6, 6)]
    each = _FEATURES + 2
    first, searched, *others = "gradient-normalised Newton", "damping and a line search", "descent", "Adam"

    def compared(product: Callable, steps: int, key: Key) -> Runs:
        methods = {
            first: _run(lambda _: gradient_normalised_newton(), product, steps, each),
            searched: _run(_searching, product, steps, each),
            "descent": _run(optax.sgd, None, steps * each, 1),
            "Adam": _run(optax.adam, None, steps * each, 1),
        }
        grid = {first: rates, searched: dampings} | dict.fromkeys(others, rates)
        return tuned(methods, grid, "lower", key=key, keys=keys, ends={1e-6: "no damping"})

    def contrast(found: Runs, against: list[str]) -> Contrast:
        return found.contrast("log10 of gradients and products to 1e-5 above the minimum", "lower", against=against)

    exact = compared(hessian_product(_loss), 40, exact_key)
    fisher = compared(fisher_product(_losses), 400, fisher_key)
    moved = (
        "nearer the minimum after a number of steps than all of them, where all came to what single precision tells; "
        "then all of them at once by this count"
    )
    stated = "global linear rates on logistic regression, with approximate Hessians too, in the abstract"
    return [
        Check(
            "With the Hessian, and with the empirical Fisher matrix, untuned, it comes near the minimum in fewer "
            "gradients and products than tuned descent.",
            stated,
            contrasts=[contrast(exact, others[:1]), contrast(fisher, others[:1])],
            moved_from=moved,
        ),
        Check(
            "And with the Hessian in fewer than tuned Adam.",
            stated,
            expected=False,
            tried="rates of Adam on a grid of half-decades: at its best one it takes half as many gradients as the "
            "method takes gradients and products",
            contrasts=contrast(exact, others[1:]),
            moved_from=moved,
        ),
        Check(
            "And with either matrix in fewer than damped steps with the same one and a line search, damping tuned.",
            stated,
            expected=False,
            tried="γ begins at 1 and doubles at each step, so that the first steps from afar are shorter than a line "
            "search makes them",
            contrasts=[contrast(exact, [searched]), contrast(fisher, [searched])],
            moved_from=moved,
        ),
    ]


__all__ = ["PAPER", "checks"]
