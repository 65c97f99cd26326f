"""ReSTE: a power function in the sign's place, whose order rises over training, in a net of signs.

Digits by a net whose hidden weights and units are signs. The order is a trade: the estimate's error falls with it, and
the updates become less steady.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import rectified_order, rectified_straight_through
from .._problems._classifier import cross_entropy, digits, network
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="reste",
    title="Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for Binary Neural Networks "
    "Training",
    year=2023,
    link="https://arxiv.org/abs/2308.06689",
    rooms=("estimate",),
    row=71,
    read="code",
)

_BATCH, _TRAIN, _WIDTH = 64, 1200, 48
_RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
_METHODS = ("ReSTE, order from 1 to 3", "straight-through, cut at 1", "straight-through, cut at 1.5")


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a net of signs by three derivatives in the sign's place.

    Args:
        key: of the split, the net and the batches.
        full: ten times the steps.

    Returns:
        Two checks.
    """
    runs = tuned(
        {name: _run(name, 3000 if full else 300) for name in _METHODS}, _RATES, "higher", key=key, keys=4, of="accuracy"
    )
    return [
        Check(
            "The order's ramp ends at a lower estimating error than straight-through estimators.",
            "stated in words: the error falls as the order rises",
            contrasts=runs.contrast(
                "distance of the estimator's function to the sign, root mean square over hidden weights",
                "lower",
                of="error",
                ratio=0.8,
            ),
        ),
        Check(
            "It classifies better than straight-through estimators.",
            "CIFAR-10, ResNet-18 with signs: 92.63 %, above the state of the art",
            contrasts=runs.contrast("test accuracy, %", "higher", of="accuracy"),
            expected=False,
            tried="signs of two hidden layers of 48 units, six rates each, 400 steps: the straight-through estimator "
            "that is cut at 1, a baseline that needs no ramp, is better, the one that is cut at 1.5 worse",
        ),
    ]


def _sign(name: str) -> tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]:
    """The sign with its derivative, and the function whose derivative that is, both of x and the order."""
    if name.startswith("ReSTE"):
        return rectified_straight_through, lambda x, order: jnp.sign(x) * jnp.abs(x) ** (1 / order)
    if name.endswith("1.5"):
        return lambda x, order: rectified_straight_through(x), lambda x, order: jnp.clip(x, -1.5, 1.5)

    def sign(x: Array, order: Array) -> Array:
        through = jnp.clip(x, -1, 1)
        return through + jax.lax.stop_gradient(jnp.sign(x) - through)

    return sign, lambda x, order: jnp.clip(x, -1, 1)


def _run(name: str, steps: int) -> Callable[[Array, Key], dict[str, Array]]:
    images, labels = digits()
    sign, smooth = _sign(name)

    def scores(net: PyTree, x: Array, order: Array) -> Array:
        # The first and the last layer are real, as in the paper; between them weights are signs times their mean size.
        (first, shift), *hidden, (last, bias) = net
        x = x @ first + shift[None]
        for weight, shift in hidden:
            binary = sign(weight, order) * jnp.mean(jnp.abs(jax.lax.stop_gradient(weight)))
            x = _normalised(sign(x, order) @ binary) + shift[None]
        return jnp.tanh(x) @ last + bias[None]

    def run(rate: Float[Array, ""], key: Key) -> dict[str, Array]:
        split_key, net_key, run_key = jax.random.split(key, 3)
        order = jax.random.permutation(split_key, len(images))
        x, y = images[order], labels[order]

        def batches(step: Array, key: Key) -> PyTree:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return x[rows], y[rows], rectified_order(step / steps)

        def loss(net: PyTree, batch: PyTree) -> Array:
            return cross_entropy(scores(net, batch[0], batch[2]), batch[1])

        net = network(net_key, (64, _WIDTH, _WIDTH, _WIDTH, 10))
        net, _ = trained(loss, net, optax.adam(rate), batches, steps, key=run_key)
        end = rectified_order(1.0)
        answered = jnp.argmax(scores(net, x[_TRAIN:], end), axis=1)
        weights = jnp.concatenate([jnp.ravel(weight) for weight, _ in net[1:-1]])
        return {
            "accuracy": 100 * jnp.mean((answered == y[_TRAIN:]).astype(x.dtype)),
            "error": jnp.sqrt(jnp.mean((smooth(weights, end) - jnp.sign(weights)) ** 2)),
        }

    return run


def _normalised(x: Float[Array, "batch units"]) -> Float[Array, "batch units"]:
    """Each example's units with mean 0 and variance 1: a net of signs does not train without."""
    return (x - jnp.mean(x, axis=1, keepdims=True)) / jnp.sqrt(jnp.var(x, axis=1, keepdims=True) + 1e-5)


__all__ = ["PAPER", "checks"]
