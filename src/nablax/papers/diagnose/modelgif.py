"""ModelGiF: models taken from one another share their input-gradient fields; models trained apart do not.

Copies of a classifier of the digits, trained further or reordered, and students taught by its outputs; beside them
networks trained on the same images from other weights.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...diagnose import model_distance
from .._contrast import Contrast
from .._problems._classifier import digits, logits, network
from .._problems._training import trained
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
    train, truth, test = images[:1200], jax.nn.one_hot(labels[:1200], 10), images[1200:]
    # Everyone learns from the first half of the images; copies are trained on with the second.
    half, rest = ((train[rows], truth[rows]) for rows in (slice(600), slice(600, None)))
    steps, samples = (10_000, 500) if full else (2000, 100)
    keys = jax.random.split(key, 5)
    fresh = jax.vmap(partial(network, sizes=_SIZES))

    first = _learned(fresh(jax.random.split(keys[0], 2 * _GROUP)), half, keys[1], steps=steps)
    source, *strangers = _apart(first)
    copies = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], _GROUP, axis=0), first)
    copied = [*_apart(_learned(copies, rest, keys[2], steps=steps // 10)), _reordered(source)]
    pupils = fresh(jax.random.split(keys[3], _GROUP))
    students = _apart(_learned(pupils, half, keys[4], source, steps=steps))
    xs, centre = test[:samples], jnp.mean(train, axis=0)

    def gif(other: PyTree) -> float:
        ours, theirs = (jax.tree_util.Partial(_one, params) for params in (source, other))
        return float(model_distance(ours, theirs, xs, centre).distance.value)

    def apart(other: PyTree) -> float:
        ours, theirs = (ravel_pytree(params)[0] for params in (source, other))
        return float(1 - ours @ theirs / jnp.linalg.norm(ours) / jnp.linalg.norm(theirs))

    def disagree(other: PyTree) -> float:
        ours, theirs = (jnp.argmax(logits(params, test), axis=1) for params in (source, other))
        return float(jnp.mean(ours != theirs))

    measures: tuple[Callable[[PyTree], float], ...] = (gif, apart, disagree)
    nearest = {measure: min(map(measure, strangers)) for measure in measures}

    def farthest(kind: str, related: list[PyTree], baseline: str, other: Callable[[PyTree], float]) -> Contrast:
        return Contrast(
            f"distance of the farthest {kind}, over that of the nearest network trained apart",
            {
                name: max(map(measure, related)) / nearest[measure]
                for name, measure in (("ModelGiF", gif), (baseline, other))
            },
            "lower",
            threshold=1.0,
        )

    return [
        Check(
            "Copies of a model, trained on or with their hidden units reordered, stay near it.",
            "stated in words and tables (fine-tuned and pruned copies), for larger networks",
            contrasts=farthest("copy", copied, "1 − cosine of the weights", apart),
            expected=False,
            tried="three keys: the reordered copy stays, those trained on for a tenth of the steps do not",
        ),
        Check(
            "Students taught by a model's outputs are nearer to it than networks trained apart.",
            "stated in words and tables (model extraction), for larger networks",
            contrasts=farthest("student", students, "share of test images read differently", disagree),
        ),
    ]


@partial(jax.jit, static_argnames="steps")
def _learned(params: PyTree, data: tuple[Array, Array], key: Key, teacher: PyTree = None, *, steps: int) -> PyTree:
    """Train many networks at once; students ask the teacher about noisy images."""
    images, truth = data

    def loss(params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
        return jnp.mean(optax.softmax_cross_entropy(logits(params, batch[0]), batch[1]))

    def batches(step: Array, key: Key) -> tuple[Array, Array]:
        pick, spoil = jax.random.split(key)
        rows = jax.random.randint(pick, (64,), 0, len(images))
        if teacher is None:
            return images[rows], truth[rows]
        asked = images[rows] + 0.5 * jax.random.normal(spoil, (64, images.shape[1]))
        return asked, jax.nn.softmax(logits(teacher, asked))

    def one(params: PyTree, key: Key) -> PyTree:
        return trained(loss, params, optax.adam(3e-3), batches, steps, key=key)[0]

    return jax.vmap(one)(params, jax.random.split(key, len(jax.tree.leaves(params)[0])))


def _apart(params: PyTree) -> list[PyTree]:
    leaves, form = jax.tree.flatten(params)
    return [jax.tree.unflatten(form, one) for one in zip(*leaves)]


def _reordered(params: PyTree) -> PyTree:
    (inner, shift), (outer, bias) = params
    return [(inner[:, ::-1], shift[::-1]), (outer[::-1], bias)]


def _one(params: PyTree, x: Array) -> Array:
    return logits(params, x[None])[0]


__all__ = ["PAPER", "checks"]
