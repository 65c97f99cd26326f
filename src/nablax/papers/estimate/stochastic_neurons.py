"""Stochastic neurons: what trains random gates best, and which baseline makes REINFORCE least noisy.

As in the paper, gates that are mostly shut switch the hidden units of a net: one in ten is to be open, on average.
"""

from collections.abc import Callable
from typing import Literal

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
    read="code",
)

_BATCH, _TRAIN, _UNITS, _DRAWS = 32, 1200, 40, 4
_OPEN, _STRENGTH = 0.1, 0.1  # share of open gates that is aimed at, and what a nat away from it costs
_RATES = [3e-3, 1e-2, 3e-2, 1e-1]
_METHODS = ("straight-through", "REINFORCE, best baseline", "smooth times stochastic")


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train forty random gates by three estimators, and compare REINFORCE's baselines.

    Args:
        key: of the split, the net, the batches and the draws.
        full: ten times the steps.

    Returns:
        Two checks.
    """
    runs = tuned(
        {name: _run(name, 2000 if full else 200) for name in _METHODS},
        _RATES,
        "lower",
        key=jax.random.fold_in(key, 0),
        keys=4,
    )
    variance = jax.jit(jax.vmap(_variances))(jax.random.split(jax.random.fold_in(key, 1), 24))
    return [
        Check(
            "The biased straight-through estimator trains random gates further than unbiased and half-biased ones.",
            "test error 1.39 % on MNIST, the lowest of the estimators compared",
            contrasts=runs.contrast("test cross-entropy, nats", "lower"),
            expected=False,
            tried="as gates, a tenth open, and as a plain layer of thirty bits: further than REINFORCE as gates, "
            "not than smooth times stochastic, whose gates also carry a smooth part",
        ),
        Check(
            "Of REINFORCE's baselines the one that is best unit by unit leaves the least variance.",
            "stated in words: the unbiased estimator of minimum variance",
            contrasts=Contrast("log10 of the gradient's variance, summed over gates", variance, "lower"),
            moved_from="the same over 8 draws at each key, three times as many after their spread had been seen",
        ),
    ]


def _scores(outer: PyTree, gates: Array, hidden: Array) -> Float[Array, "batch classes"]:
    return (gates * hidden) @ outer[0] + outer[1][None]


def _layers(net: PyTree, x: Array) -> tuple[Array, Array]:
    """Inputs of the gates, mostly below zero, and what they switch."""
    (weight, bias), (inner, shift), _ = net
    return x @ weight + bias[None] - 2.2, jnp.tanh(x @ inner + shift[None])


def _run(name: str, steps: int) -> Callable[[Array, Key], Array]:
    images, labels = digits()

    def loss(net: PyTree, batch: PyTree, *, key: Key) -> Array:
        inputs, wanted = batch
        found, hidden = _layers(net, inputs)
        share = jnp.mean(jax.nn.sigmoid(found), axis=0)
        away = _OPEN * jnp.log(_OPEN / share) + (1 - _OPEN) * jnp.log((1 - _OPEN) / (1 - share))
        penalty = _STRENGTH * jnp.mean(away)
        if name.startswith("REINFORCE"):

            def each(x: Array, seen: Array, answer: Array, key: Key) -> Array:
                def of(gates: Array) -> Array:
                    return cross_entropy(_scores(net[-1], gates[None], seen[None]), answer[None])

                return score_function(of, x, key=key, draws=_DRAWS)

            return penalty + jnp.mean(jax.vmap(each)(found, hidden, wanted, jax.random.split(key, len(inputs))))
        unit = straight_through if name == "straight-through" else smooth_times_stochastic
        drawn = jax.vmap(lambda key: cross_entropy(_scores(net[-1], unit(found, key=key), hidden), wanted))
        return penalty + jnp.mean(drawn(jax.random.split(key, _DRAWS)))

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        split_key, net_key, run_key, end_key = jax.random.split(key, 4)
        order = jax.random.permutation(split_key, len(images))
        x, y = images[order], labels[order]

        def batches(step: Array, key: Key) -> PyTree:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return x[rows], y[rows]

        net, _ = trained(loss, _drawn(net_key), optax.adam(rate), batches, steps, key=run_key)
        # Tested as trained, with random gates of their own kind, averaged over draws.
        unit = smooth_times_stochastic if name.startswith("smooth") else straight_through
        found, hidden = _layers(net, x[_TRAIN:])
        drawn = jax.vmap(lambda key: jax.nn.softmax(_scores(net[-1], unit(found, key=key), hidden)))
        shares = jnp.mean(drawn(jax.random.split(end_key, 16)), axis=0)
        return -jnp.mean(jnp.log(jnp.take_along_axis(shares, y[_TRAIN:, None], axis=1) + 1e-7))

    return run


def _drawn(key: Key) -> PyTree:
    keys = jax.random.split(key, 3)
    return [network(k, sizes)[0] for k, sizes in zip(keys, ((64, _UNITS), (64, _UNITS), (_UNITS, 10)))]


def _variances(key: Key) -> dict[str, Array]:
    """Of the gradient in the gates' inputs, at a random net and image, by baseline; as many draws for each."""
    images, labels = digits()
    row_key, net_key, draw_key = jax.random.split(key, 3)
    row = jax.random.randint(row_key, (1,), 0, len(images))
    net = _drawn(net_key)
    found, hidden = _layers(net, images[row])

    def variance(baseline: Literal["none", "mean", "best"]) -> Array:
        def estimate(key: Key) -> Array:
            def of(gates: Array) -> Array:
                return cross_entropy(_scores(net[-1], gates[None], hidden), labels[row])

            return jax.grad(lambda x: score_function(of, x, key=key, draws=64, baseline=baseline))(found[0])

        return jnp.log10(jnp.sum(jnp.var(jax.vmap(estimate)(jax.random.split(draw_key, 300)), axis=0)))

    return {"best": variance("best"), "mean": variance("mean"), "none": variance("none")}


__all__ = ["PAPER", "checks"]
