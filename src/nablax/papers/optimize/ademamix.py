"""AdEMAMix, Optax's, beside Adam with as many momenta to choose from: Rosenbrock's valley and a small network.

Rule, schedules (half-lives, not decays, grow linearly) and the weight of 5 are those of the authors' code,
https://github.com/apple/ml-ademamix, whose average of old gradients is not corrected for its start either.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from .._problems._classifier import digits, loss, network
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="ademamix",
    title="The AdEMAMix Optimizer: Better, Faster, Older",
    year=2024,
    link="https://arxiv.org/abs/2409.03137",
    rooms=("optimize",),
    row=163,
    read="code",
)

_VALLEY, _DIGITS, _BATCH = 500, 600, 32
_RATES = (2.0 ** -np.arange(-6, 10)).tolist()
_MEMORIES = {"AdEMAMix": [0.99, 0.999, 0.9999], "Adam": [0.9, 0.99, 0.999]}
_ENDS = {
    0.99: "the paper's slow averages are no faster",
    0.9999: "the paper's default",
    0.9: "Adam's default",
    0.999: "Adam's second average is no slower",
}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Tune rate and memory of both, on the valley from random starts and on digits in batches.

    Args:
        key: of starts, weights and batches.
        full: ten times the steps. The paper's language models are at neither scale.

    Returns:
        Two checks.
    """
    times = 10 if full else 1
    # Of 10 runs a key the gain on digits was not resolved.
    valley_key, digits_key = jax.random.split(key)
    grid = {name: (_RATES, memories) for name, memories in _MEMORIES.items()}
    valley, network_of_digits = (
        tuned({name: run(_rule(name)) for name in grid}, grid, "lower", key=one, keys=30, ends=_ENDS)
        for one, run in (
            (valley_key, lambda make: _valley(make, times * _VALLEY)),
            (digits_key, lambda make: _digits(make, times * _DIGITS)),
        )
    )
    return [
        Check(
            f"In Rosenbrock's valley AdEMAMix is nearer to the least point after {times * _VALLEY} steps than Adam, by "
            "half a decade, with rate and memory tuned for both.",
            "one average cannot serve the recent and the old, in words",
            contrasts=valley.contrast("log10 of the distance to the least point", "lower", margin=0.5),
            moved_from="the same after 3,000 steps, when both are as near as single precision comes",
        ),
        Check(
            "On a small network its training loss is lower.",
            "converges faster, often to lower minima, in words",
            contrasts=network_of_digits.contrast(f"log10 of the training loss after {times * _DIGITS} steps", "lower"),
        ),
    ]


def _rule(name: str) -> Callable[[Array, Array, int], optax.GradientTransformation]:
    """Of a rate, a memory and the number of steps, by which the authors' schedules warm up."""

    def mixed(rate: Array, memory: Array, steps: int) -> optax.GradientTransformation:
        # The weight of the old gradients grows linearly, their average's half-life too: as the paper has it.
        def half_life(decay: Array) -> Array:
            return jnp.log(0.5) / jnp.log(decay) - 1

        def slow(step: Array) -> Array:
            share = jnp.minimum(step / steps, 1.0)
            life = (1 - share) * half_life(jnp.asarray(0.9)) + share * half_life(memory)
            return jnp.minimum(0.5 ** (1 / (life + 1)), memory)

        return optax.contrib.ademamix(rate, b3=slow, alpha=lambda step: 5.0 * jnp.minimum(step / steps, 1.0))

    return mixed if name == "AdEMAMix" else lambda rate, memory, steps: optax.adam(rate, b1=memory)


def _valley(make: Callable, steps: int) -> Callable[[Array, Key], Array]:
    def value(x: Float[Array, "2"]) -> Array:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    def run(setting: Float[Array, "2"], key: Key) -> Float[Array, ""]:
        start = jnp.array([-3.0, 5.0]) + jax.random.normal(key, (2,))
        x, _ = trained(lambda x, _: value(x), start, make(*setting, steps), lambda step, key: (), steps, key=key)
        return jnp.log10(jnp.clip(jnp.linalg.norm(x - 1), 1e-6, 1e3))  # as near as single precision comes

    return run


def _digits(make: Callable, steps: int) -> Callable[[Array, Key], Array]:
    images, labels = digits()

    def run(setting: Float[Array, "2"], key: Key) -> Float[Array, ""]:
        weights_key, rows_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (steps, _BATCH), 0, len(images))
        params, _ = trained(
            lambda params, batch: loss(params, *batch),
            network(weights_key, (64, 32, 10)),
            make(*setting, steps),
            lambda step, key: (images[rows[step]], labels[rows[step]]),
            steps,
            key=rows_key,
        )
        return jnp.log10(jnp.clip(loss(params, images, labels), 1e-8, 10.0))

    return run


__all__ = ["PAPER", "checks"]
