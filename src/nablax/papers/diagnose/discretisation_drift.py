r"""On discretisation drift: flows one order closer to gradient descent, alone and between two players.

The bilinear game $xy$ shows what the gradient flow cannot: both orders of the updates share one flow, which circles,
while simultaneous steps spiral outwards and alternating ones stay. The drift-adjusted learning rate is put to a small
network on which a fixed rate of the same mean size is unstable.
"""

from collections.abc import Callable
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
from .._problems._paths import draw_paths, finish
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="discretisation-drift",
    title="On discretisation drift and smoothness regularisation in neural network training",
    year=2023,
    link="https://arxiv.org/abs/2310.14036",
    rooms=("diagnose",),
    row=35,
    read="abstract",
)

Weights = tuple[Array, Array, Array]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check the order of the modified flow, what it says of the order of updates, and the drift-adjusted rate.

    Args:
        key: of all randomness.
        full: more initialisations and steps. The paper's image networks are not attempted: inputs are planar in both.

    Returns:
        Three checks.
    """
    order_key, rate_key = jax.random.split(key)
    return [_order(order_key, 16 if full else 4), _game(), _rate(rate_key, *((16, 4000) if full else (8, 600)))]


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


def _order(key: Key, seeds: int) -> Check:
    """Distance from ten steps to the flows at the same time, at a rate and half of it.

    At ten times these rates the curvature of the networks is too large for the leading order to show (2^2.45, 2^1.49).
    """

    def miss(key: Key, rate: Array) -> Float[Array, "2"]:
        start, data = _draw(key)

        stepped, _ = trained(_of_batch, start, optax.sgd(rate), lambda step, key: data, 10, key=key)
        gaps = []
        for drift in (True, False):
            field = modified_flow(_network, rate, drift=drift)
            end = flow(field, start, 0.0, 10.0, args=data, solver=Solver(steps=20, method=diffrax.Dopri5())).ys
            gaps.append(jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(end, stepped, strict=True))))
        return jnp.stack(gaps)

    with jax.enable_x64(True):
        keys = jax.random.split(key, seeds)
        program = jax.jit(jax.vmap(miss, (0, None)))
        rough, fine = (np.asarray(program(keys, jnp.asarray(rate, jnp.float64))) for rate in (0.002, 0.001))
    ours, plain = np.log2(rough / fine).T
    return Check(
        statement="The modified flow follows gradient descent one order closer than the gradient flow does.",
        stated="error of a step O(h³), against O(h²) for the gradient flow",
        measured=f"error after ten steps of a network falls by 2^{ours.mean():.2f} when the rate is halved "
        f"(least {ours.min():.2f}, most {ours.max():.2f}, {seeds} networks)",
        criterion="by 2^3 to within 2^±0.25 for every network: ten steps, each at its own order",
        holds=bool(np.all(np.abs(ours - 3) <= 0.25) and not np.any(np.abs(plain - 3) <= 0.25)),
        baseline=f"gradient flow: 2^{plain.mean():.2f}, at most 2^{plain.max():.2f}",
    )


def _game() -> Check:
    """Growth of the radius over a hundred rounds of the bilinear game, descended against the flows."""
    losses, rate, rounds = (lambda z: z[0] * z[1], lambda z: -z[0] * z[1]), 0.1, 100
    start = (jnp.asarray(1.0), jnp.asarray(0.0))

    @jax.jit
    def played() -> tuple[Float[Array, "2 3"], Float[Array, "2 rounds 2"]]:
        rows: list[Array] = []
        paths: list[Array] = []
        for alternating in (False, True):

            def play(z: tuple[Array, Array], _: None, alternating: bool = alternating) -> tuple[tuple, Array]:
                first = z[0] - rate * z[1]
                return (first, z[1] + rate * (first if alternating else z[0])), jnp.stack(z)

            last, path = jax.lax.scan(play, start, length=rounds)
            ends, paths = [last], [*paths, path]
            for drift in (True, False):
                field = modified_flow(losses, (rate, rate), alternating=alternating, drift=drift)
                ends.append(
                    flow(field, start, 0.0, float(rounds), solver=Solver(steps=400, method=diffrax.Dopri5())).ys
                )
            rows.append(jnp.stack([jnp.hypot(*end) for end in ends]))
        return jnp.stack(rows), jnp.stack(paths)

    radii, paths = (np.asarray(x, np.float64) for x in played())
    (together, ours, plain), (turns, ours_turns, plain_turns) = radii

    def figure(axes: Any) -> None:
        angles = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(angles), np.sin(angles), color="C2", lw=4, alpha=0.4, label="gradient flow, of both")
        for order, colour, name in ((0, "C1", "at once"), (1, "C0", "in turn")):
            draw_paths(axes, paths[order : order + 1], colour, name)
            axes.plot(*paths[order].T, ".", color=colour, ms=3)
        finish(axes, xlabel="first player", ylabel="second player", aspect="equal")

    errors = [abs(ours / together - 1), abs(ours_turns / turns - 1)]
    plain_errors = [abs(plain / together - 1), abs(plain_turns / turns - 1)]
    return Check(
        statement="Drift explains why simultaneous updates diverge where alternating ones do not.",
        stated="stated in words",
        measured=f"radius after {rounds} rounds, at once {together:.3f}, flow {ours:.3f}; in turn {turns:.3f}, "
        f"flow {ours_turns:.3f}",
        criterion="radius within 6 % of the game's for both orders (the neglected terms are of order h, 10 %, in turn)",
        holds=max(errors) <= 0.06 < max(plain_errors),
        baseline=f"gradient flow, the same for both: {plain:.3f} and {plain_turns:.3f}",
        figure=figure,
    )


def _rate(key: Key, seeds: int, steps: int) -> Check:
    """Descent at 2/‖Hĝ‖ in every step, and at the mean of the rates that this took."""

    def train(key: Key) -> tuple[Array, ...]:
        start, data = _draw(key)

        def descend(optimizer: optax.GradientTransformation, record: Callable) -> Any:
            return trained(_of_batch, start, optimizer, lambda step, key: data, steps, key=key, record=record)[1]

        def adjust(gradient: Weights, rate: Array, weights: Weights) -> tuple[Weights, Array]:
            rate = discretisation_drift(_network, weights, *data, learning_rates=1.0).adjusted_rate[0]
            return jax.tree.map(lambda g: -rate * g, gradient), rate

        adjusted = optax.GradientTransformation(lambda weights: jnp.zeros(()), adjust)
        rates, losses = descend(adjusted, lambda weights, rate, value: (rate, _network(weights, *data)))
        mean = jnp.mean(rates)
        others = descend(optax.sgd(mean), lambda weights, state, value: _network(weights, *data))
        return _network(start, *data), mean, losses[-1], jnp.max(losses), others[-1], jnp.max(others)

    start, rate, last, most, other, other_most = (
        np.asarray(x) for x in jax.jit(jax.vmap(train))(jax.random.split(key, seeds))
    )
    ours, theirs = (last < start / 10) & (most < 10 * start), (other < start / 10) & (other_most < 10 * start)
    ratio = np.nan_to_num(other / start, nan=np.inf)
    return Check(
        statement="The drift-adjusted learning rate trains stably without a rate to tune.",
        stated="stated in words: a schedule without further hyperparameters that mitigates instability",
        measured=f"{int(ours.sum())} of {seeds} networks trained; final loss over initial at most "
        f"{(last / start).max():.3f}, mean rate {rate.mean():.2f}",
        criterion="for every network the loss ends below a tenth of where it started and never exceeds ten times that",
        holds=bool(ours.all() and not theirs.all()),
        baseline=f"a fixed rate equal to that mean: {int(theirs.sum())} of {seeds} trained, loss over initial "
        f"{np.min(ratio):.2g} to {np.max(ratio):.2g}",
    )


__all__ = ["PAPER", "checks"]
