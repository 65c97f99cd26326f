r"""On discretisation drift: flows one order closer to gradient descent, alone and between two players.

The bilinear game $xy$ shows what the gradient flow cannot: both orders of the updates share one flow, which circles,
while simultaneous steps spiral outwards and alternating ones stay. The drift-adjusted learning rate is put to a small
network beside fixed rates.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import discretisation_drift, modified_flow
from ...follow import Solver, flow
from .._contrast import Contrast
from .._problems._paths import draw_paths, finish
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="discretisation-drift",
    title="On discretisation drift and smoothness regularisation in neural network training",
    year=2023,
    link="https://arxiv.org/abs/2310.14036",
    rooms=("diagnose",),
    row=35,
    read="code",
)

Weights = tuple[Array, Array, Array]
_ROUNDS = 100


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check the order of the modified flow, what it says of the order of updates, and the drift-adjusted rate.

    Args:
        key: of all randomness.
        full: more initialisations and steps. The paper's image networks are not attempted: inputs are planar in both.

    Returns:
        Three checks.
    """
    order_key, rate_key = jax.random.split(key)
    return [_order(order_key, 16 if full else 4), _game(), _rate(rate_key, *((64, 4000) if full else (32, 600)))]


def _network(weights: Weights, xs: Float[Array, "rows 2"], ys: Float[Array, " rows"]) -> Float[Array, ""]:
    inner, bias, outer = weights
    return 0.5 * jnp.mean((jnp.tanh(xs @ inner + bias[None]) @ outer - ys) ** 2)


def _of_batch(weights: Weights, data: tuple[Array, Array]) -> Float[Array, ""]:
    return _network(weights, *data)


def _draw(key: Key, width: int = 16, rows: int = 64) -> tuple[Weights, tuple[Array, Array]]:
    inner, bias, outer, data = jax.random.split(key, 4)
    xs = jax.random.normal(data, (rows, 2))
    weights = (
        jax.random.normal(inner, (2, width)),
        jax.random.normal(bias, (width,)),
        jax.random.normal(outer, (width,)) / jnp.sqrt(width),
    )
    return weights, (xs, jnp.sin(2 * xs[:, 0]) * xs[:, 1])


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def _gaps(key: Key, rate: Array) -> Float[Array, "2"]:
    """Distances of ten steps from the modified and from the gradient flow."""
    start, data = _draw(key)
    stepped, _ = trained(_of_batch, start, optax.sgd(rate), lambda step, key: data, 10, key=key)
    gaps = []
    for drift in (True, False):
        field = modified_flow(_network, rate, drift=drift)
        end = flow(field, start, 0.0, 10.0, args=data, solver=Solver(steps=20, method=diffrax.Dopri5())).ys
        gaps.append(jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(end, stepped, strict=True))))
    return jnp.stack(gaps)


def _order(key: Key, seeds: int) -> Check:
    """Distance from ten steps to the flows at the same time, at a rate and half of it.

    At ten times these rates the curvature of the networks is too large for the leading order to show.
    """
    with jax.enable_x64(True):
        keys = jax.random.split(key, seeds)
        rough, fine = (np.asarray(_gaps(keys, jnp.asarray(rate, jnp.float64))) for rate in (0.002, 0.001))
    misses = np.abs(np.log2(rough / fine) - 3).T
    return Check(
        "The modified flow follows gradient descent one order closer than the gradient flow does.",
        "error of a step O(h³), against O(h²) for the gradient flow",
        contrasts=Contrast(
            "distance from 3 of the order of the error after ten steps, each at its own order",
            {"modified flow": misses[0], "gradient flow": misses[1]},
            "lower",
            threshold=0.25,
        ),
    )


