r"""MARS: how near its momentum is to the true gradient on a stream, and what that is worth in training.

A least-squares stream, followed along one path that all see alike: Adam's first moment and MARS's are two estimates of
the same gradient, each with its own decay (and γ) tuned. Then the digits, where each trains by its own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import scale_by_mars
from .._problems._tuning import tuned
from .._records import Check, Paper
from ._digits import LOSS, RATES, on_digits

PAPER = Paper(
    slug="mars",
    title="MARS: Unleashing the Power of Variance Reduction for Training Large Models",
    year=2024,
    link="https://arxiv.org/abs/2411.10438",
    rooms=("optimize",),
    row=193,
    read="code",
)

_DIM, _BATCH, _STEPS, _RATE = 20, 4, 400, 0.03
_DECAYS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
_GAMMAS = (0.01, 0.1, 0.5, 1.0)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Compare estimates of the gradient, and AdamW on the digits.

    Args:
        key: of all randomness.
        full: more keys. The paper's language models are at neither scale.

    Returns:
        Three checks.
    """
    # Of 13 trainings a key the gain was not resolved.
    keys, trainings = (18, 156) if full else (6, 78)
    stream_key, digits_key = jax.random.split(key)

    def momentum(exact: bool) -> Callable[[Array, Key], Array]:
        return lambda setting, key: _error(setting[0], setting[1], key, exact=exact)

    # As many settings each: decays times γ, or as many decays.
    fine = jnp.sort(1 - jnp.geomspace(0.7, 0.003, len(_DECAYS) * len(_GAMMAS))).tolist()
    streams = tuned(
        {
            "exact MARS": momentum(True),
            "MARS with the last batch's gradient": momentum(False),
            "momentum": lambda decay, key: _error(decay, 0.0, key, exact=False),
        },
        {
            "exact MARS": (_DECAYS, _GAMMAS),
            "MARS with the last batch's gradient": (_DECAYS, _GAMMAS),
            "momentum": fine,
        },
        "lower",
        key=stream_key,
        keys=keys,
        ends={0.01: "hardly any correction", 1.0: "the whole correction"},
    )
    metric = "mean square error of the estimated gradient, over the gradient's mean square"
    approximate = streams._replace(
        results={name: streams.results[name] for name in list(streams.results)[1:]},
    )
    rules = {"MARS-AdamW": _mars, "AdamW": optax.adam}
    digits = on_digits(rules, dict.fromkeys(rules, RATES), key=digits_key, keys=trainings)
    return [
        Check(
            "Exact MARS estimates the gradient of a stream with less error than momentum, each at its best decay.",
            "variance reduction, stated in words and by the theory it comes from",
            contrasts=streams.contrast(metric, "lower", against=("momentum",)),
            moved_from="at most half the error, which the paper does not state",
        ),
        Check(
            "So does the practical form, which takes the last batch's gradient, with less error than momentum.",
            "the form that the paper trains by",
            expected=False,
            tried="γ from 0.01 to 1: the least is the best, for the change between two batches is noise, and it "
            "trades delay for noise as a lower decay does",
            contrasts=approximate.contrast(metric, "lower", against=("momentum",)),
            moved_from="the same with γ = 0 on the grid, where it is momentum itself",
        ),
        Check(
            "MARS-AdamW reaches a lower loss than AdamW, each at its best rate.",
            "a final loss of 2.51 against 2.58 nats on GPT-2 large",
            contrasts=digits.contrast(LOSS, "lower", of="loss"),
        ),
    ]


def _mars(rate: Array) -> optax.GradientTransformation:
    return optax.chain(scale_by_mars(vectors=True), optax.scale_by_learning_rate(rate))


def _error(decay: Array, gamma: Array | float, key: Key, *, exact: bool) -> Float[Array, ""]:
    """Of the rule's own first moment, along plain descent with the true gradient, after the first tenth.

    The loss is small, so that no clip at a norm of one is met.
    """
    truth_key, start_key, batch_key = jax.random.split(key, 3)
    truth, start = jax.random.normal(truth_key, (_DIM, 1)), 2 * jax.random.normal(start_key, (_DIM, 1))
    rule = scale_by_mars(gamma=gamma, b1=decay, exact=exact)  # type: ignore[arg-type]

    def step(carry: tuple, key: Key) -> tuple[tuple, tuple[Array, Array]]:
        x, state = carry
        rows = jax.random.normal(key, (_BATCH, _DIM))

        def grad_fn(x: Array) -> tuple[float, Array]:
            return 0.0, 1e-3 * rows.T @ (rows @ (x - truth)) / _BATCH

        _, state = rule.update(grad_fn(x)[1], state, x, grad_fn=grad_fn)
        true = 1e-3 * (x - truth)  # inputs of unit covariance
        error = state.mu / (1 - decay**state.step) - true
        turn = jnp.sin(jnp.arange(_DIM) + 0.05 * state.step)[:, None]  # so that the path goes on to move
        return (x - _RATE * (1e3 * true - turn), state), (jnp.sum(error**2), jnp.sum(true**2))

    # Own loop: the rule watches a path that its own steps don't make.
    _, (errors, sizes) = jax.lax.scan(step, (start, rule.init(start)), jax.random.split(batch_key, _STEPS))
    return jnp.mean(errors[_STEPS // 10 :]) / jnp.mean(sizes[_STEPS // 10 :])


__all__ = ["PAPER", "checks"]
