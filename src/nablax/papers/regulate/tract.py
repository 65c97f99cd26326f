"""TrAct on digits of uneven contrast: how fast a network learns, and how far one image moves its pre-activations."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...regulate import tract
from .._contrast import Contrast
from .._problems._classifier import digits
from .._problems._continual import cross_entropy, initial_weights, layer_inputs
from .._problems._training import trained
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
_TRAIN, _BATCH, _EVERY, _SPREAD = 1200, 64, 5, 1.0
# Of the first layer, and of the others.
_FIRST, _RATES = jnp.array([0.3, 1.2, 5.0]), jnp.array([0.02, 0.08, 0.3])


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train from the same starts with and without, each at its own best rates, and scale one image.

    Args:
        key: of all randomness.
        full: six times the seeds and four times the steps. The paper's networks and images are not used.

    Returns:
        Two checks.
    """
    seeds, steps = (12, 800) if full else (2, 160)
    methods = {"TrAct": tract(lambda weights: weights[0]), "plain gradient": optax.identity()}
    keys = jax.random.split(key, seeds)
    reached = {name: jax.jit(partial(_reached, rule, steps))(keys) for name, rule in methods.items()}
    return [
        Check(
            "Training is faster.",
            "speedups of 1.25 to 4 times (abstract)",
            contrasts=Contrast(
                "steps to a mean test accuracy of 95 %, at the best rates", reached, "lower", ratio=1 / 1.25
            ),
        ),
        Check(
            "How far an image moves its pre-activations depends little on its contrast.",
            "the aim of the method, stated in words",
            contrasts=Contrast(
                "largest over smallest move, contrast 1/4 to 4",
                dict(zip(("TrAct", "plain gradient"), _contrast(key))),
                "lower",
                threshold=1.5,
            ),
        ),
    ]


def _reached(regulator: optax.GradientTransformation, steps: int, keys: Key) -> Int[Array, ""]:
    """Steps to a mean over keys of 95 %, images being of log-normal contrast; all of them where it is not reached."""

    def run(first: Array, rate: Array, key: Key) -> Float[Array, " times"]:
        contrast_key, order_key, start_key, batch_key = jax.random.split(key, 4)
        images, labels = digits()
        order = jax.random.permutation(order_key, len(images))
        x = (images - 0.3)[order] * jnp.exp(_SPREAD * jax.random.normal(contrast_key, (len(images), 1)))
        x, y = x / jnp.std(x), labels[order]
        rates = (first, rate, rate)

        def right(weights: tuple[Array, ...], *_: object) -> Array:
            answers = jnp.argmax(layer_inputs(weights, x[_TRAIN:])[1], axis=1)
            return jnp.mean((answers == y[_TRAIN:]).astype(jnp.float32))

        return trained(
            lambda weights, rows: cross_entropy(weights, x[rows], y[rows]),
            initial_weights(start_key, _SIZES),
            optax.chain(regulator, optax.stateless(lambda g, _: tuple(-r * layer for r, layer in zip(rates, g)))),
            lambda step, key: jax.random.randint(key, (_BATCH,), 0, _TRAIN),
            steps,
            key=batch_key,
            record=right,
            every=_EVERY,
            extra=lambda weights, rows, grads: {"inputs": x[rows]},
        )[1]

    over = jax.vmap(jax.vmap(run, (None, 0, None)), (0, None, None))
    curves = jnp.mean(jax.vmap(over, (None, None, 0))(_FIRST, _RATES, keys), axis=0)
    reached = jnp.max(curves, axis=(0, 1)) >= 0.95
    return jnp.where(jnp.any(reached), _EVERY * (jnp.argmax(reached) + 1), steps)


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


__all__ = ["PAPER", "checks"]
