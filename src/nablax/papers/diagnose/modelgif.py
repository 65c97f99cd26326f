"""ModelGiF: models taken from one another share their input-gradient fields; models trained apart do not.

Copies of a classifier of the digits, trained further or reordered, and students taught by its outputs; beside them
networks trained on the same images from other weights.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...diagnose import model_distance
from .._problems._classifier import digits, logits, network
from .._records import Check, Paper

PAPER = Paper(
    slug="modelgif",
    title="ModelGiF: Gradient Fields for Model Functional Distance",
    year=2023,
    link="https://arxiv.org/abs/2309.11013",
    rooms=("diagnose",),
    row=103,
    read="text",
)

_SIZES, _GROUP = (64, 48, 10), 4


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a source, its copies, students and strangers; measure how far each is from the source.

    Args:
        key: of all randomness.
        full: longer training and more samples. The paper's image sets and task families are not attempted.

    Returns:
        Two checks.
    """
    images, labels = digits()
    train, test = images[:1200], images[1200:]
    truth = jax.nn.one_hot(labels[:1200], 10)
    half = 600
    steps, samples = (10_000, 500) if full else (2000, 100)
    keys = jax.random.split(key, 4)
    fresh = jax.vmap(partial(network, sizes=_SIZES))
    count = 2 * _GROUP

    # Everyone learns from the first half of the images; copies are trained on with the second.
    own = _Lessons(*(jnp.tile(jnp.array([row]), (count, 1)) for row in ([0, half], [steps, 0], [0.0, 0.0])))
    nobody = network(key, _SIZES)
    first = _train(fresh(jax.random.split(keys[0], count)), nobody, train, truth, own, keys[1])
    source = _pick(first, 0)
    strangers = [_pick(first, i) for i in range(1, count)]

    # Half are copies trained on; half are students, which ask the source about noisy images.
    copies = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], _GROUP, axis=0), first)
    starts = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), copies, fresh(jax.random.split(keys[2], _GROUP)))
    lessons = _Lessons(
        *(
            jnp.repeat(jnp.array(rows), _GROUP, axis=0)
            for rows in ([[half, 2 * half], [0, half]], [[steps // 10, 0], [steps, 0]], [[0.0, 0.0], [1.0, 0.5]])
        )
    )
    second = _train(starts, source, train, truth, lessons, keys[3])
    tuned = [_pick(second, i) for i in range(_GROUP)]
    students = [_pick(second, i) for i in range(_GROUP, count)]
    copied = [*tuned, _reordered(source)]

    xs = test[:samples]
    centre = jnp.mean(train, axis=0)

    def gif(other: PyTree) -> float:
        ours, theirs = (jax.tree_util.Partial(_one, params) for params in (source, other))
        return float(model_distance(ours, theirs, xs, centre).distance.value)

    def apart(other: PyTree) -> float:
        ours, theirs = (jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(p)]) for p in (source, other))
        return float(1 - ours @ theirs / jnp.linalg.norm(ours) / jnp.linalg.norm(theirs))

    def disagree(other: PyTree) -> float:
        ours, theirs = (jnp.argmax(logits(params, test), axis=1) for params in (source, other))
        return float(jnp.mean(ours != theirs))

    far = [gif(m) for m in strangers]
    near, taught = [gif(m) for m in copied], [gif(m) for m in students]
    weights = [apart(m) for m in copied], [apart(m) for m in strangers]
    answers_differ = [disagree(m) for m in students], [disagree(m) for m in strangers]
    return [
        Check(
            "Copies of a model, trained on or with their hidden units reordered, stay near it.",
            "stated in words and tables (fine-tuned and pruned copies), for larger networks",
            f"distance of {len(near)} copies {_span(near)}; of {len(far)} networks trained apart {_span(far)}",
            "every copy nearer than every network trained apart",
            bool(max(near) < min(far) and max(weights[0]) >= min(weights[1])),
            f"1 − cosine of the weights: {_span(weights[0])} against {_span(weights[1])}",
            expected=False,
            tried="the reordered copy is at 0.000, but copies trained on for a tenth of the steps, with the other half "
            "of the images, are at 0.03: farther than networks trained apart on the same images; so with three keys",
        ),
        Check(
            "Students taught by a model's outputs are nearer to it than networks trained apart.",
            "stated in words and tables (model extraction), for larger networks",
            f"distance of {len(taught)} students {_span(taught)}; of networks trained apart {_span(far)}",
            "every student nearer than every network trained apart",
            bool(max(taught) < min(far) and max(answers_differ[0]) >= min(answers_differ[1])),
            f"share of test images read differently: {_span(answers_differ[0])} against {_span(answers_differ[1])}",
        ),
    ]


class _Lessons(NamedTuple):
    """Of each network: rows from and to, steps (and nothing), whether it is taught by another and the noise."""

    rows: Array
    steps: Array
    taught: Array


@jax.jit
def _train(params: PyTree, teacher: PyTree, images: Array, truth: Array, lessons: _Lessons, key: Key) -> PyTree:
    """Train many networks at once, each by its own lessons."""
    optimizer = optax.adam(3e-3)

    def one(params: PyTree, lesson: _Lessons, key: Key) -> PyTree:
        def update(step: Array, carry: tuple) -> tuple:
            params, state = carry
            pick, spoil = jax.random.split(jax.random.fold_in(key, step))
            rows = jax.random.randint(pick, (64,), lesson.rows[0], lesson.rows[1])
            inputs = images[rows] + lesson.taught[1] * jax.random.normal(spoil, (64, images.shape[1]))
            answers = jax.nn.softmax(logits(teacher, inputs))
            targets = jnp.where(lesson.taught[0] > 0, answers, truth[rows])

            def loss(params: PyTree) -> Float[Array, ""]:
                return jnp.mean(optax.softmax_cross_entropy(logits(params, inputs), targets))

            changes, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, changes), state

        return jax.lax.fori_loop(0, lesson.steps[0], update, (params, optimizer.init(params)))[0]

    return jax.vmap(one)(params, lessons, jax.random.split(key, lessons.rows.shape[0]))


def _pick(params: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], params)


def _reordered(params: PyTree) -> PyTree:
    (inner, shift), (outer, bias) = params
    return [(inner[:, ::-1], shift[::-1]), (outer[::-1], bias)]


def _one(params: PyTree, x: Array) -> Array:
    return logits(params, x[None])[0]


def _span(numbers: list[float]) -> str:
    return f"{np.min(numbers):.3f} to {np.max(numbers):.3f}"
