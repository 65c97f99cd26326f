"""XGrad round heavy ball and Adam, on the digits; beside Nesterov's momentum, which is XGrad by 0.9 of a step."""

import jax
import optax

from ..._core import Key
from ...optimize import xgrad
from .._records import Check, Paper
from ._digits import LONG_RATES, LOSS, RATES, heavy_ball, on_digits

PAPER = Paper(
    slug="xgrad",
    title="XGrad: Boosting Gradient-Based Optimizers With Weight Prediction",
    year=2023,
    link="https://arxiv.org/abs/2305.18240",
    rooms=("optimize",),
    row=105,
    read="code",
)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train the digits with and without prediction, each at its best of thirteen rates.

    Args:
        key: of all randomness.
        full: more keys. The paper's image and text networks are at neither scale.

    Returns:
        Three checks.
    """
    # Of 13 trainings a key, as it stood first, the gains were not resolved.
    keys = 78 if full else 26
    momentum_key, adam_key = jax.random.split(key)
    balls = {
        "prediction round heavy ball": lambda rate: xgrad(heavy_ball(rate)),
        "heavy ball": heavy_ball,
        "Nesterov's momentum": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    }
    adams = {"prediction round Adam": lambda rate: xgrad(optax.adam(rate)), "Adam": optax.adam}
    momenta = on_digits(balls, dict.fromkeys(balls, LONG_RATES), key=momentum_key, keys=keys)
    adapted = on_digits(adams, dict.fromkeys(adams, RATES), key=adam_key, keys=keys)
    return [
        Check(
            "Prediction by one step lowers the loss that heavy ball reaches.",
            "stated in words and tables of accuracies",
            contrasts=momenta.contrast(LOSS, "lower", of="loss", against=("heavy ball",)),
        ),
        Check(
            "So it does beside Nesterov's momentum, which predicts by nine tenths of a step.",
            "stated in words; the paper's tables leave it out",
            contrasts=momenta.contrast(LOSS, "lower", of="loss", against=("Nesterov's momentum",)),
        ),
        Check(
            "Prediction lowers the loss that Adam reaches.",
            "stated in words and tables of accuracies",
            contrasts=adapted.contrast(LOSS, "lower", of="loss"),
        ),
    ]


__all__ = ["PAPER", "checks"]
