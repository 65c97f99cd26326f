"""Hidden units trained by boosting, on the digits: what is left when most are switched off, and the whole network.

Beside them networks of as many units trained at once: cut down to their largest units, or trained anew at each width.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import boosted_units
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, split_digits
from .._problems._descent import descended
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-boosted-units",
    title="Sequential Training of Neural Networks with Gradient Boosting",
    year=2019,
    link="https://arxiv.org/abs/1909.12098",
    rooms=("optimize",),
    row=33,
    read="code",
)

_TRAIN, _UNITS, _KEPT, _STEPS = 500, 80, 20, 400
_RATES = (2.0 ** -np.arange(3, 11)).tolist()


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train 80 units on 500 digits, one after the other and at once, and switch off three quarters of them.

    Args:
        key: of weights and images.
        full: 200 units, the authors', on 1,200 images; 50 are kept.

    Returns:
        Two checks.
    """
    train, units, kept = (1200, 200, 50) if full else (_TRAIN, _UNITS, _KEPT)
    shared = jax.random.split(key, 2)
    whole = tuned({"at once": _at_once(train, units, kept)}, _RATES, "higher", key=shared[0], keys=5, of="whole")
    fresh = jax.random.split(jax.random.split(shared[0])[1], 5)  # those that `tuned` runs the best rate at
    boosted = [_boosted(train, units, kept, one) for one in fresh]
    lost = {
        "boosted, the first quarter": [all_on - some_on for all_on, some_on in boosted],
        "at once, the largest quarter": np.asarray(whole.results["at once"]["whole"] - whole.results["at once"]["cut"]),
    }
    return [
        Check(
            f"Of {units} boosted units the last {units - kept} can be switched off for at most two points of accuracy; "
            "of units trained at once, with the smallest switched off, it takes more.",
            "without a significant reduction, in words",
            moved_from="the same of the last half, which either network can spare",
            contrasts=Contrast("accuracy that is lost", lost, "lower", threshold=0.02),
        ),
        Check(
            f"With all {units} on it is more accurate than the network trained at once by Adam at its best rate.",
            "competitive with networks by Adam, L-BFGS and SGD, in words",
            expected=False,
            tried="80 units on 500 images, shrinkage 1, half of the rows a stage, 30 steps of L-BFGS each, as the "
            "authors' code but for its 200",
            contrasts=Contrast(
                "accuracy on the other images",
                {"boosted": [one for one, _ in boosted], "at once, by Adam": whole.results["at once"]["whole"]},
                "higher",
                settings={"at once, by Adam": whole.settings["at once"]},
            ),
        ),
    ]


def _boosted(train: int, units: int, kept: int, key: Key) -> tuple[float, float]:
    """Accuracy with all units and with the first of them."""
    data_key, run_key = jax.random.split(key)
    x, labels, test, answers = split_digits(data_key, train)
    net = boosted_units(x, labels, "classes", classes=10, steps=units, fit_steps=30, key=run_key)
    whole, some = (jnp.mean(jnp.argmax(net(test, stages=on), 1) == answers) for on in (units, kept))
    return float(whole), float(some)


def _at_once(train: int, units: int, kept: int) -> Callable[[Array, Key], dict[str, Array]]:
    def run(rate: Float[Array, ""], key: Key) -> dict[str, Array]:
        data_key, run_key = jax.random.split(key)
        x, labels, test, answers = split_digits(data_key, train)
        first, second = jax.random.split(run_key)
        params = {
            "weights": jax.random.normal(first, (64, units)) / 8,
            "shifts": jnp.zeros(units),
            "outputs": jax.random.normal(second, (units, 10)) / units**0.5,
            "bias": jnp.zeros(10),
        }
        rule = optax.adam(rate)

        def scores(params: dict, x: Array) -> Array:
            return (
                jax.nn.sigmoid(x @ params["weights"] + params["shifts"][None]) @ params["outputs"]
                + params["bias"][None]
            )

        params, _ = descended(lambda params: cross_entropy(scores(params, x), labels), params, rule, _STEPS)
        # A unit that is off leaves its mean output behind, in the bias: more than switching off, which is fairer.
        size = jnp.linalg.norm(params["outputs"], axis=1)
        on = size >= jnp.sort(size)[units - kept]
        hidden = jnp.mean(jax.nn.sigmoid(x @ params["weights"] + params["shifts"][None]), 0)
        cut = params | {
            "outputs": params["outputs"] * on[:, None],
            "bias": params["bias"] + (hidden * ~on) @ params["outputs"],
        }
        whole, some = (jnp.mean(jnp.argmax(scores(p, test), 1) == answers) for p in (params, cut))
        return {"whole": whole, "cut": some}

    return run


__all__ = ["PAPER", "checks"]
