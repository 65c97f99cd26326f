"""Jacobian descent: every example of a batch is an objective, and no step works against any of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import gramian, mean, multi_value_and_grad, upgrad
from .._contrast import Contrast
from .._problems._batches import shuffled
from .._problems._classifier import digits, logits, network
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="jacobian-descent",
    title="Jacobian Descent for Multi-Objective Optimization",
    year=2024,
    link="https://arxiv.org/abs/2406.16232",
    rooms=("regulate",),
    row=148,
    read="text",
)

_SIZES, _WIDE = (64, 32, 10), (64, 256, 256, 10)
_IMAGES = 512
# The paper selects the rate of every method by the area under its training curve.
_RATES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_BEFORE = "the same over three rates, 0.25, 0.5 and 1, chosen at one key"


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Minimise the risk of every example by itself, against the mean, each at its own best rate.

    Args:
        key: of all randomness.
        full: batches of 256 over 25 epochs in place of 16 over 3; the paper's image sets and its convolutional network
            (1024 images) are not used at either scale.

    Returns:
        Three checks.
    """
    batch, epochs = (256, 25) if full else (16, 3)
    methods = {
        "every example (UPGrad)": _training(upgrad(throw=False), batch, epochs),
        "their mean": _training(mean(), batch, epochs),
    }
    runs = tuned(methods, _RATES, "lower", key=key, keys=3, of="area")
    memory = _memory(network(key, _WIDE), *(part[:256] for part in digits()))
    return [
        Check(
            "Minimising every example's risk by UPGrad lowers the training loss faster than descent on the mean.",
            "stated in words and figure 2",
            contrasts=runs.contrast("training loss over the last epoch, nats", "lower", of="loss", ratio=0.9),
            moved_from=_BEFORE,
        ),
        Check(
            "No step conflicts with any example.",
            "proved (UPGrad is non-conflicting)",
            # Zero, but for single precision.
            contrasts=runs.contrast(
                "smallest cosine of an update with an example's gradient", "higher", of="cosine", threshold=-1e-2
            ),
            moved_from=_BEFORE,
        ),
        Check(
            "A step needs the Gramian only, and the Gramian no Jacobian.",
            "stated as a path to efficiency (section 6)",
            contrasts=Contrast("memory besides parameters and result, MiB", memory, "lower", ratio=0.1),
        ),
    ]


def _losses(params: PyTree, batch: tuple[Array, Array]) -> Float[Array, " batch"]:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, batch[0]), batch[1])


class _Watched(NamedTuple):
    """An aggregator's state, and the smallest cosine of the last update with a gradient."""

    inner: PyTree
    cosine: Float[Array, ""]


def _watched(aggregator: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    def update(grads: PyTree, state: _Watched, params: PyTree = None, **extra: Any) -> tuple[PyTree, _Watched]:
        combined, inner = aggregator.update(grads, state.inner, params, **extra)
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, c: jnp.tensordot(g, c, c.ndim), grads, combined)))
        sizes = jax.vmap(optax.tree.norm)(grads) * jnp.maximum(optax.tree.norm(combined), 1e-15)
        return combined, _Watched(inner, jnp.min(along / sizes))

    return optax.GradientTransformationExtraArgs(lambda p: _Watched(aggregator.init(p), jnp.zeros(())), update)


def _training(aggregator: optax.GradientTransformationExtraArgs, batch: int, epochs: int) -> Run:
    def run(rate: Array, key: Key) -> dict[str, Array]:
        keys = jax.random.split(key, 4)
        chosen = jax.random.permutation(keys[0], 1797)[:_IMAGES]
        images, labels = (part[chosen] for part in digits())
        rows = shuffled(keys[1], _IMAGES, batch, epochs)
        _, (losses, cosines) = trained(
            _losses,
            network(keys[2], _SIZES),
            optax.chain(_watched(aggregator), optax.sgd(rate)),
            lambda step, key: (images[rows[step]], labels[rows[step]]),
            len(rows),
            key=keys[3],
            record=lambda params, state, values: (jnp.mean(values), state[0].cosine),
            value_and_grad=multi_value_and_grad,
        )
        last = jnp.mean(losses[-_IMAGES // batch :])
        return {"area": jnp.mean(losses), "loss": last, "cosine": jnp.min(cosines)}

    return run


def _memory(params: PyTree, images: Array, labels: Array) -> dict[str, float]:
    """Besides arguments and result, of the Gramian without and with the Jacobian."""

    def formed(params: PyTree) -> Array:
        rows = multi_value_and_grad(_losses)(params, (images, labels))[1]
        flat = jnp.concatenate([leaf.reshape(len(images), -1) for leaf in jax.tree.leaves(rows)], axis=1)
        return flat @ flat.T

    def direct(params: PyTree) -> Array:
        return gramian(_losses, params, (images, labels))

    def bytes_of(function: Any) -> float:
        analysis: Any = jax.jit(function).lower(params).compile().memory_analysis()
        return analysis.temp_size_in_bytes / 2**20

    return {"without the Jacobian": bytes_of(direct), "with the Jacobian": bytes_of(formed)}


__all__ = ["PAPER", "checks"]
