"""Logistic regression on many rows by way of a few of them: how many gradients of the whole it takes.

Features of unequal size, so that the loss is badly conditioned; the few rows share its curvature roughly. Of 100
rows, a twentieth of 2,000, they did not well enough: it then took 27 gradients. L-BFGS on the whole takes 18 steps:
in most runs the proxy takes a third of that, but in some, at a rate that was tuned on others, it does not settle.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import proxy_descent
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="cheaper-proxy",
    title="Two Losses Are Better Than One: Faster Optimization Using a Cheaper Proxy",
    year=2023,
    link="https://arxiv.org/abs/2302.03542",
    rooms=("optimize",),
    row=176,
    read="abstract",
)

_ROWS, _FEW, _DIM, _RIDGE, _MOST, _SMALL = 4000, 200, 20, 1e-3, 100, 1e-3


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Count gradients of the whole until a thousandth of the first loss above the least is left.

    Args:
        key: of the rows.
        full: 20,000 rows, of which 200 are the proxy's.

    Returns:
        One check.
    """
    rows = 5 * _ROWS if full else _ROWS
    least = {
        "by the proxy": 2.0**-2,
        "gradient descent": 2.0**-4,
        "Adam": 2.0**-7,
    }
    runs = tuned(
        {name: _run(name, rows) for name in least},
        {name: (start * 2.0 ** np.arange(12)).tolist() for name, start in least.items()},
        "lower",
        key=key,
        keys=5,
    )
    metric = f"gradients of the whole until {_SMALL:g} of the excess loss is left"
    return [
        Check(
            "By way of a proxy on a twentieth of the rows it takes at most half as many gradients of the whole as by "
            "gradient descent or Adam, each at its best rate.",
            "substantially better sample efficiency, in words; a theorem on the difference's smoothness",
            contrasts=runs.contrast(metric, "lower", against=("gradient descent", "Adam"), ratio=0.5),
        ),
    ]


def _run(name: str, rows: int) -> Callable[[Array, Key], Array]:
    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        input_key, truth_key, label_key = jax.random.split(key, 3)
        x = jax.random.normal(input_key, (rows, _DIM)) * jnp.geomspace(3.0, 0.1, _DIM)[None]
        truth = jax.random.normal(truth_key, (_DIM,))
        y = jnp.where(jax.random.uniform(label_key, (rows,)) < jax.nn.sigmoid(x @ truth), 1.0, -1.0)

        def loss(w: Array, count: int = rows) -> Array:
            return jnp.mean(jax.nn.softplus(-y[:count] * (x[:count] @ w))) + _RIDGE / 2 * jnp.sum(w**2)

        start = jnp.zeros(_DIM)
        least = loss(_minimised(loss, start))
        if name == "by the proxy":
            found = proxy_descent(
                loss, lambda w: loss(w, _FEW), start, rate=rate, steps=_MOST, inner_steps=15, throw=False
            )
            values = found.values
        else:
            values = _followed(loss, optax.sgd(rate) if name == "gradient descent" else optax.adam(rate), start)
        small = values - least <= _SMALL * (values[0] - least)
        return jnp.where(jnp.any(small), jnp.argmax(small), len(values)).astype(jnp.float32)

    return run


def _minimised(loss: Callable, start: Array) -> Array:
    """By L-BFGS, to rounding."""
    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        w, state = carry
        value, gradient = value_and_grad(w, state=state)
        updates, state = solver.update(gradient, state, w, value=value, grad=gradient, value_fn=loss)
        return (w + updates, state), None

    return jax.lax.scan(step, (start, solver.init(start)), length=60)[0][0]


def _followed(loss: Callable, rule: optax.GradientTransformation, start: Array) -> Float[Array, " steps"]:
    """Five times the steps, so that what is slower is counted too."""

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        w, state = carry
        value, gradient = jax.value_and_grad(loss)(w)
        updates, state = rule.update(gradient, state, w)
        return (w + updates, state), value

    return jax.lax.scan(step, (start, rule.init(start)), length=5 * _MOST)[1]


__all__ = ["PAPER", "checks"]
