"""Statistical mechanics of continual learning: two binary teachers in sequence, what was learnt of the first as prior.

A student with binary weights learns from a teacher's labels on random inputs, then from another teacher whose weights
agree with the first's in part. Order parameters of the infinite system are not computed; the networks have one layer.

The first criterion was at first that the first task's error be lower and the mean of both no higher. Since no
student can
follow both teachers, the means come out level (21.4 % with the prior and 21.6 % without, in a trial), and the criterion
became the worse of the two errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import binary_preactivation, variational_binary
from .._problems._continual import mean_and_error
from .._records import Check, Paper

PAPER = Paper(
    slug="franz-parisi",
    title="Statistical mechanics of continual learning: variational principle and mean-field potential",
    year=2022,
    link="https://arxiv.org/abs/2212.02846",
    rooms=("regulate",),
    row=18,
    read="abstract",
)

_SIZE = 100
_LOAD = 3.0  # samples of a task over weights
_OVERLAP = 0.4  # of the teachers
_STEPS = 500
_RATE = 10.0
# Strengths of metaplasticity and its steps; the pair that is best at the end is shown.
_METAPLASTICITY = jnp.array([0.0, 0.3, 1.0, 3.0, 10.0])
_META_RATES = jnp.array([0.3, 1.0, 3.0])


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn from two teachers in sequence: with the prior, without, and by metaplasticity.

    Args:
        key: of all randomness.
        full: four times the seeds.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key, 40 if full else 10)
    with_prior, without, meta = (100 * np.asarray(t) for t in jax.jit(jax.vmap(_compare))(keys))
    meta = meta.reshape(len(meta), -1, 2)  # [seeds, strengths and steps, tasks]
    best = meta[:, meta.mean((0, 2)).argmin()]

    def words(errors: np.ndarray) -> str:
        return " and ".join("{:.1f} ± {:.1f} %".format(*mean_and_error(e)) for e in errors.T)

    worse, worse_error = mean_and_error(without.max(1) - with_prior.max(1))
    first, first_error = mean_and_error(without[:, 0] - with_prior[:, 0])
    lead, lead_error = mean_and_error((best - with_prior).mean(1))
    return [
        Check(
            "With what was learnt before as prior, the first task is forgotten less.",
            "stated in words and figures (generalisation error of both tasks against training time)",
            f"generalisation errors after both tasks {words(with_prior)}, the first {first:.1f} ± {first_error:.1f} "
            f"and the worse one {worse:.1f} ± {worse_error:.1f} percentage points lower",
            "the first task's error, and the worse of the two, lower by more than two standard errors",
            bool(first > 2 * first_error and worse > 2 * worse_error),
            f"the same without prior: {words(without)}",
        ),
        Check(
            "It does better than metaplasticity.",
            "stated in words and figures, for networks of several layers on permuted images",
            f"generalisation errors {words(with_prior)}, mean lower by {lead:.1f} ± {lead_error:.1f} percentage points",
            "mean error of both tasks lower by more than two standard errors",
            bool(lead > 2 * lead_error),
            f"metaplastic binary weights, the best of {_METAPLASTICITY.size} strengths and {_META_RATES.size} steps: "
            f"{words(best)}",
        ),
    ]


def _compare(key: Key) -> tuple[Array, Array, Array]:
    """Generalisation errors of both tasks at the end: with prior, without, and for each metaplasticity and step."""
    teacher_key, agree_key, hidden_key, *input_keys = jax.random.split(key, 5)
    first = jax.random.rademacher(teacher_key, (_SIZE,), jnp.float32)
    second = jnp.where(jax.random.uniform(agree_key, (_SIZE,)) < (1 + _OVERLAP) / 2, first, -first)
    teachers = jnp.stack([first, second])
    inputs = jnp.stack([jax.random.rademacher(k, (int(_LOAD * _SIZE), _SIZE), jnp.float32) for k in input_keys])
    labels = jnp.sign(jnp.einsum("tsn,tn->ts", inputs, teachers) + 0.5)

    def errors(weights: Array) -> Array:
        cosines = teachers @ weights / (jnp.linalg.norm(weights) * _SIZE**0.5)
        return jnp.arccos(jnp.clip(cosines, -1, 1)) / jnp.pi

    strengths = jnp.array([1.0, 0.0])
    fields = jax.vmap(lambda keep: _variational(inputs, labels, keep))(strengths)
    over = jax.vmap(jax.vmap(_metaplastic, (None, None, None, None, 0)), (None, None, None, 0, None))
    meta = over(hidden_key, inputs, labels, _METAPLASTICITY, _META_RATES)
    student, plain = jax.vmap(errors)(jnp.tanh(fields))
    return student, plain, jax.vmap(jax.vmap(errors))(jnp.sign(meta))


def _variational(
    inputs: Float[Array, "tasks samples size"], labels: Float[Array, "tasks samples"], keep: Float[Array, ""]
) -> Float[Array, " size"]:
    """Fields after both tasks; with ``keep`` 0 the prior of each task knows nothing and does not pull."""
    samples = labels.shape[1]
    plain, pulled = variational_binary(0.0), variational_binary(1 / samples)

    def loss(fields: Array, x: Array, y: Array) -> Array:
        mean, variance = jax.vmap(lambda row: binary_preactivation(fields[None], row))(x)
        return -jnp.mean(norm.logcdf(y * mean[:, 0] / jnp.sqrt(variance[:, 0] + 1e-3)))

    def task(fields: Array, part: tuple) -> tuple[Array, None]:
        state = pulled.init(fields)._replace(prior=fields)

        def step(fields: Array, _: None) -> tuple[Array, None]:
            gradient = jax.grad(loss)(fields, *part)
            free, _ = plain.update(gradient, state, fields)
            held, _ = pulled.update(gradient, state, fields)
            return fields - _RATE * (keep * held + (1 - keep) * free), None

        return jax.lax.scan(step, fields, length=_STEPS)[0], None

    return jax.lax.scan(task, jnp.zeros(inputs.shape[-1]), (inputs, labels))[0]


def _metaplastic(
    key: Key,
    inputs: Float[Array, "tasks samples size"],
    labels: Float[Array, "tasks samples"],
    strength: Float[Array, ""],
    rate: Float[Array, ""],
) -> Float[Array, " size"]:
    """Hidden weights after both tasks; their signs are the binary ones, and large ones are slow to turn back."""

    def loss(binary: Array, x: Array, y: Array) -> Array:
        return jnp.mean(jax.nn.softplus(-2 * y * (x @ binary) / binary.size**0.5))

    def task(hidden: Array, part: tuple) -> tuple[Array, None]:
        def step(hidden: Array, _: None) -> tuple[Array, None]:
            gradient = jax.grad(loss)(jnp.sign(hidden), *part)
            slow = 1 - jnp.square(jnp.tanh(strength * hidden))
            return hidden - rate * jnp.where(gradient * hidden > 0, slow, 1) * gradient, None

        return jax.lax.scan(step, hidden, length=_STEPS)[0], None

    start = 0.1 * jax.random.normal(key, (inputs.shape[-1],))
    return jax.lax.scan(task, start, (inputs, labels))[0]
