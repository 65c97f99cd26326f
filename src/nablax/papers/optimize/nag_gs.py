r"""NAG-GS on quadratics, by the eigenvalues of its iteration: how fast at best, and up to which rate it is stable.

With γ at its limit μ one step is a linear map of (x, v); on a quadratic each curvature has a 2 × 2 matrix of its own,
and the largest spectral radius over the spectrum is the rate. It is read off the rule itself, by what it does to unit
vectors.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import nag_gs
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="nag-gs",
    title="NAG-GS: Semi-Implicit, Accelerated and Robust Stochastic Optimizer",
    year=2022,
    link="https://arxiv.org/abs/2209.14937",
    rooms=("optimize",),
    row=210,
    read="code",
)

_CONDITION = 1e3
_SPECTRUM = np.geomspace(1 / _CONDITION, 1, 200)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Compare rates of convergence, and ranges of stable rates, by spectral radii.

    Args:
        key: not used: nothing here is random.
        full: finer grids. The paper's networks are at neither scale.

    Returns:
        Two checks.
    """
    fine = 120 if full else 60
    with jax.enable_x64(True):
        radii = {
            "NAG-GS": _radii(_semi_implicit, np.geomspace(1e-3, 2, 2 * fine), np.geomspace(2e-4, 4e-3, fine)),
            "Nesterov's momentum": _radii(_nesterov, np.geomspace(0.05, 3, fine), 1 - np.geomspace(1e-3, 1, fine)),
            "gradient descent": _radii(_plain, np.geomspace(0.05, 3, fine), np.zeros(1)),
        }
        textbook = {"heavy ball": _radii(_heavy, np.geomspace(0.05, 6, fine), 1 - np.geomspace(1e-3, 1, fine))}
        # At the default μ over curvatures up to 1, and for the others their usual momentum.
        alphas = np.geomspace(1e-3, 1e3, 10 * fine)
        reach = {
            "NAG-GS, μ = 1": _largest(_semi_implicit, alphas, 1.0),
            "Nesterov's momentum, 0.9": _largest(_nesterov, alphas, 0.9),
            "heavy ball, 0.9": _largest(_heavy, alphas, 0.9),
            "gradient descent": _largest(_plain, alphas, 0.0),
        }
    best = {name: float(np.min(grid)) for name, grid in radii.items()}
    return [
        Check(
            "At its best rate and μ a quadratic of condition 1e3 converges faster than by Nesterov's momentum at its "
            "best: the error's logarithm falls by at least 1.2 times as much a step.",
            "optimal rates derived, stated as accelerated",
            contrasts=Contrast(
                "fall of the error a step, nats",
                {name: -np.log(value) for name, value in best.items()},
                "higher",
                ratio=1.2,
            ),
        ),
        Check(
            "And than by heavy ball at its best, by 0.001 nats or more.",
            "competitive with momentum, in words",
            expected=False,
            tried="grids twice as fine: heavy ball at its own optimum is the faster on quadratics",
            contrasts=Contrast(
                "fall of the error a step, nats",
                {"NAG-GS": -np.log(best["NAG-GS"]), "heavy ball": -np.log(float(np.min(textbook["heavy ball"])))},
                "higher",
                margin=1e-3,
            ),
        ),
        Check(
            "At its default μ of 1 it bears rates over a hundred times larger than the others do.",
            "robust to the choice of the rate, in words",
            contrasts=Contrast("largest stable rate", reach, "higher", ratio=100.0),
        ),
    ]


def _semi_implicit(rate: Any, mu: Any) -> optax.GradientTransformation:
    return nag_gs(rate, mu=mu, gamma=mu)


def _nesterov(rate: Array, momentum: Array) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum, nesterov=True)


def _heavy(rate: Array, momentum: Array) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum)


def _plain(rate: Array, _: Array) -> optax.GradientTransformation:
    return optax.sgd(rate, 0.0)


def _radius(make: Callable, rate: Array, setting: Array) -> Float[Array, ""]:
    """The largest spectral radius over the spectrum, of one step as a linear map of the parameter and its memory."""

    def one(curvature: Array) -> Array:
        rule = make(rate, setting)

        def step(z: Float[Array, "2"]) -> Float[Array, "2"]:
            state = _with_memory(rule.init(z[0]), z[1])
            update, state = rule.update(curvature * z[0], state, z[0])
            return jnp.stack([z[0] + update, _memory(state)])

        matrix = jax.jacfwd(step)(jnp.zeros(2, jnp.float64))
        trace, determinant = jnp.trace(matrix), matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
        root = jnp.sqrt(jnp.maximum(trace**2 / 4 - determinant, 0))
        apart = jnp.abs(trace / 2) + root
        return jnp.where(trace**2 / 4 < determinant, jnp.sqrt(jnp.abs(determinant)), apart)

    return jnp.max(jax.vmap(one)(jnp.asarray(_SPECTRUM)))


def _with_memory(state: Any, memory: Array) -> tuple:
    """A state after its first step, with the second point or the momentum in it."""
    if hasattr(state, "v"):
        return state._replace(v=memory, step=state.step + 1)
    return (state[0]._replace(trace=memory), *state[1:])


def _memory(state: Any) -> Array:
    return state.v if hasattr(state, "v") else state[0].trace


def _radii(make: Callable, rates: np.ndarray, settings: np.ndarray) -> np.ndarray:
    """On a grid whose best is not at its edge in either direction, where it has more than one setting."""
    grid = np.asarray(
        jax.jit(jax.vmap(lambda r: jax.vmap(lambda s: _radius(make, r, s))(jnp.asarray(settings))))(jnp.asarray(rates))
    )
    best = np.unravel_index(np.argmin(grid), grid.shape)
    assert all(0 < i < n - 1 for i, n in zip(best, grid.shape) if n > 1), (best, grid.shape)
    return grid


def _largest(make: Callable, rates: np.ndarray, setting: float) -> float:
    """The largest rate below which all are stable."""
    radii = np.asarray(jax.jit(jax.vmap(lambda r: _radius(make, r, jnp.asarray(setting))))(jnp.asarray(rates)))
    unstable = np.flatnonzero(radii >= 1)
    return float(rates[unstable[0] - 1] if len(unstable) else rates[-1])


__all__ = ["PAPER", "checks"]
