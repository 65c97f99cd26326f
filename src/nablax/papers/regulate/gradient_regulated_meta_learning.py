"""Gradient-Regulated Meta-Prompt Learning: few-shot learning across domains, on tasks with features that mislead.

The paper tunes prompts of a vision-language model. Here a task is a random two-class problem whose first features tell
the classes apart in every domain, while the others do so in the domain of the few support samples alone: what the
gradient regulator should learn to distrust. Start and regulator are meta-learnt together, as in the paper, with
supports and queries from different domains.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import MetaRegulation, meta_adapt, meta_loss, meta_regulation
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-regulated-meta-learning",
    title="Gradient-Regulated Meta-Prompt Learning for Generalizable Vision-Language Models",
    year=2023,
    link="https://arxiv.org/abs/2303.06571",
    rooms=("regulate",),
    row=257,
    read="abstract",
)

_SHARED, _DOMAIN = 8, 8  # features
_SHOTS, _QUERIES = 8, 64  # samples of a task
_STEPS, _RATE = 5, 0.5
_METHODS = {"start and regulator meta-learnt": 1.0, "the start alone": 0.0}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Meta-learn a start with and without a gradient regulator, and adapt to new tasks.

    Args:
        key: of all randomness.
        full: ten times the meta-steps and twice the seeds.

    Returns:
        Two checks.
    """
    seeds, steps = (8, 2000) if full else (4, 200)
    over = jax.vmap(_run, in_axes=(0, None, None))
    run = jax.jit(jax.vmap(over, in_axes=(None, 0, None)), static_argnums=2)
    across, within = (100 * t for t in run(jax.random.split(key, seeds), jnp.array([*_METHODS.values()]), steps))
    return [
        Check(
            "A regulated gradient generalises better to another domain.",
            "stated in words and figures",
            contrasts=Contrast("accuracy in the other domain, %", dict(zip(_METHODS, across)), "higher"),
        ),
        Check(
            "Adaptation no longer costs generality: what is learnt from few samples carries over.",
            "stated in words",
            contrasts=Contrast(
                "fall of the accuracy from the supports' domain to the other, points",
                dict(zip(_METHODS, within - across)),
                "lower",
                ratio=0.5,
            ),
        ),
    ]


def _run(key: Key, regulated: Float[Array, ""], steps: int) -> tuple[Float[Array, ""], ...]:
    """Accuracy after adaptation in another domain and in the supports' own."""
    train_key, test_key = jax.random.split(key)
    after = jax.vmap(meta_loss(_loss, steps=_STEPS, learning_rate=_RATE), in_axes=(None, 0, 0))

    def loss(meta: MetaRegulation, tasks: tuple) -> Array:
        # A regulator that starts from nothing and has no gradient stays nothing.
        meta = MetaRegulation(meta.start, regulated * meta.gain, regulated * meta.shift)
        return jnp.mean(after(meta, *tasks[:2]))

    meta, _ = trained(
        loss,
        meta_regulation(jnp.zeros(_SHARED + _DOMAIN)),
        optax.adam(0.02),
        lambda step, key: jax.vmap(_task)(jax.random.split(key, 16)),
        steps,
        key=train_key,
    )
    support, *queries = jax.vmap(_task)(jax.random.split(test_key, 200))
    params = jax.vmap(meta_adapt(_loss, steps=_STEPS, learning_rate=_RATE), in_axes=(None, 0))(meta, support)
    near, far = (jnp.mean((jnp.einsum("tsf,tf->ts", x, params) * y > 0).astype(jnp.float32)) for x, y in queries)
    return near, far


def _loss(params: Float[Array, " features"], data: tuple[Array, Array]) -> Array:
    x, y = data
    return jnp.mean(jax.nn.softplus(-y * (x @ params)))


def _task(key: Key) -> tuple[tuple, tuple, tuple]:
    """Supports, queries of another domain, and queries of the supports' own."""
    # One draw cut in pieces: each call of the generator is compiled apart, and slowly.
    sizes = [_SHARED, _DOMAIN, _DOMAIN, *(count * (1 + _SHARED + _DOMAIN) for count in (_SHOTS, _QUERIES, _QUERIES))]
    shared, here, there, *noises = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])

    def draw(noise: Array, domain: Array) -> tuple[Array, Array]:
        rows = noise.reshape(-1, 1 + _SHARED + _DOMAIN)
        y = jnp.where(rows[:, 0] > 0, 1.0, -1.0)
        centre = jnp.concatenate([0.5 * shared, domain])
        return y[:, None] * centre[None] + rows[:, 1:], y

    return draw(noises[0], here), draw(noises[1], there), draw(noises[2], here)
