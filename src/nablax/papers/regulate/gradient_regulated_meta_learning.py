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
from ...regulate import (
    MetaRegulation,
    meta_adapt,
    meta_loss,
    meta_regulation,
)
from .._problems._continual import mean_and_error
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


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Meta-learn a start with and without a gradient regulator, and adapt to new tasks.

    Args:
        key: of all randomness.
        full: ten times the meta-steps and twice the seeds.

    Returns:
        Two checks.
    """
    seeds, steps = (8, 2000) if full else (4, 200)
    run = jax.jit(jax.vmap(_run, in_axes=(0, None)), static_argnums=1)
    across, within = (100 * np.asarray(t) for t in run(jax.random.split(key, seeds), steps))

    def words(values: np.ndarray) -> str:
        return "{:.1f} ± {:.1f} %".format(*mean_and_error(values))

    gain, error = mean_and_error(across[:, 1] - across[:, 0])
    lost = [mean_and_error(within[:, k] - across[:, k])[0] for k in (0, 1)]
    return [
        Check(
            "A regulated gradient generalises better to another domain.",
            "stated in words and figures",
            f"accuracy in the other domain {words(across[:, 1])}, {gain:+.1f} ± {error:.1f} percentage points",
            "gain above two standard errors",
            bool(gain > 2 * error),
            f"the start alone meta-learnt: {words(across[:, 0])}",
        ),
        Check(
            "Adaptation no longer costs generality: what is learnt from few samples carries over.",
            "stated in words",
            f"from the supports' domain, {words(within[:, 1])}, to another the accuracy falls by {lost[1]:.1f} "
            f"percentage "
            "points",
            "falls by less than half of what it falls by without regulator",
            bool(lost[1] < 0.5 * lost[0]),
            f"the start alone meta-learnt: from {words(within[:, 0])} by {lost[0]:.1f}",
        ),
    ]


def _run(key: Key, steps: int) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Accuracy after adaptation in another domain and in the supports' own: start alone, start and regulator."""
    train_key, test_key = jax.random.split(key)
    function = meta_loss(_loss, steps=_STEPS, learning_rate=_RATE)
    optimizer = optax.adam(0.02)

    def train(learn_regulator: Array) -> MetaRegulation:
        def step(carry: tuple, k: Key) -> tuple[tuple, None]:
            meta, state = carry
            support, query, _ = jax.vmap(_task)(jax.random.split(k, 16))
            over = jax.vmap(function, in_axes=(None, 0, 0))
            gradient = jax.grad(lambda m: jnp.mean(over(m, support, query)))(meta)
            on = learn_regulator
            gradient = MetaRegulation(gradient.start, on * gradient.gain, on * gradient.shift)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(meta, updates), state), None

        meta = meta_regulation(jnp.zeros(_SHARED + _DOMAIN))
        return jax.lax.scan(step, (meta, optimizer.init(meta)), jax.random.split(train_key, steps))[0][0]

    support, across, within = jax.vmap(_task)(jax.random.split(test_key, 200))
    adapt = meta_adapt(_loss, steps=_STEPS, learning_rate=_RATE)

    def accuracy(meta: MetaRegulation, query: tuple) -> Array:
        params = jax.vmap(adapt, in_axes=(None, 0))(meta, support)
        x, y = query
        return jnp.mean((jnp.einsum("tsf,tf->ts", x, params) * y > 0).astype(jnp.float32))

    metas = jax.vmap(train)(jnp.array([0.0, 1.0]))
    over = jax.vmap(accuracy, in_axes=(0, None))
    return over(metas, across), over(metas, within)


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