@jax.jit
def _played() -> tuple[Float[Array, "2 3"], Float[Array, "2 rounds 2"]]:
    """Radii of the game and of both flows, and the paths of the game, at once and in turn."""
    losses, rate = (lambda z: z[0] * z[1], lambda z: -z[0] * z[1]), 0.1
    start = (jnp.asarray(1.0), jnp.asarray(0.0))
    rows: list[Array] = []
    paths: list[Array] = []
    for alternating in (False, True):

        def play(z: tuple[Array, Array], _: None, alternating: bool = alternating) -> tuple[tuple, Array]:
            first = z[0] - rate * z[1]
            return (first, z[1] + rate * (first if alternating else z[0])), jnp.stack(z)

        # Own loop: the rounds of the game are the object itself, of two players in turn.
        last, path = jax.lax.scan(play, start, length=_ROUNDS)
        ends, paths = [last], [*paths, path]
        for drift in (True, False):
            field = modified_flow(losses, (rate, rate), alternating=alternating, drift=drift)
            ends.append(flow(field, start, 0.0, float(_ROUNDS), solver=Solver(steps=400, method=diffrax.Dopri5())).ys)
        rows.append(jnp.stack([jnp.hypot(*end) for end in ends]))
    return jnp.stack(rows), jnp.stack(paths)


def _game() -> Check:
    """Growth of the radius over a hundred rounds of the bilinear game, descended against the flows."""
    radii, paths = (np.asarray(x, np.float64) for x in _played())
    (together, ours, plain), (turns, ours_turns, plain_turns) = radii

    def figure(axes: Any) -> None:
        angles = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(angles), np.sin(angles), color="C2", lw=4, alpha=0.4, label="gradient flow, of both")
        for order, colour, name in ((0, "C1", "at once"), (1, "C0", "in turn")):
            draw_paths(axes, paths[order : order + 1], colour, name)
            axes.plot(*paths[order].T, ".", color=colour, ms=3)
        finish(axes, xlabel="first player", ylabel="second player", aspect="equal")

    # The neglected terms are of order h, 10 %, in turn.
    errors = {
        "modified flow": max(abs(ours / together - 1), abs(ours_turns / turns - 1)),
        "gradient flow": max(abs(plain / together - 1), abs(plain_turns / turns - 1)),
    }
    return Check(
        "Drift explains why simultaneous updates diverge where alternating ones do not.",
        "stated in words",
        contrasts=Contrast(
            f"relative error of the radius after {_ROUNDS} rounds, the larger of both orders",
            errors,
            "lower",
            threshold=0.06,
        ),
        figure=figure,
    )


def _rate(key: Key, seeds: int, steps: int) -> Check:
    """Descent at 2/‖Hĝ‖ in every step, and at one rate throughout, tuned."""

    def adjusted(rate: Array, data: tuple[Array, Array]) -> optax.GradientTransformation:
        def step(gradient: Weights, state: optax.EmptyState, weights: Weights) -> tuple[Weights, optax.EmptyState]:
            rate = discretisation_drift(_network, weights, *data, learning_rates=1.0).adjusted_rate[0]
            return jax.tree.map(lambda g: -rate * g, gradient), state

        return optax.GradientTransformation(lambda weights: optax.EmptyState(), step)

    def training(optimizer: Callable[[Array, tuple[Array, Array]], optax.GradientTransformation]) -> Run:
        def run(rate: Array, key: Key) -> Array:
            start, data = _draw(key)
            _, losses = trained(
                _of_batch,
                start,
                optimizer(rate, data),
                lambda step, key: data,
                steps,
                key=key,
                record=lambda weights, state, value: _network(weights, *data),
            )
            first = _network(start, *data)
            last, most = losses[-1] / (first / 10), jnp.max(losses) / (10 * first)
            # A run that diverged counts as one that ended where it started.
            return jnp.minimum(jnp.nan_to_num(jnp.maximum(last, most), nan=10.0), 10.0)

        return run

    methods = {"drift-adjusted rate": training(adjusted), "fixed rate": training(lambda rate, data: optax.sgd(rate))}
    runs = tuned(methods, (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), "lower", key=key, keys=seeds, tuning=4)
    return Check(
        "The drift-adjusted learning rate trains stably without a rate to tune: the loss ends below a tenth of where "
        "it started and never exceeds ten times that.",
        "stated in words: a schedule without further hyperparameters that mitigates instability",
        contrasts=runs.contrast("larger miss of both, tolerances, at most 10", "lower", threshold=1.0),
        moved_from="beside a fixed rate of the mean of the adjusted ones, which no one would choose",
        expected=False,
        tried="rates from 0.05 to 1.6 for the baseline, which tuned needs no schedule",
    )


__all__ = ["PAPER", "checks"]
