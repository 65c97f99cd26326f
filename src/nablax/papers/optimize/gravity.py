"""Gravity against Adam and RMSProp, on the digits: accuracy on images held out, and how much it varies."""

import jax
import optax

from ..._core import Key
from ...optimize import gravity
from .._records import Check, Paper
from ._digits import ACCURACY, LONG_RATES, LOSS, RATES, on_digits

PAPER = Paper(
    slug="gravity",
    title="Gravity Optimizer: a Kinematic Approach on Optimization in Deep Learning",
    year=2021,
    link="https://arxiv.org/abs/2101.09192",
    rooms=("optimize",),
    row=112,
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
    # The velocity at first is shared by all runs, which differ in data, weights and batches.
    start_key, run_key = jax.random.split(key)
    rules = {"Gravity": lambda rate: gravity(rate, key=start_key), "Adam": optax.adam, "RMSProp": optax.rmsprop}
    grids = {"Gravity": LONG_RATES, "Adam": RATES, "RMSProp": RATES}
    runs = on_digits(rules, grids, key=run_key, keys=39 if full else 13)
    return [
        Check(
            "It is more accurate on images held out than Adam and RMSProp.",
            "stated in words and tables, for sets of many classes",
            expected=False,
            tried="thirteen rates each; the authors' rate of 0.1 is far below the best here",
            contrasts=runs.contrast(ACCURACY, "higher", of="accuracy"),
        ),
        Check(
            "It reaches a lower loss than Adam and RMSProp.",
            "stated in figures",
            expected=False,
            tried="thirteen rates each; the authors' rate of 0.1 is far below the best here",
            contrasts=runs.contrast(LOSS, "lower", of="loss"),
        ),
    ]


__all__ = ["PAPER", "checks"]
