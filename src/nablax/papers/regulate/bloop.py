"""Bloop: an auxiliary loss is lowered among the minimisers of the main one, mini-batches notwithstanding."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import bloop, multi_value_and_grad
from ...regulate import sum as add
from .._problems._quadratics import bilevel
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="bloop",
    title="Careful with that Scalpel: Improving Gradient Surgery with an EMA",
    year=2024,
    link="https://arxiv.org/abs/2402.02998",
    rooms=("regulate",),
    row=186,
    read="code",
)

# Of the auxiliary loss, for every method.
_STRENGTHS = (0.0, 0.01, 0.015, 0.02, 0.03, 0.1, 0.3)
# Tolerances: of the main loss above its minimum, and of the auxiliary one relative to the bilevel optimum's.
_MAIN, _AUXILIARY = 0.005, 0.02


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Fit underdetermined least squares by batches of 16, with the solution's distance from a point as auxiliary loss.

    Args:
        key: of all randomness.
        full: ten times the steps and four times the keys. The paper's networks are not attempted.

    Returns:
        Two checks.
    """
    steps = 100_000 if full else 10_000
    # Both combinations are linear in the auxiliary gradient, so that its weight serves as the strength.
    methods = {
        "Bloop": _training(bloop(1.0, decay=0.99), steps),
        "Bloop with the code's default decay of 0.9": _training(bloop(1.0), steps),
        "sum of the gradients": _training(add(), steps),
        "projection against each batch's own gradient": _training(bloop(1.0, decay=0.0), steps),
    }
    ends = {0.0: "the main loss alone"}
    runs = tuned(methods, _STRENGTHS, "lower", key=key, keys=32 if full else 8, ends=ends)
    words = "the main loss to 0.005 above its minimum, the auxiliary one to 2 % of the bilevel optimum's"
    claims = {
        "sum of the gradients": f"It solves the bilevel problem ({words}), where a sum finds a compromise.",
        "projection against each batch's own gradient": "The moving average keeps the projection right for batches.",
    }
    return [
        Check(
            statement,
            "stated in words, with figures",
            contrasts=runs.contrast("largest miss of both losses, tolerances", "lower", against=[name], threshold=1.0),
            moved_from="0.05 and 5 %, at one strength of 0.3 for all; at strengths of their own the baselines meet it",
        )
        for name, statement in claims.items()
    ]


def _training(aggregator: optax.GradientTransformationExtraArgs, steps: int) -> Run:
    def run(strength: Float[Array, ""], key: Key) -> Float[Array, ""]:
        data_key, run_key = jax.random.split(key)
        problem = bilevel(data_key)
        x, _ = trained(
            lambda x, rows: jnp.stack([problem.main(x, rows), strength * problem.auxiliary(x)]),
            jnp.zeros_like(problem.point),
            optax.chain(aggregator, optax.sgd(optax.cosine_decay_schedule(0.02, steps))),
            lambda step, key: jax.random.randint(key, (16,), 0, len(problem.inputs)),
            steps,
            key=run_key,
            value_and_grad=multi_value_and_grad,
        )
        best = problem.solution()
        above = problem.main(x) - problem.main(best)
        off = jnp.abs(problem.auxiliary(x) / problem.auxiliary(best) - 1)
        return jnp.maximum(above / _MAIN, off / _AUXILIARY)

    return run


__all__ = ["PAPER", "checks"]
