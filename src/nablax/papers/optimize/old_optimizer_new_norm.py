"""Steepest descent under the spectral norm against other norms, Adam and Muon: a small network, all images at once.

Without noise and momentum, so that the norm is what differs; each at its best rate.
"""

from collections.abc import Callable

import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import steepest_descent
from .._problems._classifier import loss, network, split_digits
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="old-optimizer-new-norm",
    title="Old Optimizer, New Norm: An Anthology",
    year=2024,
    link="https://arxiv.org/abs/2409.20325",
    rooms=("optimize",),
    row=166,
    read="text",
)

_ROWS, _SIZES = 500, (64, 32, 32, 10)
# As many rates, a factor of two apart, about where each rule works.
_METHODS: dict[str, tuple[Callable, float]] = {
    "spectral norm": (steepest_descent, 2.0**-9),
    "Frobenius norm (gradient descent)": (lambda rate: steepest_descent(rate, "frobenius"), 2.0**-4),
    "largest entry (signs)": (lambda rate: steepest_descent(rate, "max"), 2.0**-14),
    "Adam": (optax.adam, 2.0**-10),
    "Muon": (optax.contrib.muon, 2.0**-9),
}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a network of 64-32-32-10 tanh units on 500 digits, all in each step, by every rule at its best rate.

    Args:
        key: of weights and images.
        full: 400 steps instead of 60. The paper's is an argument; it trains nothing.

    Returns:
        Two checks.
    """
    steps = 400 if full else 60
    methods = {name: _run(make, steps) for name, (make, _) in _METHODS.items()}
    grid = {name: (least * 2.0 ** np.arange(10)).tolist() for name, (_, least) in _METHODS.items()}
    runs = tuned(methods, grid, "lower", key=key, keys=5)
    metric = f"training loss after {steps} steps, nats"
    return [
        Check(
            "With one norm for layers, the spectral, steepest descent ends at half the loss that it reaches under "
            "Frobenius' norm or under that of the largest entry.",
            "hoped for in words: more stable, scalable and faster training by norms that fit the layers",
            contrasts=runs.contrast(
                metric, "lower", against=("Frobenius norm (gradient descent)", "largest entry (signs)"), ratio=0.5
            ),
        ),
        Check(
            "It ends below Adam and Muon too, which have momentum.",
            "faster training, hoped for in words",
            expected=False,
            tried="ten rates each, a factor of two apart: at this length momentum is worth more than the norm, and "
            "Muon, which has both, is best",
            contrasts=runs.contrast(metric, "lower", against=("Adam", "Muon")),
        ),
    ]


def _run(make: Callable[[Array], optax.GradientTransformation], steps: int) -> Callable[[Array, Key], Array]:
    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        data_key, weights_key, run_key = jax.random.split(key, 3)
        images, labels, *_ = split_digits(data_key, _ROWS)

        def of_all(params: list, batch: None) -> Array:
            return loss(params, images, labels)

        params = network(weights_key, _SIZES)
        params, _ = trained(of_all, params, make(rate), lambda step, key: None, steps, key=run_key)
        return of_all(params, None)

    return run


__all__ = ["PAPER", "checks"]
