"""The Implicit Regularization of Dynamical Stability in SGD: the trace bounds SGD, the top eigenvalue gradient descent.

Small networks that fit a few rows exactly, so that a minimum of the mean is one of every row.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Key
from .._records import Check, Paper

PAPER = Paper(
    slug="dynamical-stability",
    title="The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent",
    year=2023,
    link="https://arxiv.org/abs/2305.17490",
    rooms=("diagnose",),
    row=65,
    read="abstract",
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
    at = _curvature(minima, data)
    rates = 1.5 * 2 / at.trace
    steps = 400
    near = minima + 1e-7 * start
    distances = {
        stochastic: jnp.linalg.norm(_descend(near, data, rates, noise, steps, stochastic=stochastic) - minima, axis=1)
        / jnp.linalg.norm(near - minima, axis=1)
        for stochastic in (True, False)
    }
    gone, stayed = np.asarray(distances[True]), np.asarray(distances[False])
    lower = _descend(near, data, 0.2 * rates, noise, steps, stochastic=True)
    calm = np.asarray(jnp.linalg.norm(lower - minima, axis=1) / jnp.linalg.norm(near - minima, axis=1))

    led = {
        stochastic: _descend(start, data, rates, noise, 20_000, stochastic=stochastic) for stochastic in (True, False)
    }
    losses = {s: np.asarray(jax.vmap(_loss)(p, *data)) for s, p in led.items()}
    curvatures = {s: _curvature(p, data) for s, p in led.items()}
    shares = {s: np.asarray(c.trace * rates / 2) for s, c in curvatures.items()}
    tops = {s: np.asarray(c.top * rates / 2) for s, c in curvatures.items()}
    # A run that diverges ends at no minimum.
    ended = np.isfinite(losses[True])
    share, loss = shares[True][ended], losses[True][ended]
    return [
        Check(
            "Stochastic steps leave a minimum whose trace is above 2/rate; gradient descent rests there.",
            "theorem for linear stability: trace of the Hessian at most 2/rate for batches of one row",
            f"trace × rate / 2 = 1.5: distance grows {np.min(gone):.2g} times or more in {steps} steps",
            "at least tenfold for every seed; gradient descent not at all",
            bool(np.min(gone) >= 10 and np.max(stayed) <= 1 and np.max(calm) <= 1),
            f"gradient descent, top × rate / 2 ≤ {float(jnp.max(at.top * rates / 2)):.2f}: {np.max(stayed):.2f} "
            f"times at most; stochastic at a fifth of the rate: {np.max(calm):.2f}",
        ),
        Check(
            "Stochastic steps end where the trace is below 2/rate, gradient descent also where it is above.",
            "theorem and figures",
            f"trace × rate / 2 at the end, mean over seeds: {np.mean(share):.3f}, at most {np.max(share):.3f} (worst "
            f"loss {np.max(loss):.1g}; {np.sum(~ended)} of {seeds} diverged)",
            "at most 1 wherever it ends, which most runs do; gradient descent above 1 for every seed, with its top "
            "eigenvalue below",
            bool(np.max(share) <= 1 < np.min(shares[False]) and np.max(tops[False]) <= 1 and np.mean(ended) > 0.5),
            f"gradient descent: at least {np.min(shares[False]):.3f}, top × rate / 2 at most {np.max(tops[False]):.3f} "
            f"(worst loss {np.max(losses[False]):.1g})",
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
        def step(params: Array, row: Array) -> tuple[Array, None]:
            x, y = (inputs[row][None], targets[row][None]) if stochastic else (inputs, targets)
            return params - rate * jax.grad(_loss)(params, x, y), None

        return jax.lax.scan(step, params, jax.random.randint(key, (steps,), 0, _ROWS))[0]

    return jax.vmap(one)(params, *data, rates, keys)
