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

_LAYERS = (1, 2, 3)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a small network on planted patterns, and see which maps find them at which layer.

    Args:
        key: of all randomness.
        full: ten networks in place of five, more images and longer training. The paper's networks, images and
            pointing game are not attempted, nor is its meta-learning step.

    Returns:
        Two checks.
    """
    found = [_maps(one, full) for one in jax.random.split(key, 10 if full else 5)]
    norm, cam = ({layer: np.array([row[i][layer] for row in found]) for layer in _LAYERS} for i in (0, 1))
    metric = "AUROC of the pattern's pixels, mean over images"
    layers = {"after the last layer": cam[3], "after layer 1": cam[1], "after layer 2": cam[2]}
    return [
        Check(
            "NormGrad finds the pattern at early layers better than Grad-CAM.",
            "stated in words and tables, for larger networks",
            contrasts=[
                Contrast(
                    f"after layer {layer}, {metric}",
                    {"NormGrad": norm[layer], "Grad-CAM": cam[layer]},
                    "higher",
                )
                for layer in (1, 2)
            ],
            moved_from="an area above 0.75, of our making, which Grad-CAM may miss",
        ),
        Check(
            "Grad-CAM finds it less well anywhere but after the last convolutional layer.",
            "stated in words, as a failure: the gradient is averaged over places, which only the last layer's bears",
            contrasts=Contrast(f"Grad-CAM: {metric}", layers, "higher"),
            moved_from="an area above 0.75 after the last layer, and below before",
        ),
    ]


def _maps(key: Key, full: bool) -> tuple[dict[int, float], dict[int, float]]:
    """How well NormGrad's and Grad-CAM's maps find the pattern, by layer, in one network."""
    data_key, net_key = jax.random.split(key)
    generator = np.random.default_rng(int(jax.random.bits(data_key)))
    model = reader(planted(generator, 8192), net_key, steps=2000 if full else 600)
    test = planted(generator, 2000 if full else 200)
    xs, labels = jnp.asarray(test.images), jnp.asarray(test.labels)

    def at(layer: int) -> NormGrad:
        return normgrad(lambda x: model.features(x, layer), lambda a: model.head(a, layer), xs, labels)

    records = {layer: at(layer) for layer in _LAYERS}

    def found(maps: str) -> dict[int, float]:
        return {
            layer: float(localisation(getattr(record, maps), test.where).mean()) for layer, record in records.items()
        }

    return found("maps"), found("grad_cam")


__all__ = ["PAPER", "checks"]
