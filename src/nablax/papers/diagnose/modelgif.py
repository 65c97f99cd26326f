"""ModelGiF: models taken from one another share their input-gradient fields; models trained apart do not.

The paper's set-up for stolen models, small: a classifier of the digits learns from one half of the images. A thief, who
has the other half, trains copies of it further, drops hidden units from some first, or teaches students by its answers;
others train on that half alone. Copies could be told by their weights too; but whoever steals may reorder hidden units,
so that functions alone are compared.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...diagnose import distinguishing_samples, model_distance
from .._contrast import Contrast
from .._problems._classifier import logits, split_digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="modelgif",
    title="ModelGiF: Gradient Fields for Model Functional Distance",
    year=2023,
    link="https://arxiv.org/abs/2309.11013",
    rooms=("diagnose",),
    row=103,
    read="code",
)

_SIZES, _HALF = (64, 48, 10), 500
# Models of each kind, models trained apart, and others that choose the samples.
_GROUP, _APART, _CHOOSERS = 4, 8, 4
# Of the samples to choose, 8, 32 and 128 were tried on two keys that are used for nothing else.
_CHOSEN = 32


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train sources, copies, students and strangers; measure how far each is from its source, by several distances.

    Beside ModelGiF stand the paper's strongest competitor, the correlation of outputs between samples, on images
    that the source gets wrong and on mixtures of two images, and what anyone would try, the share of images that two
    models read differently.

    Args:
        key: of all randomness.
        full: ten sources in place of two. The paper's image sets and families of tasks are not attempted.

    Returns:
        Two checks.
    """
    kinds = ("copies trained on", "copies cut and trained on", "students by probabilities", "students by labels")
    farthest: dict[str, list[np.ndarray]] = {}
    for one in jax.random.split(key, 10 if full else 2):
        for name, distances in _distances(one).items():
            related, apart = np.split(distances, [len(kinds) * _GROUP])
            farthest.setdefault(name, []).append(related.reshape(len(kinds), _GROUP).max(1) / apart.min())
    worst = {name: np.asarray(ratios).reshape(-1, 2, 2).max(2) for name, ratios in farthest.items()}

    def contrast(place: int) -> Contrast:
        group = " and ".join(kinds[2 * place : 2 * place + 2])
        return Contrast(
            f"distance of the farthest of {group}, over that of the nearest network trained apart",
            {name: ratios[:, place] for name, ratios in worst.items()},
            "lower",
        )

    return [
        Check(
            "Copies of a model, trained on or cut and trained on, stand out from networks trained apart.",
            "in words: superior to competitors; AUC 1 for every kind of copy in the authors' log, for larger networks",
            contrasts=contrast(0),
            expected=False,
            tried="three keys: copies stand out, and farther than by the correlation of outputs; but as far by the "
            "share of mixed images that are read differently",
            moved_from="at most 1, which 1 − cosine of the weights misses, with the first model's label for both, from "
            "the mean image, and samples as they come",
        ),
        Check(
            "Students taught by a model's outputs stand out from networks trained apart.",
            "the same, for extraction by probabilities and by labels",
            contrasts=contrast(1),
            moved_from="at most 1, which the share of test images read differently misses, as above",
        ),
    ]


