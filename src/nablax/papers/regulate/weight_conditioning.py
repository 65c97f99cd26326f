"""Weight conditioning of a small network of the digits: rates that it trains at, speed, and condition numbers."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import weight_conditioning
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="weight-conditioning",
    title="Weight Conditioning for Smooth Optimization of Neural Networks",
    year=2024,
    link="https://arxiv.org/abs/2409.03424",
    rooms=("regulate",),
    row=226,
    read="abstract",
)

_SIZES = (64, 64, 64, 10)
_RATES = (0.5, 2.0, 5.0)
_TRAIN, _BATCH, _EVERY, _UNEVEN = 1200, 64, 10, 1.0
_HALF = 0.301  # half the condition number, in powers of ten


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train with and without at three rates, plain descent and batches of 64.

    Args:
        key: of all randomness.
        full: four times the seeds and eight times the steps. The paper's image and neural-field networks are not
            trained.

    Returns:
        Three checks.
    """
    seeds, steps = (12, 1600) if full else (3, 200)
    images, labels = digits()
    order = jax.random.permutation(jax.random.key(3), len(images))
    run = jax.jit(jax.vmap(partial(_run, x=images[order] - 0.3, y=labels[order], steps=steps)))
    found = run(jax.random.split(key, seeds))

    def contrast(metric: str, of: str, direction: Literal["lower", "higher"], **decides: Any) -> Contrast:
        return Contrast(metric, dict(zip(("conditioned", "plain weights"), found[of].T)), direction, **decides)

    return [
        Check(
            "The condition number of matrices whose rows are uneven falls.",
            "the aim of the method, stated in words",
            contrasts=contrast("log10 of the condition number, mean over matrices", "uneven", "lower", margin=_HALF),
        ),
        Check(
            "Training converges over a wide range of rates.",
            "stated in words (a smoother loss landscape, stronger convergence)",
            contrasts=contrast(f"worst test accuracy over rates {_RATES}, %", "worst", "higher", threshold=90.0),
        ),
        Check(
            "Training is faster, and its matrices end better conditioned, than with plain weights.",
            "stated in words and figures",
            contrasts=[
                contrast("steps to a test accuracy of 95 %, at the best rate", "reached", "lower", ratio=0.8),
                contrast("log10 of the condition number at the end, the same mean", "end", "lower", margin=_HALF),
            ],
            expected=False,
            tried="rates from 0.05 to 5, rows even and uneven at the start: at equal rates plain weights lower the "
            "training loss faster up to rate 1; a square matrix's condition number is that of its smallest singular "
            "value, which scaling rows hardly moves. The text was read in the abstract only",
        ),
    ]


def _draw(key: Key, uneven: float) -> list[Array]:
    """Matrices of Gaussian rows with log-normal norms."""
    out = []
    for layer_key, inputs, outputs in zip(jax.random.split(key, len(_SIZES) - 1), _SIZES, _SIZES[1:]):
        direction, size = jax.random.split(layer_key)
        scale = jnp.exp(uneven * jax.random.normal(size, (outputs, 1))) / jnp.sqrt(float(inputs))
        out.append(jax.random.normal(direction, (outputs, inputs)) * scale)
    return out


def _network(params: list[Array], inputs: Array) -> Array:
    for weight in params[:-1]:
        inputs = jnp.tanh(inputs @ weight.T)
    return inputs @ params[-1].T


def _condition(params: list[Array]) -> Float[Array, ""]:
    return jnp.mean(jnp.stack([jnp.log10(jnp.linalg.cond(w)) for w in params]))


def _run(key: Key, *, x: Array, y: Array, steps: int) -> dict[str, Float[Array, "2"]]:
    """Of conditioned and of plain weights, from the same starts."""

    def learn(plain: Array, rate: Array) -> tuple[Array, Array]:
        def used(params: list[Array]) -> list[Array]:
            return jax.tree.map(lambda c, w: jnp.where(plain, w, c), weight_conditioning(params), params)

        def right(params: list[Array], *_: object) -> Array:
            answers = jnp.argmax(_network(used(params), x[_TRAIN:]), axis=1)
            return 100 * jnp.mean((answers == y[_TRAIN:]).astype(jnp.float32))

        params, accuracies = trained(
            lambda params, rows: cross_entropy(_network(used(params), x[rows]), y[rows]),
            _draw(key, 0.0),
            optax.sgd(rate),
            lambda step, key: jax.random.randint(key, (_BATCH,), 0, _TRAIN),
            steps,
            key=key,
            record=right,
            every=_EVERY,
        )
        return accuracies, _condition(used(params))

    over = jax.vmap(jax.vmap(learn, in_axes=(None, 0)), in_axes=(0, None))
    accuracies, ends = over(jnp.array([False, True]), jnp.array(_RATES))  # [methods, rates, times], [methods, rates]
    reached = accuracies >= 95
    first = jnp.where(jnp.any(reached, axis=2), _EVERY * (jnp.argmax(reached, axis=2) + 1), steps)
    raw = _draw(key, _UNEVEN)
    return {
        "uneven": jnp.stack([_condition(weight_conditioning(raw)), _condition(raw)]),
        "worst": jnp.min(accuracies[:, :, -1], axis=1),
        "reached": jnp.min(first, axis=1),
        "end": jnp.mean(ends, axis=1),
    }


__all__ = ["PAPER", "checks"]
