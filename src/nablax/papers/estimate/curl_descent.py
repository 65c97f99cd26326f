"""Curl descent: when solutions attract although some units learn by the opposite sign, and when it is quicker.

Two-layer linear networks started beside a solution, at random signs of input or of hidden units; and a network of tanh
units taught by another, started from small weights, with one of its readout weights flipped.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import rule_flipped
from .._contrast import Contrast
from .._problems._descent import descended
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="curl-descent",
    title="Curl Descent: Non-Gradient Learning Dynamics with Sign-Diverse Plasticity",
    year=2025,
    link="https://arxiv.org/abs/2510.02765",
    rooms=("estimate",),
    row=37,
    read="code",
)

_FEW, _MANY, _SHARE = 20, 60, 0.2
_AWAY = 1e-3  # standard deviation of the first displacement of each weight
_RATES = (0.2, 0.4, 0.7, 1.0, 1.5, 2.5)
_GOAL, _SMALL = 0.01, 1e-3


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Follow the error of linear networks near a solution, and of a nonlinear one from its start.

    Args:
        key: of all randomness.
        full: eight times the networks, five times the students.

    Returns:
        Three checks.
    """
    networks, students = (200, 100) if full else (24, 20)
    stable_key, escape_key, speed_key = jax.random.split(key, 3)
    wide, narrow = (_followed(stable_key, networks, sizes, hidden=False) for sizes in ((_FEW, _MANY), (_MANY, _FEW)))
    inputs, readout = (_followed(escape_key, networks, (_MANY, _FEW), hidden=hidden) for hidden in (False, True))
    methods = {"one weight flipped": _run(True, 1500), "gradient descent": _run(False, 1500)}
    speed = tuned(methods, _RATES, "lower", key=speed_key, keys=students)
    return [
        Check(
            "With a fifth of the input units flipped, solutions attract where the network widens and repel where it "
            "narrows.",
            "phase diagrams of stability against the shares of flipped units and the layers' sizes",
            contrasts=Contrast(
                "share of networks whose error falls to a tenth",
                {"widening, 20 to 60": wide < 0.1, "narrowing, 60 to 20": narrow < 0.1},
                "higher",
                margin=0.5,
            ),
        ),
        Check(
            "Where solutions repel, networks with flipped readout weights come back to one, those with flipped input "
            "weights do not.",
            "stated in words",
            contrasts=Contrast(
                "log10 of the last error over the first",
                {"readout flipped": np.log10(readout + 1e-12), "inputs flipped": np.log10(inputs + 1e-12)},
                "lower",
                margin=1.0,
            ),
        ),
        Check(
            "From small weights a flipped readout weight makes learning faster than gradient descent.",
            "curves of student and teacher networks",
            contrasts=speed.contrast(f"steps to a loss of {_GOAL}", "lower"),
            expected=False,
            tried="rates from 0.1 to 4, up to 2,000 steps: at large rates, where both are quickest, a flipped weight "
            "loses some networks; at a rate of 0.3 it takes 348 steps against 359, and fewer for 13 of 16 networks",
            moved_from="at most 0.9 times the steps of gradient descent",
        ),
    ]


def _followed(key: Key, networks: int, sizes: tuple[int, int], *, hidden: bool) -> np.ndarray:
    """Error after a long time over the error at first, of each network."""

    def one(key: Key) -> Float[Array, ""]:
        in_key, out_key, sign_key, away_key = jax.random.split(key, 4)
        inputs, units = sizes
        params = {
            "in": jax.random.normal(in_key, (units, inputs)) / jnp.sqrt(inputs),
            "out": jax.random.normal(out_key, (units,)) / jnp.sqrt(units),
        }
        target = params["out"] @ params["in"]
        ones = jax.tree.map(jnp.ones_like, params)
        count = units if hidden else inputs
        d = jnp.where(jax.random.permutation(sign_key, count) < round(_SHARE * count), -1.0, 1.0)
        signs = ones | ({"out": d} if hidden else {"in": jnp.broadcast_to(d, params["in"].shape)})

        def loss(params: PyTree) -> Array:
            return 0.5 * jnp.sum((params["out"] @ params["in"] - target) ** 2)

        away = jax.random.split(away_key)
        start = {name: leaf + _AWAY * jax.random.normal(k, leaf.shape) for k, (name, leaf) in zip(away, params.items())}
        end = _descended(loss, signs, start, 0.04, 2000)[0]
        return jnp.sqrt(loss(end) / loss(start))

    ratios = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, networks)))
    return np.where(np.isfinite(ratios), ratios, 1e12)  # past the largest number


def _descended(
    loss: Callable[[PyTree], Array], signs: PyTree, params: PyTree, rate: float | Array, steps: int
) -> tuple[PyTree, Float[Array, " steps"]]:
    return descended(
        loss,
        params,
        optax.sgd(rate),
        steps,
        value_and_grad=lambda loss: rule_flipped(loss, signs),
        record=lambda params, state, value: value,
    )


def _run(flipped: bool, steps: int) -> Run:
    """Steps to the goal, all of them where it is not reached."""

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        data_key, teacher_key, student_key = jax.random.split(key, 3)
        x = jax.random.normal(data_key, (100, 5))

        def answers(params: PyTree) -> Array:
            return jnp.tanh(x @ params["in"].T) @ params["out"]

        def drawn(key: Key, units: int) -> PyTree:
            one, other = jax.random.split(key)
            return {"in": jax.random.normal(one, (units, 5)), "out": jax.random.normal(other, (units,))}

        wanted = answers(drawn(teacher_key, 3))
        wanted = wanted / jnp.std(wanted)
        start = optax.tree.scale(_SMALL, drawn(student_key, 10))
        signs = jax.tree.map(jnp.ones_like, start)
        if flipped:
            signs["out"] = signs["out"].at[0].set(-1.0)
        values = _descended(lambda params: jnp.mean((answers(params) - wanted) ** 2), signs, start, rate, steps)[1]
        reached = values <= _GOAL
        return jnp.where(jnp.any(reached), jnp.argmax(reached), steps)

    return run


__all__ = ["PAPER", "checks"]
