r"""Entropy-SGD: which of two valleys it ends in, and how sharp the minima are that it finds on the digits.

Two bowls of one depth, widths 1 and 10, with noisy gradients; then a network in batches of 32. Every method has the
same number of gradients. A step of Entropy-SGD takes twenty, each of a batch of its own, as the paper has it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...calculus import hessian_product, top_eigenvalues
from ...optimize import entropy_sgd
from .._problems._classifier import logits, loss, network, split_digits
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="entropy-sgd",
    title="Entropy-SGD: Biasing Gradient Descent Into Wide Valleys",
    year=2016,
    link="https://arxiv.org/abs/1611.01838",
    rooms=("optimize",),
    row=241,
    read="code",
)

_WALK = 20
# The valleys: gradients a run, and where the narrow and the wide one lie.
_GRADIENTS, _NARROW, _WIDE, _NOISE = 2000, np.array([0.0, 0.0]), np.array([1.0, 0.0]), 0.3
# The digits.
_TRAIN, _BATCH, _SEEN, _SIZES = 1280, 32, 1200, (64, 32, 10)

Make = Callable[[Array, Key], optax.GradientTransformation]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Start beside the narrow valley, and train on the digits, each method at its best of as many settings.

    Args:
        key: of all randomness.
        full: four times the repetitions. The paper's networks are at neither scale.

    Returns:
        Three checks.
    """
    repetitions = 4 if full else 1
    valley_key, digits_key = jax.random.split(key)
    small, rates = np.logspace(-3.5, -0.5, 6).tolist(), np.logspace(-4, 0, 24).tolist()
    temperatures = (0.03, 0.1, 0.3, 1.0)
    ends = {0.03: "hardly any noise", 1.0: "the temperature of the local entropy"}
    langevin = "descent with noise"
    valleys = tuned(
        {
            "Entropy-SGD": _ending(lambda rate, noise, key: entropy_sgd(1.0, 1.0, **_walk(rate, noise, key)), _WALK),
            langevin: _ending(lambda rate, noise, key: optax.noisy_sgd(rate, 2 * noise**2 / rate, 0.0, key)),
            "momentum": _ending(lambda rate, key: optax.sgd(rate, 0.9)),
            "Adam": _ending(lambda rate, key: optax.adam(rate)),
        },
        {"Entropy-SGD": (small, temperatures), langevin: (small, temperatures), "momentum": rates, "Adam": rates},
        "higher",
        key=valley_key,
        keys=48 * repetitions,
        tuning=24,  # of few, chance chooses between settings that hardly ever fail
        ends=ends,
    )
    pulls, steps = (1e-3, 3e-2, 1.0), np.logspace(-2.5, 0.5, 7).tolist()
    lengths = np.logspace(-4, 1, 21).tolist()
    digits = tuned(
        {
            "Entropy-SGD": lambda setting, key: _classified(
                lambda key: entropy_sgd(1.0, setting[1], steps=_WALK, step_size=setting[0], **_batches(key)), _WALK, key
            ),
            "momentum": lambda rate, key: _classified(lambda key: optax.sgd(rate, 0.9, nesterov=True), 1, key),
            "Adam": lambda rate, key: _classified(lambda key: optax.adam(rate), 1, key),
        },
        {"Entropy-SGD": (steps, pulls), "momentum": lengths, "Adam": lengths},
        "lower",
        key=digits_key,
        keys=21 * repetitions,
        of="loss",
        ends={1e-3: "hardly any pull"},
    )
    return [
        Check(
            "Of two valleys of one depth it ends in the one ten times as wide from nine starts of ten beside the "
            "narrow one, and no descent does.",
            "favours wide valleys and avoids sharp ones, in the abstract",
            expected=False,
            tried="it does so, from every start; but so do momentum and descent with noise at their best settings of "
            "24, and Adam from nearly all",
            contrasts=valleys.contrast("share of runs that end in the wide valley", "higher", threshold=0.9),
        ),
        Check(
            "The minima that it finds on the digits are less sharp.",
            "finds solutions in large flat regions, in the abstract",
            expected=False,
            tried="walks of 5 and of 20 steps, momentum .9 of the outer steps too, four times the gradients: the "
            "further training has gone the flatter they are, and momentum, which no walk begins anew, goes furthest; "
            "Adam's are sharper",
            contrasts=digits.contrast("largest eigenvalue of the loss's Hessian", "lower", of="sharpness"),
        ),
        Check(
            "And it is right about more of the digits held out, after as many gradients.",
            "compares favourably in generalisation error and training time, in the abstract",
            expected=False,
            tried="the same: all are within half a percent of one another, momentum ahead",
            contrasts=digits.contrast("accuracy on digits held out, %", "higher", of="accuracy"),
        ),
    ]


