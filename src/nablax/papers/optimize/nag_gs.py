r"""NAG-GS on quadratics, by the eigenvalues of its iteration: how fast at best.

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
    """Compare rates of convergence by spectral radii.

    That large rates are borne is not put as a claim: the rate saturates, and with μ at half of the largest curvature or
    more any of them is a step of descent at a rate below 1/μ.

    Args:
        key: not used: nothing here is random.
        full: finer grids. The paper's networks are at neither scale.

    Returns:
        Two checks.
    """
    fine = 120 if full else 60
    low, root = 1 / _CONDITION, _CONDITION**0.5
    with jax.enable_x64(True):
        # The others at their optima, which are known for quadratics.
        falls = {
            "NAG-GS": _falls(_semi_implicit, *_refined(_semi_implicit, fine)),
            "Nesterov's momentum": _falls(
                _nesterov, 4 / (3 + low), ((3 + low) ** 0.5 - 2 * low**0.5) / ((3 + low) ** 0.5 + 2 * low**0.5)
            ),
            "gradient descent": _falls(_plain, 2 / (1 + low), 0.0),
            "heavy ball": _falls(_heavy, 4 / (1 + low**0.5) ** 2, ((root - 1) / (root + 1)) ** 2),
        }
    # As fast as where it is slowest.
    worst = {name: float(np.min(fall)) for name, fall in falls.items()}
    compared = ("NAG-GS", "Nesterov's momentum", "gradient descent")

    def figure(axes: Any) -> None:
        for place, name in enumerate(compared):
            axes.loglog(_SPECTRUM, falls[name], color=f"C{place}", label=name)
            axes.plot(_SPECTRUM[np.argmin(falls[name])], worst[name], "o", color=f"C{place}", ms=4)
        axes.set(xlabel="curvature, of the largest", ylabel="fall of the error a step, nats", ylim=(1e-3, 2))
        axes.legend()

    return [
        Check(
            "At its best rate and μ a quadratic of condition 1e3 converges faster than by Nesterov's momentum at its "
            "best: the error's logarithm falls by at least 1.2 times as much a step.",
            "optimal rates derived, stated as accelerated",
            contrasts=Contrast(
                "fall of the error a step, nats",
                {name: worst[name] for name in compared},
                "higher",
                ratio=1.2,
            ),
            figure=figure,
        ),
        Check(
            "And than by heavy ball at its best, by 0.001 nats or more.",
            "competitive with momentum, in words",
            expected=False,
            tried="rates and μ on a grid refined three times: heavy ball at its own optimum is faster by 2 %, and "
            "slower by 7 % where it is put on a grid of its own",
            contrasts=Contrast(
                "fall of the error a step, nats",
                {name: worst[name] for name in ("NAG-GS", "heavy ball")},
                "higher",
                margin=1e-3,
            ),
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


def _radii(make: Callable, rate: Array, setting: Array) -> Float[Array, " curvatures"]:
    """The spectral radius at each curvature, of one step as a linear map of the parameter and its memory."""

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

    return jax.vmap(one)(jnp.asarray(_SPECTRUM))


def _with_memory(state: Any, memory: Array) -> tuple:
    """A state after its first step, with the second point or the momentum in it."""
    if hasattr(state, "v"):
        return state._replace(v=memory, step=state.step + 1)
    return (state[0]._replace(trace=memory), *state[1:])


def _memory(state: Any) -> Array:
    return state.v if hasattr(state, "v") else state[0].trace


def _falls(make: Callable, rate: float, setting: float) -> Float[np.ndarray, " curvatures"]:
    """By how much the error's logarithm falls a step, at each curvature."""
    return -np.log(np.asarray(jax.jit(lambda r, s: _radii(make, r, s))(jnp.asarray(rate), jnp.asarray(setting))))


def _refined(make: Callable, fine: int) -> tuple[float, float]:
    """Rate and setting of the least radius over the spectrum, on a grid, looked at more closely about its best."""

    @jax.jit
    def grid(rates: Array, settings: Array) -> Float[Array, "rates settings"]:
        return jax.vmap(lambda r: jax.vmap(lambda s: jnp.max(_radii(make, r, s)))(settings))(rates)

    rates, settings = np.geomspace(1e-3, 2, fine), np.geomspace(2e-4, 4e-3, fine)
    for _ in range(3):
        radii = np.asarray(grid(jnp.asarray(rates), jnp.asarray(settings)))
        i, j = (int(k) for k in np.unravel_index(np.argmin(radii), radii.shape))
        assert 0 < i < fine - 1 and 0 < j < fine - 1, "the best lies at the edge of the grid"
        best = float(rates[i]), float(settings[j])
        rates = np.geomspace(rates[i - 1], rates[i + 1], fine)
        settings = np.geomspace(settings[j - 1], settings[j + 1], fine)
    return best


__all__ = ["PAPER", "checks"]
