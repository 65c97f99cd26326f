r"""Generalised ridge rider: diverse solutions of games, found by Lyapunov exponents.

The iterated prisoners' dilemma in which each player cooperates with probability σ(θ) after the other's cooperation and
at the start, and defects after his defection: mutual defection and tit for tat are both solutions. Learning starts
inside the basin of defection, at no stationary point, so that there is nothing to branch at until it is searched for.
From deeper inside (θ below about -1) the exponent rises away from the border, and the search does not find it.
"""

from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...follow import Solver, flow
from ...optimize import local_exponents, ridge_rider
from .._contrast import Contrast
from .._problems._descent import descended
from .._problems._paths import draw_paths, finish
from .._records import Check, Paper

PAPER = Paper(
    slug="ridge-rider",
    title="Lyapunov Exponents for Diversity in Differentiable Games",
    year=2022,
    link="https://arxiv.org/abs/2112.14570",
    rooms=("optimize",),
    row=208,
    read="code",
)

_DISCOUNT = 0.96
_RATE = 5.0
_STEPS = 600


def _field(t: Array, z: Float[Array, "2"], args: None) -> Float[Array, "2"]:
    r"""Each player's gradient of his own normalised payoff, -1, -3, 0, -2 in the states CC, CD, DC, DD.

    The payoff is -2, less one for one's own cooperation and two more for the other's. Cooperation at t + 1 has
    probability p after the other's at t, so that the discounted shares obey A = (1 - γ) p + γ p B, and B likewise.
    """

    def payoff(mine: Array, other: Array) -> Array:
        p, q = jax.nn.sigmoid(mine), jax.nn.sigmoid(other)
        visits = (1 - _DISCOUNT) / (1 - _DISCOUNT**2 * p * q)
        return visits * (2 * q * (1 + _DISCOUNT * p) - p * (1 + _DISCOUNT * q))

    return jnp.stack([jax.grad(payoff)(z[0], z[1]), jax.grad(payoff)(z[1], z[0])])


def _learn(z: Float[Array, "2"], times: int = 1) -> Float[Array, "times 2"]:
    """Where plain learning, Euler's method, is at equal times after a point."""
    end = _RATE * _STEPS
    ts = end * (1 + jnp.arange(times)) / times
    return flow(_field, z, 0.0, end, ts=ts, solver=Solver(steps=_STEPS, method=diffrax.Euler())).ys


@jax.jit
def _ridden(starts: Float[Array, "starts 2"], key: Key) -> tuple[tuple[Array, ...], Array]:
    """How far from both solutions the method ends, the original one, and branches at the start; where its own begin."""
    # Neighbours part slowly near the border: over fewer steps the exponent is largest well inside one basin.
    horizon, offset = 40, 0.5

    def one(start: Array) -> tuple[tuple[Array, ...], Array]:
        found = ridge_rider(
            _field,
            start,
            rate=_RATE,
            horizon=horizon,
            search_steps=150,
            search_rate=0.1,
            offset=offset,
            follow_steps=_STEPS,
            lanczos_steps=2,
            key=key,
        )

        def branched(point: Array) -> Array:
            """Both branches along the top direction at a point, as far off it as the method's."""
            _, vectors = local_exponents(_field, point, rate=_RATE, horizon=horizon, lanczos_steps=2, key=key)
            return _miss(jax.vmap(_learn)(point[None] + offset * jnp.stack([vectors[0], -vectors[0]]))[:, -1])

        branches = found.start[None] + offset * jnp.stack([found.directions[0], -found.directions[0]])
        return (_miss(found.ends), branched(_slowest(start)), branched(start)), branches

    return jax.vmap(one)(starts)


