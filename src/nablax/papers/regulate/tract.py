"""TrAct on digits of uneven contrast: how fast a network learns, and how far one image moves its pre-activations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import tract
from .._problems._classifier import cross_entropy, digits
from .._problems._continual import Weights, initial_weights, layer_inputs
from .._records import Check, Paper

PAPER = Paper(
    slug="tract",
    title="TrAct: Making First-layer Pre-Activations Trainable",
    year=2024,
    link="https://arxiv.org/abs/2410.23970",
    rooms=("regulate",),
    row=32,
    read="text",
)

_SIZES = (64, 64, 64, 10)
_TRAIN, _BATCH, _CHUNK, _SPREAD = 1200, 64, 5, 1.0
# On 2 seeds, rates from 0.03 to 4 and first-layer factors from 0.03 to 30 give 30 steps in place of 45, plain as here.
_RATES, _FIRST = (0.1, 0.3, 1.0), (0.3, 1.0, 3.0, 10.0)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train from the same starts with and without, each at its own best rates, and scale one image.

    Args:
        key: of all randomness.
        full: six times the seeds and four times the steps. The paper's networks and images are not used.

    Returns:
        Two checks.
    """
    seeds, chunks = (12, 160) if full else (2, 40)
    curves = 100 * np.asarray(jax.jit(jax.vmap(lambda k: _train(k, chunks)))(jax.random.split(key, seeds))).mean(0)
    reached = curves.max((0, 1)) >= 95  # [methods, chunks], each at its best rates at that time
    ours, plain = (_CHUNK * (int(r.argmax()) + 1) if r.any() else np.inf for r in reached)
    best = curves.max((0, 1, 3))
    spread, raw = (float(x) for x in _contrast(key))
    return [
        Check(
            "Training is faster.",
            "speedups of 1.25 to 4 times (abstract)",
            f"95 % test accuracy after {ours} steps, {seeds} seeds, contrast log-normal; best {best[0]:.1f} %",
            "at most 1/1.25 of the baseline's steps, both at their best rates of the first layer and of the others",
            bool(np.isfinite(ours) and ours <= plain / 1.25),
            f"plain gradient: {plain} steps; best {best[1]:.1f} %",
        ),
        Check(
            "How far an image moves its pre-activations depends little on its contrast.",
            "the aim of the method, stated in words",
            f"largest over smallest move {spread:.2f}, contrast 1/4 to 4",
            "at most 1.5",
            bool(spread <= 1.5 < raw),
            f"plain gradient: {raw:.0f}",
        ),
    ]


def _train(key: Key, chunks: int) -> Float[Array, "rates first methods chunks"]:
    """Test accuracy in time."""
    contrast_key, order_key, start_key, batch_key = jax.random.split(key, 4)
    images, labels = digits()
    order = jax.random.permutation(order_key, len(images))
    x = (images - 0.3)[order] * jnp.exp(_SPREAD * jax.random.normal(contrast_key, (len(images), 1)))
    x, y = x / jnp.std(x), labels[order]
    regulator = tract(lambda weights: weights[0])

    def run(rate: Array, first: Array, plain: Array) -> Array:
        def step(weights: Weights, key: Key) -> tuple[Weights, None]:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            grads = jax.grad(lambda w: cross_entropy(layer_inputs(w, x[rows])[1], y[rows]))(weights)
            solved, _ = regulator.update(grads, optax.EmptyState(), inputs=x[rows])
            updates = jax.tree.map(lambda g, s: jnp.where(plain, g, s), grads, solved)
            rates = (rate * first, rate, rate)
            return tuple(w - r * u for w, r, u in zip(weights, rates, updates)), None

        def chunk(weights: Weights, keys: Key) -> tuple[Weights, Array]:
            weights, _ = jax.lax.scan(step, weights, keys)
            right = jnp.argmax(layer_inputs(weights, x[_TRAIN:])[1], axis=1) == y[_TRAIN:]
            return weights, jnp.mean(right.astype(jnp.float32))

        start = initial_weights(start_key, _SIZES)
        return jax.lax.scan(chunk, start, jax.random.split(batch_key, (chunks, _CHUNK)))[1]

    over = jax.vmap(run, in_axes=(None, None, 0))
    over = jax.vmap(jax.vmap(over, in_axes=(None, 0, None)), in_axes=(0, None, None))
    return over(jnp.array(_RATES), jnp.array(_FIRST), jnp.array([False, True]))


@jax.jit
def _contrast(key: Key) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Largest over smallest move of an image's own pre-activations, over contrasts, with the regulator and without."""
    image = jax.random.normal(key, (1, 64))
    slope = jnp.ones((3, 1))
    regulator = tract(lambda weight: weight)

    def moves(contrast: Array) -> Array:
        inputs = contrast * image
        gradient = slope @ inputs
        solved, _ = regulator.update(gradient, optax.EmptyState(), inputs=inputs)
        return jnp.stack([jnp.linalg.norm(inputs @ g.T) for g in (solved, gradient)])

    sizes = jax.vmap(moves)(jnp.array([0.25, 0.5, 1.0, 2.0, 4.0]))
    spread = jnp.max(sizes, axis=0) / jnp.min(sizes, axis=0)
    return spread[0], spread[1]
