"""There and Back Again: NormGrad keeps pointing at the pattern in early layers, where Grad-CAM loses it."""

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import Key
from ...diagnose import NormGrad, normgrad
from .._problems._planted import localisation, planted, reader
from .._records import Check, Paper

PAPER = Paper(
    slug="normgrad",
    title="There and Back Again: Revisiting Backpropagation Saliency Methods",
    year=2020,
    link="https://arxiv.org/abs/2004.02866",
    rooms=("diagnose",),
    row=49,
    read="text",
)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a small network on planted patterns, and see which maps find them at which layer.

    Args:
        key: of all randomness.
        full: more images and longer training. The paper's networks, images and pointing game are not attempted, nor
            is its meta-learning step.

    Returns:
        Two checks.
    """
    keys = jax.random.split(key)
    generator = np.random.default_rng(int(jax.random.bits(keys[0])))
    model = reader(planted(generator, 8192), keys[1], steps=2000 if full else 600)
    test = planted(generator, 2000 if full else 200)
    xs, labels = jnp.asarray(test.images), jnp.asarray(test.labels)
    right = float(np.mean(np.argmax(jax.vmap(model)(xs), axis=1) == test.labels))

    def at(layer: int) -> NormGrad:
        return normgrad(lambda x: model.features(x, layer), lambda a: model.head(a, layer), xs, labels)

    records = [at(layer) for layer in (1, 2, 3)]
    norm = [float(localisation(record.maps, test.where).mean()) for record in records]
    cam = [float(localisation(record.grad_cam, test.where).mean()) for record in records]
    # Both criteria looked at one of the two early layers only, at first: at layer 1 they hold for two keys in three.
    tried = (
        "keys 0, 1 and 2: NormGrad 0.855, 0.842, 0.859 after layer 1 and 0.912, 0.936, 0.900 after layer 2; Grad-CAM "
        "0.771, 0.719, 0.741 after layer 1, but 0.903, 0.893, 0.875 after layer 2 and 0.950, 0.942, 0.964 after the "
        "last, with 93 to 98 % of the images read rightly. In three layers Grad-CAM loses the pattern at the first, if "
        "at all; deeper networks were not tried"
    )
    return [
        Check(
            "NormGrad finds the pattern at early layers, where Grad-CAM does not.",
            "stated in words and tables, for larger networks",
            f"AUROC of the pattern's pixels after layers 1, 2: {norm[0]:.3f}, {norm[1]:.3f} "
            f"({norm[2]:.3f} after the last; network right on {right:.0%})",
            "at least 0.75 after both",
            bool(min(norm[:2]) >= 0.75 > max(cam[:2])),
            f"Grad-CAM: {cam[0]:.3f}, {cam[1]:.3f}",
            expected=False,
            tried=tried,
        ),
        Check(
            "Grad-CAM fails anywhere but the last convolutional layer.",
            "stated in words: the gradient is averaged over places, which only the last layer's gradient bears",
            f"Grad-CAM after the last layer: AUROC {cam[2]:.3f}",
            "at least 0.75",
            bool(cam[2] >= 0.75 > max(cam[:2])),
            f"Grad-CAM after layers 1, 2: {cam[0]:.3f}, {cam[1]:.3f}",
            expected=False,
            tried=tried,
        ),
    ]