def _slowest(start: Float[Array, "2"]) -> Float[Array, "2"]:
    """Where a search of the same steps for a stationary point ends, of which the original method asks a saddle."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 150))
    return descended(lambda z: jnp.log(jnp.sum(_field(jnp.zeros(()), z, None) ** 2)), start, optimizer, 150)[0]


@jax.jit
def _scattered(starts: Float[Array, "starts 2"], spreads: Float[Array, " spreads"], key: Key) -> Array:
    """How far from both solutions two random starts about each start end, ``[spreads, starts]``."""
    noise = jax.random.normal(key, (len(starts), 2, 2))

    def one(spread: Array) -> Array:
        ends = jax.vmap(jax.vmap(_learn))(starts[:, None] + spread * noise)[:, :, -1]
        return jax.vmap(_miss)(ends)

    return jax.vmap(one)(spreads)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that branching where the exponent is largest finds both solutions, from starts of one basin.

    Args:
        key: of all randomness.
        full: more starts. The paper's policies with memory of both moves and its adversarial
            networks are not attempted. The search costs as much as some hundred starts more, of which in two dimensions
            some would lead to either solution: what is claimed is branches, not time.

    Returns:
        One check.
    """
    count = 32 if full else 6
    start_key, search_key, tune_key, scatter_key = jax.random.split(key, 4)
    # Nobody much inclined to cooperate: plain learning ends in mutual defection.
    starts = jax.random.uniform(start_key, (count, 2), minval=-0.9, maxval=-0.4)
    found, branches = _ridden(starts, search_key)
    # Two random starts cost as much as two branches; how far to draw them is chosen on draws of their own.
    spreads = jnp.array([0.5, 1.0, 2.0, 4.0, 8.0])
    tries = jax.random.uniform(tune_key, (64, 2), minval=-0.9, maxval=-0.4)
    best = jnp.argmin(jnp.mean(_scattered(tries, spreads, tune_key), axis=1))
    scattered = _scattered(jnp.repeat(starts, 32, axis=0), spreads[best][None], scatter_key)[0]
    names = "branching at the largest exponent", "ridge rider, at a stationary point", "branching at the start"
    misses = dict(zip(names, found)) | {"two random starts, mean of 32": jnp.mean(scattered.reshape(count, 32), axis=1)}
    return [
        Check(
            "Branching at the largest exponent finds both solutions of the iterated prisoners' dilemma: one branch "
            "ends with both players likelier than 0.6 to return cooperation, one with both less than 0.4.",
            "stated in words, and figures",
            contrasts=Contrast("largest miss of both from a start, tolerances", misses, "lower", threshold=1.0),
            figure=lambda axes: _draw(axes, starts, np.asarray(branches)),
            moved_from="the same beside branching at the start alone",
            expected=False,
            tried="in this game the border of the basins passes through a saddle, which is the stationary point that "
            "a search by speed comes to from nearly every start, so that the original method does as well. Mixed with "
            "matching pennies, in shares of 0.05 to 0.25 as in a later extension, it keeps its saddle or loses one of "
            "its two solutions",
        )
    ]


def _miss(ends: Float[Array, "branches 2"]) -> Float[Array, ""]:
    """How far the best branches end from cooperation and from defection, in units of what is allowed, 0.4."""
    returned = jax.nn.sigmoid(ends)
    cooperation, defection = jnp.max(jnp.min(returned, axis=1)), jnp.min(jnp.max(returned, axis=1))
    return jnp.maximum(1 - cooperation, defection) / 0.4


def _draw(axes: Any, starts: Array, branches: np.ndarray) -> None:
    """Basins of plain learning, where it started, and the branches that ride from the border, as probabilities."""
    side = (jnp.arange(80) + 0.5) / 80
    grid = jax.scipy.special.logit(jnp.stack(jnp.meshgrid(side, side), axis=-1))
    ends = jax.jit(jax.vmap(jax.vmap(_learn)))(grid)[..., -1, :]
    returned = np.asarray(jnp.mean(jax.nn.sigmoid(ends), axis=-1))
    axes.imshow(returned, extent=(0, 1, 0, 1), origin="lower", cmap="Greys_r", vmin=-1, vmax=1, alpha=0.6)
    axes.plot([], [], "s", color="0.7", label="basin of defection")
    paths = jax.jit(jax.vmap(partial(_learn, times=200)))(branches.reshape(-1, 2))
    draw_paths(axes, np.asarray(jax.nn.sigmoid(paths)), "C0", "branches")
    axes.plot(*np.asarray(jax.nn.sigmoid(starts)).T, "k.", label="starts")
    finish(axes, xlabel="first player returns cooperation", ylabel="second player does", aspect="equal")


__all__ = ["PAPER", "checks"]
