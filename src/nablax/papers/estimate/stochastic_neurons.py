"""Stochastic neurons: what trains a layer of random bits best, and which baseline makes REINFORCE least noisy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import score_function, smooth_times_stochastic, straight_through
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits, network
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="stochastic-neurons",
    title="Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation",
    year=2013,
    link="https://arxiv.org/abs/1308.3432",
    rooms=("estimate",),
    row=42,
    read="abstract",
)

_BATCH, _TRAIN, _UNITS, _DRAWS = 32, 1200, 30, 4
_RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
_METHODS = ("straight-through", "REINFORCE, best baseline", "smooth times stochastic")


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a hidden layer of thirty random bits by three estimators, and compare REINFORCE's baselines.

    Args:
        key: of the split, the net, the batches and the draws.
        full: ten times the steps.

    Returns:
        Two checks.
    """
    runs = tuned(
        {name: _run(name, 3000 if full else 300) for name in _METHODS},
        _RATES,
        "lower",
        key=jax.random.fold_in(key, 0),
        keys=4,
    )
    variance = {name: jax.jit(jax.vmap(_variance(name))) for name in ("best", "mean", "none")}
    keys = jax.random.split(jax.random.fold_in(key, 1), 8)
    return [
        Check(
            "The biased straight-through estimator trains random bits further than unbiased and half-biased ones.",
            "test error 1.39 % on MNIST, the lowest of the estimators compared, as gates of a larger net",
            contrasts=runs.contrast("test cross-entropy, nats", "lower"),
        ),
        Check(
            "Of REINFORCE's baselines the one that is best unit by unit leaves the least variance.",
            "stated in words: the unbiased estimator of minimum variance",
            contrasts=Contrast(
                "log10 of the gradient's variance, summed over units",
                {name: each(keys) for name, each in variance.items()},
                "lower",
            ),
        ),
    ]


def _output(outer: PyTree, units: Float[Array, "batch units"]) -> Float[Array, "batch classes"]:
    return units @ outer[0] + outer[1][None]


def _run(name: str, steps: int) -> Callable[[Array, Key], Array]:
    images, labels = digits()

    def loss(net: PyTree, batch: PyTree, *, key: Key) -> Array:
        (weight, bias), outer = net
        inputs, wanted = batch
        found = inputs @ weight + bias[None]
        if name.startswith("REINFORCE"):

            def each(x: Array, answer: Array, key: Key) -> Array:
                return score_function(
                    lambda h: cross_entropy(_output(outer, h[None]), answer[None]), x, key=key, draws=_DRAWS
                )

            return jnp.mean(jax.vmap(each)(found, wanted, jax.random.split(key, len(inputs))))
        unit = straight_through if name == "straight-through" else smooth_times_stochastic
        drawn = jax.vmap(lambda key: cross_entropy(_output(outer, unit(found, key=key)), wanted))
        return jnp.mean(drawn(jax.random.split(key, _DRAWS)))

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        split_key, net_key, run_key, end_key = jax.random.split(key, 4)
        order = jax.random.permutation(split_key, len(images))
        x, y = images[order], labels[order]

        def batches(step: Array, key: Key) -> PyTree:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return x[rows], y[rows]

        net = network(net_key, (64, _UNITS, 10))
        ((weight, bias), outer), _ = trained(loss, net, optax.adam(rate), batches, steps, key=run_key)
        # Tested as trained, with random units of their own kind, averaged over draws.
        unit = smooth_times_stochastic if name.startswith("smooth") else straight_through
        found = x[_TRAIN:] @ weight + bias[None]
        drawn = jax.vmap(lambda key: jax.nn.softmax(_output(outer, unit(found, key=key))))
        shares = jnp.mean(drawn(jax.random.split(end_key, 16)), axis=0)
        return -jnp.mean(jnp.log(jnp.take_along_axis(shares, y[_TRAIN:, None], axis=1) + 1e-7))

    return run


def _variance(baseline: str) -> Callable[[Key], Array]:
    """Of the gradient in the logits of random bits, at a random net and image."""
    images, labels = digits()

    def run(key: Key) -> Float[Array, ""]:
        row_key, net_key, draw_key = jax.random.split(key, 3)
        row = jax.random.randint(row_key, (), 0, len(images))
        (weight, bias), outer = network(net_key, (64, _UNITS, 10))
        found = 2 * (images[row] @ weight + bias)

        def estimate(key: Key) -> Array:
            def expected(x: Array) -> Array:
                return score_function(
                    lambda h: cross_entropy(_output(outer, h[None]), labels[row][None]),
                    x,
                    key=key,
                    draws=16,
                    baseline=baseline,  # type: ignore[arg-type]  # one of three names
                )

            return jax.grad(expected)(found)

        drawn = jax.lax.map(estimate, jax.random.split(draw_key, 400), batch_size=100)
        return jnp.log10(jnp.sum(jnp.var(drawn, axis=0)))

    return run


__all__ = ["PAPER", "checks"]
