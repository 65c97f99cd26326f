"""Maximal-update scaling: the best rate of a narrow network, taken over by one sixteen times as wide.

Three hidden layers of ReLU units on the digits, Adam, rates a factor of two apart. What is claimed is that the rate
carries over: after so few steps the standard parametrisation's loss, at a rate found at the full width, is lower.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...optimize import maximal_update, width_multipliers
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="tensor-programs-ivb",
    title="Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit",
    year=2023,
    link="https://arxiv.org/abs/2308.01814",
    rooms=("optimize",),
    row=197,
    read="code",
)

_BASE, _BATCH = 16, 32
_RATES = 2.0 ** -np.arange(3, 13)
_METHODS = ("maximal update", "standard parametrisation", "standard, rates over the width")


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Find the best of ten rates at width 16, and see what it costs at a larger width beside the best there.

    Args:
        key: of weights and batches.
        full: width 1024 after 500 steps instead of 256 after 100. The paper's limit is of infinite width.

    Returns:
        Two checks.
    """
    width, steps = (1024, 500) if full else (256, 100)
    runs = jax.random.split(key, 2)
    costs = {}
    for name in _METHODS:
        at_base = _METHODS[1] if name == _METHODS[2] else name  # where the width is the base's they are one
        narrow = np.mean([_losses(at_base, _BASE, steps)(k) for k in runs], axis=0)
        wide = np.mean([_losses(name, width, steps)(k) for k in runs], axis=0)
        costs[name] = np.log2(wide[np.argmin(narrow)] / wide.min())
    metric = f"loss at width {width} at width {_BASE}'s best rate, over that at its own best, in doublings"
    first, standard, divided = _METHODS
    return [
        Check(
            "The best rate of a narrow network costs a wide one at most half as much again as its own best does; "
            "without the scaling it costs more than that.",
            "stated in words: hyperparameters of narrow networks are those of wide ones",
            contrasts=Contrast(
                metric, {name: costs[name] for name in (first, standard)}, "lower", threshold=float(np.log2(1.5))
            ),
            moved_from="the same, of a baseline more whose rates are divided by the width in all layers alike",
        ),
        Check(
            "It costs more than that too where rates are divided by the width for all layers alike.",
            "in words: layers scale differently; the baseline is ours",
            expected=False,
            tried="batches of 32 and of 64, two and four runs of ten rates: at 16 times the width that rule of thumb "
            "costs as little",
            contrasts=Contrast(
                metric, {name: costs[name] for name in (first, divided)}, "lower", threshold=float(np.log2(1.5))
            ),
        ),
    ]


def _shapes(width: int) -> list[jax.ShapeDtypeStruct]:
    sizes = (64, width, width, width, 10)
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in zip(sizes, sizes[1:])]


def _losses(name: str, width: int, steps: int) -> Callable[[Key], Float[Array, " rates"]]:
    """Training losses after some steps, of all rates side by side."""
    images, labels = digits()
    scaled = name == "maximal update"
    output = _BASE / width if scaled else 1.0

    def loss(params: PyTree, x: Array, y: Array) -> Array:
        *hidden, last = params
        for weight in hidden:
            x = jax.nn.relu(x @ weight)
        return cross_entropy(output * x @ last, y)

    def optimizer(rate: Array) -> optax.GradientTransformation:
        if name == "standard, rates over the width":
            return optax.adam(rate * _BASE / width)
        widths = width_multipliers(_shapes(width), _shapes(_BASE), _shapes(2 * _BASE))
        return maximal_update(optax.adam(rate), widths) if scaled else optax.adam(rate)

    @jax.jit
    def run(key: Key) -> Float[Array, " rates"]:
        weights_key, rows_key = jax.random.split(key)
        keys = jax.random.split(weights_key, 4)
        # As at the base where only the inputs' side is summed over; the last layer's is the base's too, with a factor.
        deviations = [(2 / shape.shape[0]) ** 0.5 for shape in _shapes(width)]
        deviations[-1] = (1 / (_BASE if scaled else width)) ** 0.5
        params = [d * jax.random.normal(k, one.shape) for d, k, one in zip(deviations, keys, _shapes(width))]
        rows = jax.random.randint(rows_key, (steps, _BATCH), 0, len(images))

        def at(rate: Array) -> Array:
            found, _ = trained(
                lambda params, batch: loss(params, *batch),
                params,
                optimizer(rate),
                lambda step, key: (images[rows[step]], labels[rows[step]]),
                steps,
                key=rows_key,
            )
            return loss(found, images, labels)

        # What diverged is as bad as a guess.
        losses = jax.lax.map(at, jnp.asarray(_RATES, jnp.float32))
        return jnp.where(jnp.isfinite(losses), jnp.minimum(losses, jnp.log(10.0)), jnp.log(10.0))

    return run


__all__ = ["PAPER", "checks"]
