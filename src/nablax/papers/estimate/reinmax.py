"""ReinMax: derivatives through categorical draws that are right to second order, by polynomial programming.

128 binary choices, each to lie as near to 0.45 as 0 and 1 can; what is minimised is the expected distance to the power
p. The best choice is 0 everywhere, by a small margin, so that a bias of the estimate shows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...estimate import categorical_straight_through, gumbel, reinmax
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="reinmax",
    title="Bridging Discrete and Backpropagation: Straight-Through and Beyond",
    year=2023,
    link="https://arxiv.org/abs/2304.08612",
    rooms=("estimate",),
    row=237,
    read="code",
)

_CHOICES, _TARGET = 128, 0.45
_RATES = [1e-2, 3e-2, 1e-1, 3e-1, 1.0]
_METHODS = {"ReinMax": reinmax, "straight-through": categorical_straight_through, "Gumbel softmax": gumbel}
# Below 1 ReinMax is not defined.
_TEMPERATURES = {
    "ReinMax": [1.0, 1.2, 1.5, 2.0],
    "straight-through": [0.1, 0.3, 1.0, 3.0],
    "Gumbel softmax": [0.01, 0.03, 0.1, 0.3],
}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Minimise expected distances to 0.45 over binary choices, by three estimators, tuned alike.

    Args:
        key: of all randomness.
        full: the authors' 8,000 steps of 256 draws, in place of 1,000 of 16.

    Returns:
        Two checks.
    """
    steps, draws = (8000, 256) if full else (1000, 16)
    checks = []
    for power, stated in ((2.0, "quadratic"), (1.5, "p = 1.5")):
        runs = tuned(
            {name: _run(name, power, steps, draws) for name in _METHODS},
            {name: (_RATES, _TEMPERATURES[name]) for name in _METHODS},
            "lower",
            key=jax.random.fold_in(key, int(2 * power)),
            keys=4,
            ends={1.0: "ReinMax's temperature is 1 or more"},
        )
        checks.append(
            Check(
                f"It minimises a {stated} objective over binary choices further than the estimators in use.",
                "curves of the training loss: ReinMax lowest for p = 1.5, 2 and 3",
                contrasts=runs.contrast("expected loss at the end, above the best choice's", "lower"),
            )
        )
    return checks


def _run(name: str, power: float, steps: int, draws: int) -> Callable[[Array, Key], Array]:
    method = _METHODS[name]

    def run(setting: Float[Array, " 2"], key: Key) -> Float[Array, ""]:
        rate, temperature = setting

        def loss(logits: Array, draw: Key) -> Array:
            drawn = method(jnp.broadcast_to(logits, (draws, *logits.shape)), key=draw, temperature=temperature)
            return jnp.mean(jnp.abs(drawn[..., 1] - _TARGET) ** power)

        start_key, run_key = jax.random.split(key)
        start = 0.01 * jax.random.normal(start_key, (_CHOICES, 2))
        logits, _ = trained(loss, start, optax.adam(rate), lambda step, key: key, steps, key=run_key)
        share = jax.nn.softmax(logits)[:, 1]
        expected = share * (1 - _TARGET) ** power + (1 - share) * _TARGET**power
        return jnp.mean(expected) - _TARGET**power

    return run


__all__ = ["PAPER", "checks"]
