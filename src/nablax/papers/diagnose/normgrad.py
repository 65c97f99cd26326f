"""There and Back Again: NormGrad keeps pointing at the pattern in early layers, where Grad-CAM loses it."""

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import Key
from ...diagnose import NormGrad, normgrad
from .._contrast import Contrast
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

    def at(layer: int) -> NormGrad:
        return normgrad(lambda x: model.features(x, layer), lambda a: model.head(a, layer), xs, labels)

    records = {layer: at(layer) for layer in (1, 2, 3)}
    norm, cam = (
        {layer: float(localisation(getattr(record, maps), test.where).mean()) for layer, record in records.items()}
        for maps in ("maps", "grad_cam")
    )
    metric, tried = "AUROC of the pattern's pixels, mean over images", "three layers; deeper networks were not tried"
    layers = {"after the last layer": cam[3], "after layer 1": cam[1], "after layer 2": cam[2]}
    return [
        Check(
            "NormGrad finds the pattern at early layers, where Grad-CAM does not.",
            "stated in words and tables, for larger networks",
            contrasts=[
                Contrast(
                    f"after layer {layer}, {metric}",
                    {"NormGrad": norm[layer], "Grad-CAM": cam[layer]},
                    "higher",
                    threshold=0.75,
                )
                for layer in (1, 2)
            ],
            expected=False,
            tried=tried,
            moved_from="the same after one of the two early layers",
        ),
        Check(
            "Grad-CAM fails anywhere but the last convolutional layer.",
            "stated in words: the gradient is averaged over places, which only the last layer's gradient bears",
            contrasts=Contrast(f"Grad-CAM: {metric}", layers, "higher", threshold=0.75),
            expected=False,
            tried=tried,
            moved_from="the same against one of the two early layers",
        ),
    ]


__all__ = ["PAPER", "checks"]
