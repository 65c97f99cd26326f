"""Implicit differentiation: the derivative of a solution at an iterate is closer than that of the iterations.

Ridge regression on diabetes records, fitted by gradient descent that stops early; wanted is the derivative of the
weights in the strength of decay.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, require
from ...estimate import implicit
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="implicit-differentiation",
    title="Efficient and Modular Implicit Differentiation",
    year=2021,
    link="https://arxiv.org/abs/2105.15183",
    rooms=("estimate",),
    row=259,
    read="text",
)

_ROWS = 150
# Of the step that is safe, one over the largest eigenvalue; at twice it descent diverges.
_RATES = [0.6, 1.0, 1.4, 1.7, 1.9, 1.95, 1.99]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Stop gradient descent after as many steps for both, and differentiate what it found.

    Args:
        key: of the rows.
        full: all 442 rows and five times the steps.

    Returns:
        One check.
    """
    rows, steps = (442, 1000) if full else (_ROWS, 200)
    problem = _problem(rows)
    runs = tuned(
        {name: _run(name, problem, rows, steps) for name in ("implicit", "unrolled")},
        _RATES,
        "lower",
        key=key,
        keys=6,
        ends={1.99: "from 2 on descent diverges"},
    )
    return [
        Check(
            "At an iterate that is not converged the implicit derivative is several times closer than the unrolled.",
            "stated in words: at equal error of the iterate, unrolling has a much worse error of the Jacobian",
            contrasts=runs.contrast(
                "log10 of the error of the weights' derivative in the strength, relative to its length",
                "lower",
                margin=0.301,
            ),
            moved_from="half of the unrolled one's error, of the errors themselves, which span a decade over keys",
        )
    ]


def _problem(rows: int) -> Callable[[Key], tuple[Array, Array]]:
    inputs, targets = require("sklearn.datasets", extra="app").load_diabetes(return_X_y=True)
    x, y = ((jnp.asarray((part - part.mean(0)) / part.std(0), jnp.float32)) for part in (inputs, targets))

    def drawn(key: Key) -> tuple[Array, Array]:
        chosen = jax.random.permutation(key, len(x))[:rows]
        return x[chosen], y[chosen]

    return drawn


def _run(
    name: str, problem: Callable[[Key], tuple[Array, Array]], rows: int, steps: int
) -> Callable[[Array, Key], Array]:
    def run(share: Float[Array, ""], key: Key) -> Float[Array, ""]:
        x, y = problem(key)
        strength = jnp.float32(0.1)
        hessian = x.T @ x / rows
        rate = share / (jnp.linalg.eigvalsh(hessian)[-1] + strength)

        def slope(w: Array, strength: Array) -> Array:
            return hessian @ w - x.T @ y / rows + strength * w

        def descend(start: Array, strength: Array) -> Array:
            # Own loop: the solver that is differentiated through.
            return jax.lax.scan(lambda w, _: (w - rate * slope(w, strength), None), start, length=steps)[0]

        start = jnp.zeros(x.shape[1])
        solution = implicit(descend, slope, symmetric=True) if name == "implicit" else descend
        found = jax.jvp(lambda strength: solution(start, strength), (strength,), (jnp.ones(()),))[1]
        damped = hessian + strength * jnp.eye(len(start))
        truth = -jnp.linalg.solve(damped, jnp.linalg.solve(damped, x.T @ y / rows))
        return jnp.log10(jnp.linalg.norm(found - truth) / jnp.linalg.norm(truth))

    return run


__all__ = ["PAPER", "checks"]