def _walk(rate: Any, noise: Any, key: Key) -> dict[str, Any]:
    return {
        "steps": _WALK,
        "step_size": rate,
        "noise": noise,
        "batch_value_and_grad": jax.value_and_grad(_height),
        "key": key,
    }


def _batches(key: Key) -> dict[str, Any]:
    return {"batch_value_and_grad": jax.value_and_grad(lambda params, batch: loss(params, *batch)), "key": key}


def _first(batch: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[0], batch)


def _others(params: PyTree, batch: PyTree, grads: PyTree) -> dict[str, PyTree]:
    return {"inputs": jax.tree.map(lambda x: x[1:], batch)}


def _in_widths(point: Float[Array, "2"]) -> Float[Array, "2"]:
    """Half the squared distance from the narrow valley and from the wide one, in units of each's width."""
    apart = jnp.stack([(point - _NARROW) / 0.1, point - _WIDE])
    return jnp.sum(apart**2, axis=1) / 2


def _height(point: Float[Array, "2"], tilt: Float[Array, "2"]) -> Float[Array, ""]:
    """The lower of the two bowls, smoothly so at the ridge, and noise in the slope."""
    return -0.05 * jax.nn.logsumexp(-_in_widths(point) / 0.05) + tilt @ point


def _ending(make: Callable[..., optax.GradientTransformation], length: int = 1) -> Callable[[Any, Key], Array]:
    """1 where a run, in steps of so many gradients, ends in the wide valley; 6 starts of 10 are in the other one."""

    def run(setting: Any, key: Key) -> Array:
        start_key, rule_key, noise_key = jax.random.split(key, 3)
        rule = make(*jnp.atleast_1d(setting), rule_key)
        point, _ = trained(
            lambda point, tilts: _height(point, tilts[0]),
            0.1 * jax.random.normal(start_key, (2,)),
            rule,
            lambda step, key: _NOISE * jax.random.normal(key, (length, 2)),
            _GRADIENTS // length,
            key=noise_key,
            extra=_others,
        )
        apart = _in_widths(point)
        return (apart[1] < apart[0]).astype(jnp.float32)

    return run


def _classified(make: Callable[[Key], optax.GradientTransformation], length: int, key: Key) -> dict[str, Array]:
    """Train in steps of so many batches; of the weights at the end "loss" and "accuracy" on digits held out."""
    data_key, start_key, batch_key, rule_key, probe_key = jax.random.split(key, 5)
    images, labels, unseen, answers = split_digits(data_key, _TRAIN)
    rows = jax.random.randint(batch_key, (_SEEN // length, length, _BATCH), 0, _TRAIN)
    begin = network(start_key, _SIZES)
    params, _ = trained(
        lambda params, batch: loss(params, *_first(batch)),
        begin,
        make(rule_key),
        lambda step, key: (images[rows[step]], labels[rows[step]]),
        len(rows),
        key=batch_key,
        extra=_others,
    )
    # Of weights that diverged there is no Hessian.
    better = loss(params, unseen, answers) < loss(begin, unseen, answers)
    params = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, begin)
    product = hessian_product(loss)
    found = top_eigenvalues(
        lambda vector: product(params, vector, images, labels), params, count=1, steps=20, key=probe_key
    )
    right = jnp.mean(jnp.argmax(logits(params, unseen), axis=1) == answers)
    return {"loss": loss(params, unseen, answers), "accuracy": 100 * right, "sharpness": found.values[0]}


__all__ = ["PAPER", "checks"]
