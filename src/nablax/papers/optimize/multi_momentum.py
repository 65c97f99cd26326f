"""A momentum for each class of the digits, in a linear classifier: what it takes off the variance, and the loss.

The classes are the clusters; put together at random they should gain nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...optimize import multi_momentum, scale_by_multi_momentum
from .._problems._classifier import cross_entropy, digits
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="multi-momentum",
    title="Variance Reduction in Deep Learning: More Momentum is All You Need",
    year=2021,
    link="https://arxiv.org/abs/2111.11828",
    rooms=("optimize",),
    row=159,
    read="abstract",
)

_BATCH, _STEPS, _CLASSES = 10, 300, 10
_METHODS = ("momentum by class", "descent", "momentum", "Adam")


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a linear classifier on batches of ten, and measure the noise of single rows on the way.

    Args:
        key: of the batches.
        full: 3,000 steps instead of 300. The paper's networks and images are at neither scale.

    Returns:
        Two checks.
    """
    steps = 10 * _STEPS if full else _STEPS
    trained, noise = jax.random.split(key)
    least = {"momentum by class": 2.0**-6, "descent": 2.0**-6, "momentum": 2.0**-9, "Adam": 2.0**-11}
    runs = tuned(
        {name: _run(name, steps) for name in _METHODS},
        {name: (least[name] * 2.0 ** np.arange(11)).tolist() for name in _METHODS},
        "lower",
        key=trained,
        keys=10,
    )
    shares = tuned(
        {name: _left(name) for name in ("classes", "clusters at random")}, [0.5], "lower", key=noise, keys=10
    )
    return [
        Check(
            "On batches of ten, the momenta of the classes lead to a lower loss than descent, momentum or Adam, "
            "each at its best rate.",
            "faster convergence than vanilla methods on standard benchmarks, in words",
            expected=False,
            tried="eleven rates each, a factor of two apart, decay 0.9: what classes take off the variance of a linear "
            "classifier, some 28 %, is no more than what momentum does at its best rate",
            contrasts=runs.contrast(f"training loss after {steps} steps, nats", "lower"),
        ),
        Check(
            "They take at least a tenth off the variance of a row's gradient; those of clusters put together at random "
            "do not.",
            "stated in words: it exploits the clustering of rich data sets",
            contrasts=shares.contrast(
                "variance of the estimate over that of the gradient, after 300 steps", "lower", threshold=0.9
            ),
        ),
    ]


def _gradients(weights: Array, images: Array, labels: Array) -> Float[Array, "rows 65 classes"]:
    """Of each row by itself."""

    def loss(weights: Array, image: Array, label: Array) -> Array:
        return cross_entropy(image[None] @ weights, label[None])

    return jax.vmap(jax.grad(loss), (None, 0, 0))(weights, images, labels)


def _data() -> tuple[Float[Array, "rows 65"], Int[Array, " rows"]]:
    """With a constant input, which is the bias."""
    images, labels = digits()
    return jnp.concatenate([images, jnp.ones((len(images), 1))], axis=1), labels


def _shares() -> Float[np.ndarray, " classes"]:
    labels = np.asarray(digits()[1])
    return np.bincount(labels) / len(labels)


def _run(name: str, steps: int) -> Callable[[Array, Key], Array]:
    images, labels = _data()
    shares = _shares()

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        weights = jnp.zeros((images.shape[1], _CLASSES))
        rules = {
            "momentum by class": multi_momentum(rate, shares),
            "descent": optax.sgd(rate),
            "momentum": optax.sgd(rate, momentum=0.9),
            "Adam": optax.adam(rate),
        }
        rule = optax.with_extra_args_support(rules[name])

        def step(carry: tuple, rows: Array) -> tuple[tuple, None]:
            weights, state = carry
            stack = _gradients(weights, images[rows], labels[rows])
            given = stack if name == "momentum by class" else jnp.mean(stack, 0)
            updates, state = rule.update(given, state, weights, cluster=labels[rows])
            return (optax.apply_updates(weights, updates), state), None

        batches = jax.random.randint(key, (steps, _BATCH), 0, len(images))
        (weights, _), _ = jax.lax.scan(step, (weights, rule.init(weights)), batches)
        return jnp.minimum(cross_entropy(images @ weights, labels), 10.0)

    return run


def _left(name: str) -> Callable[[Array, Key], Array]:
    """Variance of one row's estimate over that of its gradient, over all rows, at the end of a run."""
    images, labels = _data()
    shares = _shares()

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        batch_key, cluster_key = jax.random.split(key)
        clusters = labels if name == "classes" else jax.random.permutation(cluster_key, labels)
        rule = scale_by_multi_momentum(shares)

        def step(carry: tuple, rows: Array) -> tuple[tuple, None]:
            weights, state = carry
            estimate, state = rule.update(
                _gradients(weights, images[rows], labels[rows]), state, cluster=clusters[rows]
            )
            return (weights - rate * estimate, state), None

        weights = jnp.zeros((images.shape[1], _CLASSES))
        batches = jax.random.randint(batch_key, (_STEPS, _BATCH), 0, len(images))
        (weights, state), _ = jax.lax.scan(step, (weights, rule.init(weights)), batches)
        plain = _gradients(weights, images, labels)
        estimates = plain - state.momenta[clusters]  # what all share does not vary
        return jnp.sum(jnp.var(estimates, 0)) / jnp.sum(jnp.var(plain, 0))

    return run


__all__ = ["PAPER", "checks"]
