"""Jacobian descent: every example of a batch is an objective, and no step works against any of them."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import gramian, upgrad_weights
from .._problems._classifier import digits, logits, network
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
_RATES = 2.0 ** np.arange(-2, 1)


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
    images, labels = digits()
    chosen = jax.random.permutation(jax.random.key(5), len(images))[:_IMAGES]
    images, labels = images[chosen], labels[chosen]
    start_key, data_key, wide_key = jax.random.split(key, 3)
    start = network(start_key, _SIZES)
    orders = jax.vmap(lambda k: jax.random.permutation(k, _IMAGES))(jax.random.split(data_key, epochs))
    rows = orders.reshape(-1, batch)

    run = jax.jit(jax.vmap(partial(_descend, start, images[rows], labels[rows]), in_axes=(0, None)))
    methods = [run(jnp.asarray(_RATES, jnp.float32), jnp.array(m)) for m in (True, False)]
    curves, products = ([np.asarray(method[i]) for method in methods] for i in (0, 1))
    areas = [np.where(np.isfinite(curve).all(1), curve.mean(1), np.inf) for curve in curves]
    best = [int(np.argmin(area)) for area in areas]
    last = [float(curve[b, -_IMAGES // batch :].mean()) for curve, b in zip(curves, best)]
    worst = [float(product[b].min()) for product, b in zip(products, best)]
    rates = [float(_RATES[b]) for b in best]

    def learning(axes: Any) -> None:
        width = _IMAGES // batch
        for curve, chosen, rate, name in zip(curves, best, rates, ("every example (UPGrad)", "their mean")):
            smooth = np.convolve(curve[chosen], np.full(width, 1 / width), "valid")
            axes.plot(np.arange(len(smooth)) + width, smooth, label=f"{name}, rate {rate:g}")
        axes.set(xlabel="steps", ylabel=f"training loss, mean of {width} batches, nats", ylim=(0, None))
        axes.legend()

    ours, theirs, seconds = _memory(network(wide_key, _WIDE), images[:256], labels[:256])
    return [
        Check(
            "Minimising every example's risk by UPGrad lowers the training loss faster than descent on the mean.",
            "stated in words and figure 2",
            f"mean training loss over epoch {epochs} is {last[0]:.3f} nats at its best rate {rates[0]:g}",
            "at most 0.9 of the baseline's",
            bool(last[0] <= 0.9 * last[1]),
            f"mean gradient at its best rate {rates[1]:g}: {last[1]:.3f}",
            figure=learning,
        ),
        Check(
            "No step conflicts with any example.",
            "proved (UPGrad is non-conflicting)",
            f"smallest cosine of an update with an example's gradient {worst[0]:.1e}, {len(rows)} batches of {batch}",
            "at least -1e-2 (single precision)",
            bool(worst[0] >= -1e-2 > worst[1]),
            f"mean gradient: {worst[1]:.2f}",
        ),
        Check(
            "A step needs the Gramian only, and the Gramian no Jacobian.",
            "stated as a path to efficiency (section 6)",
            f"{ours / 2**20:.1f} MiB besides 85 thousand parameters at batch 256; {1e3 * seconds[0]:.1f} ms, and "
            f"{1e3 * seconds[1]:.0f} ms with UPGrad's weights",
            "at most a tenth of the Jacobian's memory",
            bool(ours <= 0.1 * theirs),
            f"with the Jacobian formed: {theirs / 2**20:.1f} MiB; {1e3 * seconds[2]:.1f} ms",
        ),
    ]


def _losses(params: PyTree, images: Array, labels: Array) -> Float[Array, " batch"]:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)


def _descend(
    start: PyTree, images: Array, labels: Array, rate: Array, projected: Array
) -> tuple[Float[Array, " steps"], Float[Array, " steps"]]:
    """Loss before every step, and the smallest cosine of the step with an example's gradient."""

    def step(params: PyTree, batch: tuple[Array, Array]) -> tuple[PyTree, tuple[Array, Array]]:
        products = gramian(_losses, params, *batch)
        count = len(products)
        weights = jax.lax.cond(
            projected, lambda g: upgrad_weights(g).weights, lambda g: jnp.full(count, 1 / count), products
        )
        grads = jax.grad(lambda p: weights @ _losses(p, *batch))(params)
        along = products @ weights
        norms = jnp.sqrt(jnp.diag(products)) * jnp.sqrt(jnp.maximum(weights @ along, 1e-30))
        value = jnp.mean(_losses(params, *batch))
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), (value, jnp.min(along / norms))

    return jax.lax.scan(step, start, (images, labels))[1]


def _memory(params: PyTree, images: Array, labels: Array) -> tuple[int, int, list[float]]:
    """Bytes beside arguments and result of the Gramian without and with the Jacobian, and seconds of each."""

    def formed(params: PyTree) -> Array:
        rows = jax.vmap(jax.grad(lambda p, x, y: _losses(p, x[None], y[None])[0]), in_axes=(None, 0, 0))(
            params, images, labels
        )
        flat = jnp.concatenate([leaf.reshape(len(images), -1) for leaf in jax.tree.leaves(rows)], axis=1)
        return flat @ flat.T

    def direct(params: PyTree) -> Array:
        return gramian(_losses, params, images, labels)

    compiled = [jax.jit(f).lower(params).compile() for f in (direct, formed)]
    weigh = jax.jit(lambda g: upgrad_weights(g).weights)
    products = compiled[0](params)
    weigh(products).block_until_ready()

    def timed(function: Callable[[PyTree], Array], argument: PyTree) -> float:
        start = time.perf_counter()
        function(argument).block_until_ready()
        return time.perf_counter() - start

    quick, slow = (min(timed(f, params) for _ in range(2)) for f in compiled)
    analyses: list[Any] = [f.memory_analysis() for f in compiled]
    return analyses[0].temp_size_in_bytes, analyses[1].temp_size_in_bytes, [quick, quick + timed(weigh, products), slow]
