"""Ghosts of Softmax: the convergence radius says which steps are safe, and a controller that keeps to it survives.

A step collapses when the loss ends up a nat or more above its start. At first any rise counted: in networks that are
sure of themselves it comes at as little as 0.8 radii and its spread (0.38 or 0.42, by seed) is no better than 0.4. The
last check's baseline was first the geometric mean of the radii, which is inside the true limit at every temperature.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...calculus import softmax_radius
from ...regulate import ghost_step
from .._problems._classifier import (
    digits,
    logits,
    loss,
    network,
)
from .._records import Check, Paper

PAPER = Paper(
    slug="ghosts-of-softmax",
    title="Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy",
    year=2026,
    link="https://arxiv.org/abs/2603.13552",
    rooms=("regulate", "calculus"),
    row=76,
    read="abstract",
)

_SIZES = (64, 32, 10)
_RATE, _BATCH, _SPIKE = 0.5, 128, 1e4
_STEPS = 150
_TRAIN = 1400


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
    train = (images[order[:_TRAIN]], labels[order[:_TRAIN]])
    test = (images[order[_TRAIN:]], labels[order[_TRAIN:]])
    seeds, temperatures = (15, 33) if full else (3, 11)

    keys = jax.random.split(key, seeds)
    curves, params = jax.jit(jax.vmap(lambda k: _train(k, train, test)))(keys)
    before, after = np.moveaxis(np.asarray(100 * curves), 2, 0)
    loss_of = (before - after).max(0)  # the worst seed, by method
    _, clip, ghost = (f"{b:.1f} % before, {a:.1f} % after" for b, a in zip(before.mean(0), after.mean(0)))

    scales = jnp.logspace(-1, 1, temperatures)
    first = jax.tree.map(lambda leaf: leaf[0, 2], params)  # trained by the controller, the spike behind it
    onset, radius, inside, common = (np.asarray(x) for x in _onsets(first, train, scales))
    spread_length, spread_ratio = np.std(np.log10(onset)), np.std(np.log10(onset / radius))
    return [
        Check(
            "The controller survives a learning rate that is 10 000 times too large for a step.",
            "survives spikes up to 10 000 times, where gradient clipping collapses (abstract)",
            f"test accuracy {ghost}, {seeds} seeds; worst loss {loss_of[2]:.1f} points",
            f"no seed loses more than 5 points of test accuracy by {_STEPS} steps after the spike",
            bool(loss_of[2] <= 5 < loss_of[1]),
            f"gradient norm clipped at 1: {clip}; worst loss {loss_of[1]:.1f} points",
        ),
        Check(
            "In units of the radius the step from which the loss collapses is nearly the same at all temperatures.",
            "standard deviation of the onset falls from 0.992 to 0.164 (abstract)",
            f"standard deviation of log10 of the onset {spread_ratio:.3f}, {temperatures} temperatures from 0.1 to 10",
            "at most 0.4",
            bool(spread_ratio <= 0.4 < spread_length),
            f"onset as a length: {spread_length:.3f}",
        ),
        Check(
            "No step within the radius collapses.",
            "no model fails for r < 1 (abstract)",
            f"{int(inside.sum())} of {temperatures} temperatures collapse at a step of 0.99 radii",
            "none",
            bool(inside.sum() == 0 < common.sum()),
            f"one length for all, the largest of the radii: {int(common.sum())} of {temperatures}",
        ),
    ]


def _train(key: Key, train: tuple[Array, Array], test: tuple[Array, Array]) -> tuple[Float[Array, "methods 2"], PyTree]:
    """Test accuracy of plain, clipped and controlled descent, just before a spike of the rate and well after."""
    start_key, data_key = jax.random.split(key)
    start = network(start_key, _SIZES)
    clip, ghost = optax.clip_by_global_norm(1.0), ghost_step(logits)
    # The spike is the first step of the second half.
    rates = jnp.full((2, _STEPS), _RATE).at[1, 0].multiply(_SPIKE)
    keys = jax.random.split(data_key, (2, _STEPS))

    def run(method: Array) -> tuple[Array, PyTree]:
        def step(params: PyTree, inputs: tuple[Array, Key]) -> tuple[PyTree, None]:
            rate, key = inputs
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            batch = (train[0][rows], train[1][rows])
            grads = jax.grad(loss)(params, *batch)
            clipped, _ = clip.update(grads, clip.init(params))
            updates = jax.tree.map(lambda g, c: -rate * jnp.where(method == 1, c, g), grads, clipped)
            safe, _ = ghost.update(updates, ghost.init(params), params, inputs=batch[0])
            updates = jax.tree.map(lambda u, s: jnp.where(method == 2, s, u), updates, safe)
            return optax.apply_updates(params, updates), None

        def half(params: PyTree, inputs: tuple[Array, Key]) -> tuple[PyTree, Array]:
            params, _ = jax.lax.scan(step, params, inputs)
            return params, jnp.mean(jnp.argmax(logits(params, test[0]), axis=1) == test[1])

        end, accuracy = jax.lax.scan(half, start, (rates, keys))
        return accuracy, end

    return jax.vmap(run)(jnp.arange(3))


@jax.jit
def _onsets(params: PyTree, data: tuple[Array, Array], temperatures: Array) -> tuple[Array, ...]:
    """Where the loss along the gradient first collapses, the radius, and whether two steps collapse."""

    def at(temperature: Array) -> tuple[Array, ...]:
        def scaled(p: PyTree, inputs: Array) -> Array:
            return logits(p, inputs) / temperature

        def cost(p: PyTree) -> Array:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scaled(p, data[0]), data[1]))

        value, grads = jax.value_and_grad(cost)(params)
        norm = optax.tree.norm(grads)
        direction = jax.tree.map(lambda g: -g / norm, grads)
        radius = jnp.min(softmax_radius(scaled)(params, direction, data[0]).simple)

        def collapses(length: Array) -> Array:
            return cost(jax.tree.map(lambda p, d: p + length * d, params, direction)) > value + 1

        lengths = radius * jnp.logspace(-1, 4, 61)
        worse = jax.lax.map(collapses, lengths)
        return jnp.where(worse.any(), lengths[jnp.argmax(worse)], jnp.inf), radius, collapses(0.99 * radius)

    onset, radius, inside = jax.lax.map(at, temperatures)
    return onset, radius, inside, onset <= jnp.max(radius)
