"""SmoothGrad: adding noise takes noise out of a saliency map. Planted patterns say where a map should point."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._core import Key
from ...diagnose import smoothgrad
from .._contrast import Contrast
from .._problems._planted import Reader, localisation, planted, reader
from .._records import Check, Paper

PAPER = Paper(
    slug="smoothgrad",
    title="SmoothGrad: removing noise by adding noise",
    year=2017,
    link="https://arxiv.org/abs/1706.03825",
    rooms=("diagnose",),
    row=190,
    read="code",
)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a small network on planted patterns, and ask where its maps point and how they hold still.

    Args:
        key: of all randomness.
        full: more images and longer training. The paper's judgement of pictures by eye has no counterpart here.

    Returns:
        Three checks.
    """
    keys = jax.random.split(key, 6)
    generator = np.random.default_rng(int(jax.random.bits(keys[0])))
    model = reader(planted(generator, 8192), keys[1], steps=2000 if full else 600)
    test = planted(generator, 1000 if full else 60)
    xs, labels = jnp.asarray(test.images), jnp.asarray(test.labels)

    def located(gradient: Array) -> float:
        return float(np.mean(localisation(jnp.abs(gradient), test.where)))

    record = smoothgrad(model, xs, labels, key=keys[2])
    strong = smoothgrad(model, xs, labels, key=keys[3], noise=1.0)
    again = smoothgrad(model, xs, labels, key=keys[4])
    few = [smoothgrad(model, xs, labels, key=k, draws=5).gradient.value for k in keys[3:5]]
    nearby = xs + 0.03 * (jnp.max(xs) - jnp.min(xs)) * jax.random.normal(keys[5], xs.shape)
    moved = smoothgrad(model, nearby, labels, key=keys[3])
    path = jax.jit(jax.vmap(partial(_along_path, model)))(xs, labels)
    found = {
        "SmoothGrad": located(record.gradient.value),
        "plain gradient": located(record.plain),
        "noise of the whole range": located(strong.gradient.value),
        "integrated gradients, not times the image": located(path),
    }
    turned = {
        "SmoothGrad": _turn(record.gradient.value, moved.gradient.value),
        "plain gradient": _turn(record.plain, moved.plain),
    }
    repeated = {"50 draws": _turn(record.gradient.value, again.gradient.value), "5 draws": _turn(*few)}
    return [
        Check(
            "Averaged over noise of 15% of the range, the gradient points at the pattern more than the gradient does.",
            "stated in words; 10% to 20% recommended",
            contrasts=Contrast("AUROC of the pattern's pixels, mean over images", found, "higher", margin=0.02),
            moved_from="the gain besides at four standard errors over the images of one network; without integrated "
            "gradients beside it",
            tried="maps times the image, three keys: 0.885 ± 0.007, and of integrated gradients 0.869 ± 0.010: better "
            "by 0.016 ± 0.005, which is less than asked and not resolved",
        ),
        Check(
            "The smoothed map holds still where the gradient fluctuates.",
            "stated in words: the gradient fluctuates sharply at small scales",
            contrasts=Contrast("1 − cosine between maps of images 3% of the range apart", turned, "lower", ratio=0.5),
        ),
        Check(
            "The noise that is added averages out: 50 draws are enough.",
            "stated in words: smoother as the sample grows, little gain beyond 50",
            contrasts=Contrast("1 − cosine between two independent maps", repeated, "lower", threshold=0.05),
            moved_from="the same against one draw, which anything passes",
        ),
    ]


def _along_path(model: Reader, x: Array, label: Array) -> Array:
    """Mean gradient on the way from a grey image, in as many passes: integrated gradients but for the factor x."""
    shares = (jnp.arange(50) + 0.5) / 50
    return jnp.mean(jax.vmap(lambda share: jax.grad(lambda y: model(y)[label])(share * x))(shares), axis=0)


def _turn(first: Array, second: Array) -> float:
    a, b = (np.asarray(maps).reshape(len(maps), -1) for maps in (first, second))
    cosines = np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.mean(1 - cosines))
