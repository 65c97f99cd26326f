"""The Implicit Regularization of Dynamical Stability in SGD: the trace bounds SGD, the top eigenvalue gradient descent.

Small networks that fit a few rows exactly, so that a minimum of the mean is one of every row.

Others who repeat the paper's, https://github.com/da-kozlov/ml-portfolio, train diagonal networks of 1,000 inputs and
ReLU networks on 300 rows, by one row a step with clipped gradients, at six rates for each rule.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="dynamical-stability",
    title="The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent",
    year=2023,
    link="https://arxiv.org/abs/2305.17490",
    rooms=("diagnose",),
    row=65,
    read="code",
)

_ROWS, _INPUTS, _WIDTH, _SEEDS = 16, 8, 24, 8


class _Curvature(NamedTuple):
    top: Float[Array, " seeds"]
    trace: Float[Array, " seeds"]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Disturb minima under both rules, and look at the minima to which each of them leads.

    Args:
        key: of all randomness.
        full: four times the seeds. The paper's theorems on generalisation are not attempted.

    Returns:
        Two checks.
    """
    with jax.enable_x64(True):
        return _checks(key, 4 * _SEEDS if full else _SEEDS)


def _checks(key: Key, seeds: int) -> list[Check]:
    # Drawn in single precision, so that the precision of the key's caller does not matter.
    draws = [jax.random.normal(k, (seeds, n), jnp.float32) for k, n in zip(jax.random.split(key, 4), _shapes())]
    inputs, targets, first, second = (d.astype(jnp.float64) for d in draws)
    data = (inputs.reshape(seeds, _ROWS, _INPUTS), jnp.sign(targets))
    start = jnp.concatenate([first / jnp.sqrt(_INPUTS), second / jnp.sqrt(_WIDTH)], axis=1)
    noise = jax.random.split(jax.random.fold_in(key, 1), seeds)

    # Both checks at rates that the trace forbids and the top eigenvalue allows.
    minima = _descend(start, data, jnp.full(seeds, 0.05), noise, 20_000, stochastic=False)
    rates = 1.5 * 2 / _curvature(minima, data).trace
    near = minima + 1e-7 * start

    def growth(rates: Array, stochastic: bool) -> Array:
        moved = jnp.linalg.norm(_descend(near, data, rates, noise, 400, stochastic=stochastic) - minima, axis=1)
        growth = jnp.log10(moved / jnp.linalg.norm(near - minima, axis=1))
        return jnp.minimum(jnp.nan_to_num(growth, nan=9.0, posinf=9.0), 9.0)

    growths = {
        "stochastic steps": growth(rates, True),
        "gradient descent": growth(rates, False),
        "stochastic steps at a fifth of the rate": growth(0.2 * rates, True),
    }
    led = {
        name: _descend(start, data, rates, noise, 20_000, stochastic=name == "stochastic steps")
        for name in ("stochastic steps", "gradient descent")
    }
    # A run that diverges ends at no minimum.
    ended = np.isfinite(jax.vmap(_loss)(led["stochastic steps"], *data))
    curvatures = {name: _curvature(params, data) for name, params in led.items()}
    traces = {name: np.asarray(found.trace * rates / 2)[ended] for name, found in curvatures.items()}
    top = np.asarray(curvatures["gradient descent"].top * rates / 2)[ended]
    return [
        Check(
            "Stochastic steps leave a minimum whose trace is above 2/rate (1.5 times); gradient descent rests there.",
            "theorem for linear stability: trace of the Hessian at most 2/rate for batches of one row",
            contrasts=Contrast(
                "growth of the distance in 400 steps, log10, at most 9", growths, "higher", threshold=1.0
            ),
        ),
        Check(
            "Stochastic steps end where the trace is below 2/rate; gradient descent also where it is above, bounded by "
            "the top eigenvalue.",
            "theorem and figures",
            contrasts=[
                Contrast("trace × rate / 2 at the end, where both end", traces, "lower", threshold=1.0),
                Contrast(
                    "of gradient descent, × rate / 2 at the end",
                    {"top eigenvalue": top, "trace": traces["gradient descent"]},
                    "lower",
                    threshold=1.0,
                ),
            ],
        ),
    ]


def _shapes() -> tuple[int, int, int, int]:
    return _ROWS * _INPUTS, _ROWS, _INPUTS * _WIDTH, _WIDTH


def _outputs(params: Float[Array, " dim"], inputs: Float[Array, "rows inputs"]) -> Float[Array, " rows"]:
    weights = params[: _INPUTS * _WIDTH].reshape(_INPUTS, _WIDTH)
    return jnp.tanh(inputs @ weights) @ params[_INPUTS * _WIDTH :]


def _loss(params: Float[Array, " dim"], inputs: Array, targets: Float[Array, " rows"]) -> Float[Array, ""]:
    return jnp.mean((_outputs(params, inputs) - targets) ** 2) / 2


@jax.jit
def _curvature(params: Float[Array, "seeds dim"], data: tuple[Array, Array]) -> _Curvature:
    """Of the Hessian at a minimum of every row, where it is the Gauss–Newton matrix."""

    def one(params: Array, inputs: Array) -> tuple[Array, Array]:
        rows = jax.jacrev(_outputs)(params, inputs)
        gram = rows @ rows.T / _ROWS
        return jnp.linalg.eigvalsh(gram)[-1], jnp.trace(gram)

    return _Curvature(*jax.vmap(one)(params, data[0]))


@partial(jax.jit, static_argnames=("steps", "stochastic"))
def _descend(
    params: Float[Array, "seeds dim"],
    data: tuple[Array, Array],
    rates: Float[Array, " seeds"],
    keys: Key,
    steps: int,
    *,
    stochastic: bool,
) -> Float[Array, "seeds dim"]:
    """Plain steps on the mean of all rows, or on one row at a time."""

    def one(params: Array, inputs: Array, targets: Array, rate: Array, key: Key) -> Array:
        rows = jax.random.randint(key, (steps,), 0, _ROWS)

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            return (inputs[rows[step]][None], targets[rows[step]][None]) if stochastic else (inputs, targets)

        return trained(lambda params, batch: _loss(params, *batch), params, optax.sgd(rate), batches, steps, key=key)[0]

    return jax.vmap(one)(params, *data, rates, keys)


__all__ = ["PAPER", "checks"]
