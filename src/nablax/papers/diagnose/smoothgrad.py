"""SmoothGrad: adding noise takes noise out of a saliency map. Planted patterns say where a map should point."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._core import Key
from ...diagnose import smoothgrad
from .._problems._planted import localisation, planted, reader
from .._records import Check, Paper

PAPER = Paper(
    slug="smoothgrad",
    title="SmoothGrad: removing noise by adding noise",
    year=2017,
    link="https://arxiv.org/abs/1706.03825",
    rooms=("diagnose",),
    row=190,
    read="text",
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
    right = float(np.mean(np.argmax(jax.vmap(model)(xs), axis=1) == test.labels))

    def located(gradient: Array) -> np.ndarray:
        return localisation(jnp.abs(gradient), test.where)

    record = smoothgrad(model, xs, labels, key=keys[2])
    strong = smoothgrad(model, xs, labels, key=keys[3], noise=1.0)
    plain, smooth, blurred = map(located, (record.plain, record.gradient.value, strong.gradient.value))
    gain, error = _paired(smooth - plain)
    lost, lost_error = _paired(blurred - plain)
    again = smoothgrad(model, xs, labels, key=keys[4])
    lone = [smoothgrad(model, xs, labels, key=k, draws=1).gradient.value for k in keys[3:5]]
    settled, loose = _turn(record.gradient.value, again.gradient.value), _turn(*lone)

    nearby = xs + 0.03 * (jnp.max(xs) - jnp.min(xs)) * jax.random.normal(keys[5], xs.shape)
    moved = smoothgrad(model, nearby, labels, key=keys[3])
    still, shaky = _turn(record.gradient.value, moved.gradient.value), _turn(record.plain, moved.plain)
    return [
        Check(
            "Averaged over noise of 15% of the range, the gradient points at the pattern more than the gradient does.",
            "stated in words; 10% to 20% recommended",
            f"AUROC of the pattern's pixels {smooth.mean():.3f} against {plain.mean():.3f}, "
            f"gain {gain:.3f} ± {error:.3f} (network right on {right:.0%})",
            "gain over the plain gradient at least 0.02, and four standard errors",
            bool(gain >= max(0.02, 4 * error) and lost < max(0.02, 4 * lost_error)),
            f"noise of the whole range: {blurred.mean():.3f}, gain {lost:.3f} ± {lost_error:.3f}",
        ),
        Check(
            "The smoothed map holds still where the gradient fluctuates.",
            "stated in words: the gradient fluctuates sharply at small scales",
            f"1 − cosine between maps of two images 3% of the range apart: {still:.3f}",
            "at most half of the plain gradient's",
            bool(still <= 0.5 * shaky),
            f"plain gradient: {shaky:.3f}",
        ),
        Check(
            "The noise that is added averages out: 50 draws are enough.",
            "stated in words: smoother as the sample grows, little gain beyond 50",
            f"1 − cosine between two independent maps of 50 draws: {settled:.3f}",
            "at most 0.05",
            bool(settled <= 0.05 < loose),
            f"of 1 draw: {loose:.3f}",
        ),
    ]


def _paired(gains: np.ndarray) -> tuple[float, float]:
    return float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))


def _turn(first: Array, second: Array) -> float:
    a, b = (np.asarray(maps).reshape(len(maps), -1) for maps in (first, second))
    cosines = np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.mean(1 - cosines))
