"""diffGrad against Adam and heavy ball, on the digits: the loss reached, and accuracy on images held out."""

import optax
from jaxtyping import Array

from ..._core import Key
from ...optimize import diffgrad
from .._problems._tuning import Run, tuned
from .._records import Check, Paper
from ._digits import LONG_RATES, RATES, trained

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
    keys = 39 if full else 13

    def by(make: object) -> Run:
        return lambda rate, key: trained(make(rate), key)  # type: ignore[operator]

    def heavy(rate: Array) -> optax.GradientTransformation:
        return optax.sgd(rate, momentum=0.9)

    rules = {"diffGrad": diffgrad, "Adam": optax.adam, "heavy ball": heavy}
    grids = {"diffGrad": RATES, "Adam": RATES, "heavy ball": LONG_RATES}
    runs = tuned({name: by(make) for name, make in rules.items()}, grids, "lower", key=key, keys=keys, of="loss")
    return [
        Check(
            "It reaches a lower loss than Adam and heavy ball.",
            "stated in words and figures",
            expected=False,
            tried="thirteen rates each: friction by the gradient's change is a smaller rate, and each has its best",
            contrasts=runs.contrast("loss of the digits trained on, nats", "lower", of="loss"),
        ),
        Check(
            "It is more accurate on images held out than Adam and heavy ball.",
            "tables of accuracies on CIFAR",
            expected=False,
            tried="thirteen rates each: friction by the gradient's change is a smaller rate, and each has its best",
            contrasts=runs.contrast("accuracy on digits held out, %", "higher", of="accuracy"),
        ),
    ]


__all__ = ["PAPER", "checks"]
