"""diffGrad against Adam and heavy ball, on the digits: the loss reached, and accuracy on images held out."""

import optax

from ..._core import Key
from ...optimize import diffgrad
from .._records import Check, Paper
from ._digits import ACCURACY, LONG_RATES, LOSS, RATES, heavy_ball, on_digits

PAPER = Paper(
    slug="diffgrad",
    title="diffGrad: An Optimization Method for Convolutional Neural Networks",
    year=2019,
    link="https://arxiv.org/abs/1909.11015",
    rooms=("optimize",),
    row=175,
    read="code",
)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train the digits by each rule at its best of thirteen rates, chosen by the loss.

    Args:
        key: of all randomness.
        full: more keys. The paper's networks are at neither scale.

    Returns:
        Two checks.
    """
    rules = {"diffGrad": diffgrad, "Adam": optax.adam, "heavy ball": heavy_ball}
    grids = {"diffGrad": RATES, "Adam": RATES, "heavy ball": LONG_RATES}
    runs = on_digits(rules, grids, key=key, keys=39 if full else 13)
    return [
        Check(
            "It reaches a lower loss than Adam and heavy ball.",
            "stated in words and figures",
            expected=False,
            tried="thirteen rates each: friction by the gradient's change is a smaller rate, and each has its best",
            contrasts=runs.contrast(LOSS, "lower", of="loss"),
        ),
        Check(
            "It is more accurate on images held out than Adam and heavy ball.",
            "tables of accuracies on CIFAR",
            expected=False,
            tried="thirteen rates each: friction by the gradient's change is a smaller rate, and each has its best",
            contrasts=runs.contrast(ACCURACY, "higher", of="accuracy"),
        ),
    ]


__all__ = ["PAPER", "checks"]
