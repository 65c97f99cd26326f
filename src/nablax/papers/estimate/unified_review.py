"""A review of optimisers by the order of what they ask of the loss: what a dimension costs each of them.

On a quadratic of condition ten in 16 to 256 dimensions: passes over the loss until it has fallen a thousandfold, each
method at its best rate in each dimension.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Key
from ...estimate import forward_gradient, spsa
from .._contrast import Contrast, Curve
from .._records import Check, Paper

PAPER = Paper(
    slug="unified-review",
    title="A Unified Perspective on Optimization in Machine Learning and Neuroscience: From Gradient Descent to Neural "
    "Adaptation",
    year=2025,
    link="https://arxiv.org/abs/2510.18812",
    rooms=("estimate",),
    row=51,
    read="abstract",
)

_DIMENSIONS = (16, 64, 256)
# Passes a step: two values and the one at hand; a value and a derivative beside it; a pass and its reverse.
_PASSES = {"SPSA": 3.0, "forward gradient": 2.0, "gradient descent": 3.0}
# Of what is best for isotropic noise, 1 / (d + 2) or 1, over the largest curvature.
_RATES = np.array([0.125, 0.25, 0.5, 1.0, 1.5])


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Count passes over dimensions, for methods of order zero, one half and one.

    Args:
        key: of starts and directions.
        full: eight repetitions in place of four.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key, 8 if full else 4)
    passes = {name: np.array([_fewest(name, dimension, keys) for dimension in _DIMENSIONS]).T for name in _PASSES}
    logs = np.log(np.array(_DIMENSIONS, float))
    slopes = {name: [float(np.polyfit(logs, np.log(row), 1)[0]) for row in rows] for name, rows in passes.items()}
    curve = Curve("dimensions", np.array(_DIMENSIONS), {name: np.log10(rows) for name, rows in passes.items()})

    def contrast(name: str) -> Contrast:
        return Contrast(
            "power of the dimension with which passes grow",
            {one: slopes[one] for one in (name, "gradient descent")},
            "higher",
            threshold=0.8,
            curve=Curve(curve.x_name, curve.x, {one: curve.values[one] for one in (name, "gradient descent")}),
        )

    return [
        Check(
            f"{name} takes passes in proportion to the dimension, and gradient descent none the more.",
            "stated in words: what is not told by a gradient is paid for by the dimension",
            contrasts=contrast(name),
        )
        for name in ("SPSA", "forward gradient")
    ]


def _fewest(name: str, dimension: int, keys: Key) -> np.ndarray:
    """Passes that each repetition takes, at the rate of the least mean."""
    steps = jax.jit(jax.vmap(jax.vmap(_steps(name, dimension), (None, 0)), (0, None)))(jnp.asarray(_RATES), keys)
    found = np.asarray(steps, float) * _PASSES[name]
    return found[np.argmin(found.mean(1))]


def _steps(name: str, dimension: int) -> Callable[[Array, Key], Array]:
    curvature = jnp.geomspace(0.1, 1.0, dimension)
    noisy = name != "gradient descent"
    most = 200 * (dimension + 2) if noisy else 2000

    def loss(x: Float[Array, " dim"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(curvature * x**2)

    def gradient(x: Array, key: Key) -> Array:
        if name == "SPSA":
            return spsa(loss, step=1e-2)(x, key=key)[1]
        if name == "forward gradient":
            return forward_gradient(loss)(x, key=key)[1]
        return jax.grad(loss)(x)

    def run(share: Float[Array, ""], key: Key) -> Array:
        start_key, run_key = jax.random.split(key)
        start = jax.random.normal(start_key, (dimension,))
        goal = 1e-3 * loss(start)
        rate = share / (dimension + 2) if noisy else share

        def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            x, number = carry
            return x - rate * gradient(x, jax.random.fold_in(run_key, number)), number + 1

        # Own loop: it ends at a goal.
        return jax.lax.while_loop(lambda c: (loss(c[0]) > goal) & (c[1] < most), step, (start, jnp.array(0)))[1]

    return run


__all__ = ["PAPER", "checks"]
