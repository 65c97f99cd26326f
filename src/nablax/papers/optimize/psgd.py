"""PSGD with one Hessian product a step in Rosenbrock's valley, where plain and adapted rates creep.

L-BFGS, which has the loss without noise and searches along lines, is at the bottom in some forty evaluations; what
is compared here goes on where neither is to be had.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..._core import Key
from ...optimize import psgd
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="psgd",
    title="Curvature-Informed SGD via General Purpose Lie-Group Preconditioners",
    year=2024,
    link="https://arxiv.org/abs/2402.04553",
    rooms=("optimize",),
    row=129,
    read="code",
)

_STEPS, _LOWEST = 500, 1e-12


def _valley(make: Callable[[Array, Key], Any], noise: float) -> Callable[[Array, Key], Array]:
    """The height at the end, decades; gradients have noise of their own, the same in a step's every derivative."""

    def loss(point: Array, tilt: Array) -> Array:
        x, y = point[0], point[1]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2 + tilt @ point

    def run(rate: Array, key: Key) -> Array:
        start_key, rule_key, noise_key = jax.random.split(key, 3)
        start = jnp.array([-1.2, 1.0]) + 0.1 * jax.random.normal(start_key, (2,))
        point, _ = trained(
            loss,
            start,
            make(rate, rule_key),
            lambda step, key: noise * jax.random.normal(key, (2,)),
            _STEPS,
            key=noise_key,
        )
        height = jnp.nan_to_num(loss(point, jnp.zeros(2)), nan=1e2, posinf=1e2)
        return jnp.log10(jnp.clip(height, _LOWEST, 1e2))

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Go down the valley by each rule at its best of twelve rates.

    Args:
        key: of starts, probes and noise.
        full: four times as many repetitions. The paper's networks are at neither scale.

    Returns:
        Two checks.
    """
    rates = [float(rate) for rate in 10.0 ** (0.4 * np.arange(-9, 3))]
    short = [float(rate) for rate in 10.0 ** (0.4 * np.arange(-13, -1))]
    methods: dict[str, Callable[[Array, Key], Any]] = {
        # A matrix for the two numbers together, where the default is a diagonal.
        "PSGD": lambda rate, key: psgd(rate, "newton", momentum=0.9, max_skew=np.inf, key=key),
        "Adam": lambda rate, key: optax.adam(rate),
        "Nesterov's momentum .9": lambda rate, key: optax.sgd(rate, momentum=0.9, nesterov=True),
    }
    grid = {name: short if "Nesterov" in name else rates for name in methods}
    exact_key, noisy_key = jax.random.split(key)

    def compared(noise: float, key: Key) -> Any:
        return tuned(
            {name: _valley(make, noise) for name, make in methods.items()},
            grid,
            "lower",
            key=key,
            keys=64 if full else 16,
            tuning=4,
        )

    metric = f"height after {_STEPS} steps, decades"
    return [
        Check(
            "It is at the bottom of the valley where tuned Adam and momentum are six decades above.",
            "faster than first-order rules, in words and figures",
            contrasts=compared(0.0, exact_key).contrast(metric, "lower", margin=6.0),
        ),
        Check(
            "With noise in the gradients, of a tenth, it is lower than they are too.",
            "robust to noise, in words",
            expected=False,
            tried="one rate for all steps, twelve of them; Adam's best is as low",
            contrasts=compared(0.1, noisy_key).contrast(metric, "lower"),
        ),
    ]


__all__ = ["PAPER", "checks"]
