"""XGrad round heavy ball and Adam, on the digits.

Nesterov's momentum, which is XGrad round heavy ball by nine tenths of a step, is no baseline of the paper's: one step
is better than that by 0.0027 ± 0.0016 nats in 26 runs, which resolves nothing.
"""

import jax
import optax
from jaxtyping import Array

from ..._core import Key
from ...optimize import xgrad
from .._problems._tuning import Run, tuned
from .._records import Check, Paper
from ._digits import LONG_RATES, RATES, trained

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
        Two checks.
    """
    keys = 78 if full else 26
    momentum_key, adam_key = jax.random.split(key)
    metric = "loss of the digits trained on, nats"

    def by(make: object) -> Run:
        return lambda rate, key: trained(make(rate), key)["loss"]  # type: ignore[operator]

    def heavy(rate: Array) -> optax.GradientTransformation:
        return optax.sgd(rate, momentum=0.9)

    balls = tuned(
        {
            "prediction round heavy ball": by(lambda rate: xgrad(heavy(rate))),
            "heavy ball": by(heavy),
        },
        LONG_RATES,
        "lower",
        key=momentum_key,
        keys=keys,
    )
    adams = tuned(
        {"prediction round Adam": by(lambda rate: xgrad(optax.adam(rate))), "Adam": by(optax.adam)},
        RATES,
        "lower",
        key=adam_key,
        keys=keys,
    )
    return [
        Check(
            "Prediction by one step lowers the loss that heavy ball reaches.",
            "stated in words and tables of accuracies",
            contrasts=balls.contrast(metric, "lower"),
        ),
        Check(
            "Prediction lowers the loss that Adam reaches.",
            "stated in words and tables of accuracies",
            contrasts=adams.contrast(metric, "lower"),
        ),
    ]


__all__ = ["PAPER", "checks"]
