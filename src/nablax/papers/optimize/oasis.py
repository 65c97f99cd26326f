r"""OASIS, untuned, on a logistic regression whose columns differ in scale by three decades, against tuned rules.

Full gradients; what is counted is passes: a gradient is one, and so is a Hessian product taken for one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import oasis
from .._problems._descent import descended
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="oasis",
    title="Doubly Adaptive Scaled Algorithm for Machine Learning Using Second-Order Information",
    year=2021,
    link="https://arxiv.org/abs/2109.05198",
    rooms=("optimize",),
    row=128,
    read="code",
)

_ROWS, _DIM, _DECADES = 500, 20, 3
# Three passes a step for OASIS, after its probes, and one for the others: as many in all.
_PROBES, _STEPS = 20, 600
_PASSES = 3 * _STEPS + _PROBES
_RATES = np.logspace(-5, 1, 13).tolist()
_ADAMS = np.logspace(-4, 2, 13).tolist()


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Compare the gradient's norm that is reached in equally many passes.

    Args:
        key: of data and probes.
        full: more keys. The paper's sets of data and networks are at neither scale.

    Returns:
        Two checks.
    """
    keys = 39 if full else 13
    runs = tuned(
        {
            "OASIS, untuned": lambda _, key: _ours(key),
            "gradient descent": lambda rate, key: _others(optax.sgd(rate), key),
            "Adam": lambda rate, key: _others(optax.adam(rate), key),
            "Nesterov's momentum": lambda rate, key: _others(optax.sgd(rate, 0.95, nesterov=True), key),
            "adaptive gradient descent, untuned": lambda _, key: _adaptive(key),
        },
        {
            "OASIS, untuned": _RATES,
            "gradient descent": _RATES,
            "Adam": _ADAMS,
            "Nesterov's momentum": _RATES,
            "adaptive gradient descent, untuned": _RATES,
        },
        "lower",
        key=key,
        keys=keys,
    )
    metric = "gradient's norm over the first, decades"
    return [
        Check(
            "Without tuning it reaches a smaller gradient than descent, Nesterov's momentum and Adam, all tuned.",
            "stated in words and figures, for logistic regression",
            contrasts=runs.contrast(metric, "lower", against=("gradient descent", "Adam", "Nesterov's momentum")),
        ),
        Check(
            "And than adaptive gradient descent, which finds its rate alike and has no scales.",
            "stated in words and figures, for logistic regression",
            contrasts=runs.contrast(metric, "lower", against=("adaptive gradient descent, untuned",)),
        ),
    ]


def _problem(key: Key) -> Callable[[Float[Array, " dim"]], Float[Array, ""]]:
    data_key, label_key, truth_key = jax.random.split(key, 3)
    rows = jax.random.normal(data_key, (_ROWS, _DIM))
    chance = jax.nn.sigmoid(rows @ jax.random.normal(truth_key, (_DIM,)))
    signs = 2.0 * jax.random.bernoulli(label_key, chance) - 1
    scaled = rows * jnp.logspace(-_DECADES / 2, _DECADES / 2, _DIM)[None]

    def loss(x: Array) -> Array:
        return jnp.mean(jnp.logaddexp(0, -signs * (scaled @ x)))

    return loss


def _decades(loss: Callable, x: Array) -> Array:
    """Of the gradient in the units in which all columns are alike, those of the problem as it was drawn."""
    units = jnp.logspace(-_DECADES / 2, _DECADES / 2, _DIM)
    last, first = (jnp.linalg.norm(jax.grad(loss)(at) / units) for at in (x, jnp.zeros(_DIM)))
    return jnp.where(jnp.isfinite(last), jnp.log10(jnp.maximum(last / first, 1e-7)), 3.0)


def _ours(key: Key) -> Array:
    data_key, probe_key = jax.random.split(key)
    loss = _problem(data_key)
    rule = oasis(b2=0.99, probes=_PROBES, key=probe_key)
    return _decades(loss, descended(loss, jnp.zeros(_DIM), rule, _STEPS)[0])


def _others(rule: optax.GradientTransformation, key: Key) -> Array:
    loss = _problem(jax.random.split(key)[0])
    return _decades(loss, descended(loss, jnp.zeros(_DIM), rule, _PASSES)[0])


def _adaptive(key: Key) -> Array:
    """Malitsky and Mishchenko's descent without descent: OASIS's rate, all scales one."""
    loss = _problem(jax.random.split(key)[0])

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        x, before, slope, rate, growth = carry
        new = jax.grad(loss)(x)
        turned = 2 * jnp.linalg.norm(new - slope)
        seen = jnp.where(turned > 0, jnp.linalg.norm(x - before) / jnp.where(turned > 0, turned, 1), jnp.inf)
        found = jnp.minimum(jnp.sqrt(1 + growth) * rate, seen)
        return (x - found * new, x, new, found, found / rate), None

    start, rate = jnp.zeros(_DIM), jnp.float32(1e-6)
    slope = jax.grad(loss)(start)
    first = (start - rate * slope, start, slope, rate, jnp.float32(1e9))
    # Own loop: a baseline with a state that no library's rule has.
    (x, *_), _ = jax.lax.scan(step, first, length=_PASSES - 1)
    return _decades(loss, x)


__all__ = ["PAPER", "checks"]
