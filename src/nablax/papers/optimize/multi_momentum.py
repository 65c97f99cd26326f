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
from ...regulate import multi_value_and_grad
from .._problems._classifier import cross_entropy, digits
from .._problems._training import trained
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


def _losses(weights: Array, images: Array, labels: Array) -> Float[Array, " rows"]:
    """Of each row by itself."""
    return jax.vmap(lambda image, label: cross_entropy(image[None] @ weights, label[None]))(images, labels)


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
        rules = {
            "momentum by class": multi_momentum(rate, shares),
            "descent": optax.sgd(rate),
            "momentum": optax.sgd(rate, momentum=0.9),
            "Adam": optax.adam(rate),
        }
        by_row = name == "momentum by class"
        batches = jax.random.randint(key, (steps, _BATCH), 0, len(images))

        def losses(weights: Array, rows: Array) -> Array:
            return _losses(weights, images[rows], labels[rows])

        weights, _ = trained(
            losses if by_row else lambda weights, rows: jnp.mean(losses(weights, rows)),
            jnp.zeros((images.shape[1], _CLASSES)),
            rules[name],
            lambda step, _: batches[step],
            steps,
            key=key,
            value_and_grad=multi_value_and_grad if by_row else jax.value_and_grad,
            extra=lambda weights, rows, grads: {"cluster": labels[rows]},
        )
        return jnp.minimum(cross_entropy(images @ weights, labels), 10.0)

    return run


def _left(name: str) -> Callable[[Array, Key], Array]:
    """Variance of one row's estimate over that of its gradient, over all rows, at the end of a run."""
    images, labels = _data()
    shares = _shares()

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        batch_key, cluster_key = jax.random.split(key)
        clusters = labels if name == "classes" else jax.random.permutation(cluster_key, labels)
        batches = jax.random.randint(batch_key, (_STEPS, _BATCH), 0, len(images))
        weights, momenta = trained(
            lambda weights, rows: _losses(weights, images[rows], labels[rows]),
            jnp.zeros((images.shape[1], _CLASSES)),
            optax.chain(scale_by_multi_momentum(shares), optax.sgd(rate)),
            lambda step, _: batches[step],
            _STEPS,
            key=batch_key,
            value_and_grad=multi_value_and_grad,
            extra=lambda weights, rows, grads: {"cluster": clusters[rows]},
            record=lambda weights, state, values: state[0].momenta,
            every=_STEPS,
        )
        plain = jax.jacrev(_losses)(weights, images, labels)
        estimates = plain - momenta[-1][clusters]  # what all share does not vary
        return jnp.sum(jnp.var(estimates, 0)) / jnp.sum(jnp.var(plain, 0))

    return run


__all__ = ["PAPER", "checks"]
