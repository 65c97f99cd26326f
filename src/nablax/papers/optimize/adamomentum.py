"""AdaMomentum against Adam and heavy ball, on the digits: as fast as Adam, and better on images held out."""

import numpy as np
import optax

from ..._core import Key
from ...optimize import adamomentum
from .._records import Check, Paper
from ._digits import ACCURACY, LONG_RATES, LOSS, RATES, heavy_ball, on_digits

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
    rules = {"AdaMomentum": adamomentum, "Adam": optax.adam, "heavy ball": heavy_ball}
    grids = {"AdaMomentum": _SHORT, "Adam": RATES, "heavy ball": LONG_RATES}
    runs = on_digits(rules, grids, key=key, keys=39 if full else 13)
    return [
        Check(
            "It trains faster: after as many steps the loss is lower than Adam's and heavy ball's.",
            "stated in words and figures",
            expected=False,
            tried="thirteen rates each, thirds of Adam's, since its first step is ten times as long",
            contrasts=runs.contrast(LOSS, "lower", of="loss"),
        ),
        Check(
            "It is more accurate on images held out than Adam and heavy ball.",
            "tables of accuracies on CIFAR and ImageNet",
            expected=False,
            tried="thirteen rates each, thirds of Adam's, since its first step is ten times as long",
            contrasts=runs.contrast(ACCURACY, "higher", of="accuracy"),
        ),
    ]


__all__ = ["PAPER", "checks"]