def _distances(key: Key) -> dict[str, np.ndarray]:
    """From a source to its relatives, kind by kind, and to networks trained apart, by several measures."""
    keys = jax.random.split(key, 7)
    images, labels, test, truth = split_digits(keys[0], 2 * _HALF)
    answers = jax.nn.one_hot(labels, 10)
    source = _first(_learned(_fresh(keys[1], 1), images[:_HALF], answers[None, :_HALF], keys[2], steps=1000), 0)

    # Students and those trained apart differ in the answers alone.
    rest, own = images[_HALF:], np.asarray(answers[_HALF:])
    soft = np.asarray(jax.nn.softmax(logits(source, rest)))
    hard = np.eye(10, dtype=np.float32)[soft.argmax(1)]
    given = jnp.asarray(np.stack([soft] * _GROUP + [hard] * _GROUP + [own] * (_APART + _CHOOSERS)))
    taught = _learned(_fresh(keys[3], len(given)), rest, given, keys[4], steps=1000)
    starts = [source] * _GROUP + [_cut(source, rest, share) for share in np.linspace(0.1, 0.6, _GROUP)]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *starts)
    copies = _learned(stacked, rest, jnp.asarray(np.stack([own] * len(starts))), keys[5], steps=150)
    models = jax.tree.map(lambda *leaves: np.concatenate(leaves), copies, taught)
    count = len(starts) + len(given) - _CHOOSERS

    grey = jnp.full(_SIZES[0], jnp.mean(images))
    field, *others = (
        jax.tree_util.Partial(_one, one)
        for one in (source, *(_first(models, i) for i in range(len(starts) + len(given))))
    )
    places = distinguishing_samples(field, others[count:], test, grey, _CHOSEN)
    gradients = [model_distance(field, other, test[places], grey).distance.value for other in others[:count]]

    mixed = _mixed(keys[6], test)
    clean, confused = (
        (np.asarray(logits(source, xs)), np.asarray(_outputs(models, xs))[:count]) for xs in (test, mixed)
    )
    wrong = clean[0].argmax(1) != np.asarray(truth)
    return {
        f"ModelGiF on {_CHOSEN} chosen images": np.asarray(gradients),
        "correlation of outputs, images read wrongly": _correlations(clean[0][wrong], clean[1][:, wrong]),
        "correlation of outputs, mixed images": _correlations(*confused),
        "share of images read differently": _disagreements(*clean),
        "share of mixed images read differently": _disagreements(*confused),
    }


@partial(jax.jit, static_argnames="steps")
def _learned(params: PyTree, images: Array, answers: Float[Array, "models rows 10"], key: Key, *, steps: int) -> PyTree:
    """Train many networks at once on the same images, each on answers of its own."""

    def loss(params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
        return jnp.mean(optax.softmax_cross_entropy(logits(params, batch[0]), batch[1]))

    def one(params: PyTree, answers: Array, key: Key) -> PyTree:
        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            rows = jax.random.randint(key, (64,), 0, len(images))
            return images[rows], answers[rows]

        return trained(loss, params, optax.adam(3e-3), batches, steps, key=key)[0]

    return jax.vmap(one)(params, answers, jax.random.split(key, len(answers)))


def _fresh(key: Key, count: int) -> PyTree:
    """Weights of as many networks, drawn together."""
    keys = jax.random.split(key, len(_SIZES) - 1)
    return [
        (jax.random.normal(k, (count, fan_in, out)) / fan_in**0.5, jnp.zeros((count, out)))
        for k, fan_in, out in zip(keys, _SIZES, _SIZES[1:])
    ]


@jax.jit
def _outputs(models: PyTree, xs: Array) -> Float[Array, "models rows 10"]:
    return jax.vmap(logits, (0, None))(models, xs)


def _first(models: PyTree, place: int) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[place], models)


def _cut(params: PyTree, images: Array, share: float) -> PyTree:
    """Without the hidden units that are least active; all their weights being zero, training leaves them so."""
    (inner, shift), (outer, bias) = params
    activity = np.abs(np.tanh(np.asarray(images) @ inner + shift)).mean(0)
    kept = activity >= np.quantile(activity, share)
    return [(inner * kept, shift * kept), (outer * kept[:, None], bias)]


@jax.jit
def _mixed(key: Key, images: Float[Array, "rows 64"]) -> Float[Array, "rows 64"]:
    """Each image with a rectangle, a sixteenth of it at least, of another."""
    order, size, place = jax.random.split(key, 3)
    sizes = jax.random.randint(size, (2, len(images), 1), 2, 7)
    starts = jax.random.randint(place, sizes.shape, 0, 9 - sizes)
    inside = (jnp.arange(8)[None, None] >= starts) & (jnp.arange(8)[None, None] < starts + sizes)
    patch = (inside[0][:, :, None] & inside[1][:, None, :]).reshape(images.shape)
    return jnp.where(patch, jax.random.permutation(order, images), images)


def _correlations(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Mean difference of half the cosine between the outputs for any two images, of each model from the first."""

    def similar(outputs: np.ndarray) -> np.ndarray:
        unit = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
        return unit @ unit.T / 2

    return np.array([np.abs(similar(ours) - similar(one)).mean() for one in theirs])


def _disagreements(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.mean(theirs.argmax(2) != ours.argmax(1), axis=1)


def _one(params: PyTree, x: Array) -> Array:
    return logits(params, x[None])[0]


__all__ = ["PAPER", "checks"]
