"""AdaMomentum against Adam and heavy ball, on the digits: as fast as Adam, and better on images held out."""

import numpy as np
import optax
from jaxtyping import Array

from ..._core import Key
from ...optimize import adamomentum
from .._problems._tuning import Run, tuned
from .._records import Check, Paper
from ._digits import LONG_RATES, RATES, trained

PAPER = Paper(
    slug="adamomentum",
    title="Rethinking Adam: A Twofold Exponential Moving Average Approach",
    year=2021,
    link="https://arxiv.org/abs/2106.11514",
    rooms=("optimize",),
    row=125,
    read="code",
)


# Its first step is ten times as long as Adam's.
_SHORT = (np.asarray(RATES) / 3).tolist()


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

    rules = {"AdaMomentum": adamomentum, "Adam": optax.adam, "heavy ball": heavy}
    grids = {"AdaMomentum": _SHORT, "Adam": RATES, "heavy ball": LONG_RATES}
    runs = tuned({name: by(make) for name, make in rules.items()}, grids, "lower", key=key, keys=keys, of="loss")
    return [
        Check(
            "It trains faster: after as many steps the loss is lower than Adam's and heavy ball's.",
            "stated in words and figures",
            expected=False,
            tried="thirteen rates each, thirds of Adam's, since its first step is ten times as long",
            contrasts=runs.contrast("loss of the digits trained on, nats", "lower", of="loss"),
        ),
        Check(
            "It is more accurate on images held out than Adam and heavy ball.",
            "tables of accuracies on CIFAR and ImageNet",
            expected=False,
            tried="thirteen rates each, thirds of Adam's, since its first step is ten times as long",
            contrasts=runs.contrast("accuracy on digits held out, %", "higher", of="accuracy"),
        ),
    ]


__all__ = ["PAPER", "checks"]
