"""Statistical mechanics of continual learning: two binary teachers in sequence, what was learnt of the first as prior.

A student with binary weights learns from a teacher's labels on random inputs, then from another teacher whose weights
agree with the first's in part. Order parameters of the infinite system are not computed; the networks have one layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import binary_preactivation, variational_binary
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="franz-parisi",
    title="Statistical mechanics of continual learning: variational principle and mean-field potential",
    year=2022,
    link="https://arxiv.org/abs/2212.02846",
    rooms=("regulate",),
    row=18,
    read="code",
)

_SIZE, _SAMPLES = 100, 300  # weights, and samples of a task
_OVERLAP = 0.4  # of the teachers
_STEPS, _RATE = 500, 10.0
# Strengths of metaplasticity and its rates; the pair that is best at the end, on the same draws, is shown.
_METAPLASTICITY, _META_RATES = jnp.array([0.0, 0.3, 1.0, 3.0, 10.0]), jnp.array([0.3, 1.0, 3.0])
_Task = tuple[Float[Array, "samples size"], Float[Array, " samples"]]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn from two teachers in sequence: with the prior, without, and by metaplasticity.

    Args:
        key: of all randomness.
        full: four times the seeds.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key, 40 if full else 10)
    with_prior, without, meta = (100 * np.asarray(t) for t in jax.jit(jax.vmap(_compare))(keys))  # [seeds, ..., tasks]
    meta = meta.reshape(len(meta), -1, 2)
    best = meta[:, meta.mean((0, 2)).argmin()]
    errors = {"prior": with_prior, "no prior": without}
    return [
        Check(
            "With what was learnt before as prior, the first task is forgotten less.",
            "stated in words and figures (generalisation error of both tasks against training time)",
            contrasts=[
                Contrast("error of the first task, %", {name: e[:, 0] for name, e in errors.items()}, "lower"),
                Contrast("the worse error of both tasks, %", {name: e.max(1) for name, e in errors.items()}, "lower"),
            ],
            moved_from="the first task's error lower and the mean of both no higher; no student can follow both "
            "teachers, and the means come out level",
        ),
        Check(
            "It does better than metaplasticity.",
            "stated in words and figures, for networks of several layers on permuted images",
            contrasts=Contrast(
                "mean error of both tasks, %",
                {"prior": with_prior.mean(1), f"metaplasticity, best of {meta.shape[1]}": best.mean(1)},
                "lower",
            ),
        ),
    ]


def _compare(key: Key) -> tuple[Array, Array, Array]:
    """Generalisation errors of both tasks at the end: with prior, without, and for each metaplasticity and rate."""
    teacher_key, agree_key, hidden_key, input_key = jax.random.split(key, 4)
    first = jax.random.rademacher(teacher_key, (_SIZE,), jnp.float32)
    second = jnp.where(jax.random.uniform(agree_key, (_SIZE,)) < (1 + _OVERLAP) / 2, first, -first)
    teachers = jnp.stack([first, second])
    inputs = jax.random.rademacher(input_key, (2, _SAMPLES, _SIZE), jnp.float32)
    tasks = inputs, jnp.sign(jnp.einsum("tsn,tn->ts", inputs, teachers) + 0.5)

    def errors(weights: Array) -> Array:
        cosines = teachers @ weights / (jnp.linalg.norm(weights) * _SIZE**0.5)
        return jnp.arccos(jnp.clip(cosines, -1, 1)) / jnp.pi

    def variational(strength: Array) -> Array:
        return errors(jnp.tanh(_variational(tasks, strength)))

    def metaplastic(strength: Array, rate: Array) -> Array:
        return errors(jnp.sign(_metaplastic(hidden_key, tasks, strength, rate)))

    student, plain = jax.vmap(variational)(jnp.array([1 / _SAMPLES, 0.0]))
    return student, plain, jax.vmap(jax.vmap(metaplastic, (None, 0)), (0, None))(_METAPLASTICITY, _META_RATES)


def _variational(tasks: _Task, strength: Float[Array, ""]) -> Float[Array, " size"]:
    """Fields after both tasks, each of which has the fields that it starts from as prior."""
    prior = variational_binary(strength)
    rule = optax.GradientTransformationExtraArgs(lambda fields: prior.init(fields)._replace(prior=fields), prior.update)

    def loss(fields: Array, task: _Task) -> Array:
        mean, variance = jax.vmap(lambda row: binary_preactivation(fields[None], row))(task[0])
        return -jnp.mean(norm.logcdf(task[1] * mean[:, 0] / jnp.sqrt(variance[:, 0] + 1e-3)))

    return _in_sequence(loss, jnp.zeros(_SIZE), optax.chain(rule, optax.sgd(_RATE)), tasks)


def _metaplastic(key: Key, tasks: _Task, strength: Float[Array, ""], rate: Float[Array, ""]) -> Float[Array, " size"]:
    """Hidden weights after both tasks; their signs are the binary ones, and large ones are slow to turn back."""

    def loss(hidden: Array, task: _Task) -> Array:
        binary = hidden + jax.lax.stop_gradient(jnp.sign(hidden) - hidden)
        return jnp.mean(jax.nn.softplus(-2 * task[1] * (task[0] @ binary) / _SIZE**0.5))

    def slowed(gradient: Array, hidden: Array) -> Array:
        return jnp.where(gradient * hidden > 0, 1 - jnp.square(jnp.tanh(strength * hidden)), 1) * gradient

    start = 0.1 * jax.random.normal(key, (_SIZE,))
    return _in_sequence(loss, start, optax.chain(optax.stateless(slowed), optax.sgd(rate)), tasks)


def _in_sequence(
    loss: Callable[[Array, _Task], Array], start: Array, optimizer: optax.GradientTransformation, tasks: _Task
) -> Array:
    """Weights after one task after the other, the optimiser starting afresh with each."""

    def learn(weights: Array, task: _Task) -> tuple[Array, None]:
        return trained(loss, weights, optimizer, lambda step, key: task, _STEPS, key=jax.random.key(0))[0], None

    return jax.lax.scan(learn, start, tasks)[0]
