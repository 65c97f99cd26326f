r"""Generalised ridge rider: diverse solutions of games, found by Lyapunov exponents.

The iterated prisoners' dilemma in which each player cooperates with probability σ(θ) after the other's cooperation and
at the start, and defects after his defection: mutual defection and tit for tat are both solutions. Learning starts
inside the basin of defection, at no stationary point, so that there is nothing to branch at until it is searched for.
From deeper inside (θ below about -1) the exponent rises away from the border, and the search does not find it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import local_exponents, ridge_rider
from .._problems._paths import draw_paths, finish
from .._records import Check, Paper

PAPER = Paper(
    slug="ridge-rider",
    title="Lyapunov Exponents for Diversity in Differentiable Games",
    year=2022,
    link="https://arxiv.org/abs/2112.14570",
    rooms=("optimize",),
    row=208,
    read="abstract",
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


def _learn(z: Float[Array, "2"]) -> tuple[Float[Array, "2"], Float[Array, "steps 2"]]:
    """Where plain learning ends from a point, and the way there."""
    return jax.lax.scan(lambda z, _: (z + _RATE * _field(jnp.zeros(()), z, None), z), z, length=_STEPS)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that branching where the exponent is largest finds both solutions, from starts of one basin.

    Args:
        key: of all randomness.
        full: more starts. The paper's policies with memory of both moves and its adversarial
            networks are not attempted.

    Returns:
        One check.
    """
    count = 32 if full else 6
    start_key, search_key = jax.random.split(key)
    # Nobody much inclined to cooperate: plain learning ends in mutual defection.
    starts = jax.random.uniform(start_key, (count, 2), minval=-0.9, maxval=-0.4)
    # Neighbours part slowly near the border: over fewer steps the exponent is largest well inside one basin.
    horizon, offset = 40, 0.5

    def both(start: Array) -> tuple[Array, ...]:
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
            key=search_key,
        )
        # The baseline branches at the start itself, along the same kind of direction and as far.
        _, vectors = local_exponents(_field, start, rate=_RATE, horizon=horizon, lanczos_steps=2, key=search_key)
        others = start[None] + offset * jnp.stack([vectors[0], -vectors[0]])

        ends = jax.vmap(lambda z: _learn(z)[0])(others)
        branches = found.start[None] + offset * jnp.stack([found.directions[0], -found.directions[0]])
        return jax.nn.sigmoid(found.ends), jax.nn.sigmoid(ends), found.start, branches

    ends, others, points, branches = (np.asarray(x) for x in jax.jit(jax.vmap(both))(starts))

    def solved(ends: np.ndarray) -> np.ndarray:
        """For each start, whether one branch ended with both cooperating and another with neither."""
        return np.any(np.all(ends > 0.6, axis=2), axis=1) & np.any(np.all(ends < 0.4, axis=2), axis=1)

    ours, theirs = solved(ends), solved(others)
    return [
        Check(
            statement="Branching at the largest exponent finds both solutions of the iterated prisoners' dilemma.",
            stated="stated in words, and figures",
            measured=f"mutual defection and tit for tat from {int(ours.sum())} of {count} starts; it branches where θ "
            f"sums to {points.sum(1).min():.2f} to {points.sum(1).max():.2f}",
            criterion="from every start one branch ends with both players more likely than 0.6 to return "
            "cooperation, and one with both less than 0.4",
            holds=bool(ours.all() and not theirs.any()),
            baseline=f"as large a step along the top direction at the start itself: both from {int(theirs.sum())}",
            figure=lambda axes: _draw(axes, starts, branches),
        )
    ]


def _draw(axes: Any, starts: Array, branches: np.ndarray) -> None:
    """Basins of plain learning, where it started, and the branches that ride from the border, as probabilities."""
    side = (jnp.arange(80) + 0.5) / 80
    grid = jax.scipy.special.logit(jnp.stack(jnp.meshgrid(side, side), axis=-1))
    ends = jax.jit(jax.vmap(jax.vmap(lambda z: _learn(z)[0])))(grid)
    returned = np.asarray(jnp.mean(jax.nn.sigmoid(ends), axis=-1))
    axes.imshow(returned, extent=(0, 1, 0, 1), origin="lower", cmap="Greys_r", vmin=-1, vmax=1, alpha=0.6)
    axes.plot([], [], "s", color="0.7", label="basin of defection")
    _, paths = jax.jit(jax.vmap(_learn))(branches.reshape(-1, 2))
    draw_paths(axes, np.asarray(jax.nn.sigmoid(paths)), "C0", "branches")
    axes.plot(*np.asarray(jax.nn.sigmoid(starts)).T, "k.", label="starts")
    finish(axes, xlabel="first player returns cooperation", ylabel="second player does", aspect="equal")


__all__ = ["PAPER", "checks"]
