"""Ghosts of Softmax: the convergence radius says which steps are safe, and a controller that keeps to it survives.

A step collapses when the loss ends up a nat or more above its start. The paper's spike of 10,000 lasts for one step, as
here, but of Adam, and gradients are clipped at 1 before it; where its spikes are held they are of 1,000.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...calculus import softmax_radius
from ...regulate import ghost_step
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits, logits, loss, network
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="ghosts-of-softmax",
    title="Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy",
    year=2026,
    link="https://arxiv.org/abs/2603.13552",
    rooms=("regulate", "calculus"),
    row=76,
    read="code",
)

_SIZES, _TRAIN, _BATCH = (64, 32, 10), 1400, 128
_RATE, _SPIKE, _STEPS = 0.5, 1e4, 150


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train on the digits with one spike of the learning rate, and find where steps along the gradient turn bad.

    Args:
        key: of all randomness.
        full: three times the seeds and the temperatures. The paper's six architectures are not run at either scale.

    Returns:
        Three checks.
    """
    images, labels = digits()
    order = jax.random.permutation(jax.random.key(3), len(images))
    train, test = ((images[rows], labels[rows]) for rows in (order[:_TRAIN], order[_TRAIN:]))
    seeds, temperatures = (15, 33) if full else (5, 11)

    # The spike is the first step of the second half.
    descent = optax.sgd(lambda count: _RATE * jnp.where(count == _STEPS, _SPIKE, 1.0))
    optimizers = {
        "controller": optax.chain(descent, ghost_step(logits)),
        "gradient norm clipped at 1": optax.chain(optax.clip_by_global_norm(1.0), descent),
        "norm of the update clipped at 1": optax.chain(descent, optax.clip_by_global_norm(1.0)),
    }

    def run(optimizer: optax.GradientTransformation, start: PyTree, key: Key) -> tuple[PyTree, Array]:
        params, accuracy = trained(
            lambda params, batch: loss(params, *batch),
            start,
            optimizer,
            lambda step, key: jax.tree.map(lambda x: x[jax.random.randint(key, (_BATCH,), 0, _TRAIN)], train),
            2 * _STEPS,
            key=key,
            extra=lambda params, batch, grads: {"inputs": batch[0]},
            record=lambda params, state, value: jnp.mean(jnp.argmax(logits(params, test[0]), axis=1) == test[1]),
            every=_STEPS,
        )
        return params, 100 * (accuracy[0] - accuracy[1])

    start_key, run_key = jax.random.split(key)
    starts = jax.jit(jax.vmap(lambda k: network(k, _SIZES)))(jax.random.split(start_key, seeds))
    keys = jax.random.split(run_key, seeds)
    runs = {name: jax.jit(jax.vmap(partial(run, rule)))(starts, keys) for name, rule in optimizers.items()}
    first = jax.tree.map(lambda leaf: leaf[0], runs["controller"][0])  # trained, the spike behind it
    onset, radius, inside = (np.asarray(x) for x in _onsets(first, train, jnp.logspace(-1, 1, temperatures)))
    spread = {"in radii": np.std(np.log10(onset / radius)), "as a length": np.std(np.log10(onset))}
    collapsed = {"0.99 radii": inside.mean(), "one length, the largest of the radii": (onset <= radius.max()).mean()}
    return [
        Check(
            f"The controller survives a learning rate {_SPIKE:.0f} times too large for a step, {_STEPS} steps later.",
            "survives spikes up to 10 000 times, where gradient clipping collapses (abstract)",
            contrasts=Contrast(
                "test accuracy lost, points", {name: lost for name, (_, lost) in runs.items()}, "lower", threshold=5.0
            ),
            expected=False,
            tried="Clipping the gradient before the rate, as is usual, collapses, as stated; clipping the update "
            "behind the rate at 0.3, 1, 3 or 10 survives as well as the controller does (95.5 to 97.7 %), at no cost.",
            moved_from="the same against clipping the gradient alone",
        ),
        Check(
            "In units of the radius the step from which the loss collapses is nearly the same at all temperatures.",
            "standard deviation of the onset falls from 0.992 to 0.164 (abstract)",
            contrasts=Contrast("standard deviation of log10 of the onset", spread, "lower", threshold=0.4),
            moved_from="the same, any rise of the loss being a collapse: 0.38 or 0.42 by seed; in sure networks it "
            "comes from 0.8 radii on",
        ),
        Check(
            "No step within the radius collapses.",
            "no model fails for r < 1 (abstract)",
            contrasts=Contrast("share of temperatures that collapse", collapsed, "lower", threshold=0.0),
            moved_from="the same against one length, the radii's geometric mean, which no temperature collapses at",
        ),
    ]


@jax.jit
def _onsets(
    params: PyTree, data: tuple[Array, Array], temperatures: Float[Array, " n"]
) -> tuple[Float[Array, " n"], ...]:
    """Where the loss along the gradient first collapses, the radius, and whether a step just within it does."""

    def at(temperature: Array) -> tuple[Array, ...]:
        def scaled(p: PyTree, inputs: Array) -> Array:
            return logits(p, inputs) / temperature

        def cost(p: PyTree) -> Array:
            return cross_entropy(scaled(p, data[0]), data[1])

        value, grads = jax.value_and_grad(cost)(params)
        norm = optax.tree.norm(grads)
        direction = jax.tree.map(lambda g: -g / norm, grads)
        radius = jnp.min(softmax_radius(scaled)(params, direction, data[0]).simple)

        def collapses(length: Array) -> Array:
            return cost(jax.tree.map(lambda p, d: p + length * d, params, direction)) > value + 1

        lengths = radius * jnp.logspace(-1, 4, 61)
        worse = jax.lax.map(collapses, lengths)
        return jnp.where(worse.any(), lengths[jnp.argmax(worse)], jnp.inf), radius, collapses(0.99 * radius)

    return jax.lax.map(at, temperatures)
