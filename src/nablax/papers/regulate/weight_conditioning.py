"""Weight conditioning of a small network of the digits: rates that it trains at, speed, and condition numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import weight_conditioning
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits
from .._problems._training import trained
from .._problems._tuning import Run, tuned
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
_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_GRID = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ADAM = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_TRAIN, _BATCH, _EVERY, _UNEVEN = 1200, 64, 10, 1.0
_HALF = 0.301  # half the condition number, in powers of ten


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train with and without, batches of 64, by plain descent and by Adam.

    Args:
        key: of all randomness.
        full: four times the keys and eight times the steps. The paper's image and neural-field networks are not
            trained.

    Returns:
        Three checks.
    """
    keys, steps = (16, 1600) if full else (4, 200)
    matrix_key, wide_key, tune_key = jax.random.split(key, 3)
    raw = jax.vmap(lambda k: _draw(k, _UNEVEN))(jax.random.split(matrix_key, keys))
    uneven = {"conditioned": jax.vmap(_conditioned)(raw), "plain weights": jax.vmap(_condition)(raw)}
    sgd = {
        "conditioned": _run(optax.sgd, steps, weight_conditioning),
        "weight normalisation": _run(optax.sgd, steps, _normalised, start=_with_gains),
        "plain weights": _run(optax.sgd, steps, lambda weights: weights),
    }

    def decades(run: Run) -> Array:
        """Rates are half a decade apart."""
        over = jax.vmap(jax.vmap(run, (0, None)), (None, 0))
        found = jax.jit(over)(jnp.array(_RATES), jax.random.split(wide_key, keys // 2))["accuracy"]
        return jnp.sum(found >= 90, axis=1) / 2

    methods = sgd | {"plain weights, Adam": _run(optax.adam, steps, lambda weights: weights)}
    grids: dict[str, Sequence[float]] = dict.fromkeys(sgd, _GRID)
    grids["plain weights, Adam"] = _ADAM
    runs = tuned(methods, grids, "lower", key=tune_key, keys=keys, of="reached")
    return [
        Check(
            "The condition number of matrices whose rows are uneven falls.",
            "the aim of the method, stated in words",
            contrasts=Contrast("log10 of the condition number, mean over matrices", uneven, "lower", margin=_HALF),
        ),
        Check(
            "Training converges over a wide range of rates.",
            "stated in words (a smoother loss landscape, stronger convergence)",
            contrasts=Contrast(
                f"decades of rates from {_RATES[0]} to {_RATES[-1]} with a test accuracy of 90 %",
                {name: decades(run) for name, run in sgd.items()},
                "higher",
                margin=0.5,
            ),
            moved_from="worst accuracy over rates of 0.5, 2 and 5, which lie where conditioned weights do best, beside "
            "plain weights alone",
        ),
        Check(
            "Training is faster, and its matrices end better conditioned, than with plain weights.",
            "stated in words and figures",
            contrasts=[
                runs.contrast("steps to a test accuracy of 95 %, at the best rate", "lower", of="reached", ratio=0.8),
                runs.contrast(
                    "log10 of the condition number at the end, the same mean", "lower", of="end", margin=_HALF
                ),
            ],
            expected=False,
            tried="rates from 0.05 to 5, rows even and uneven at the start: at equal rates plain weights lower the "
            "training loss faster up to rate 1; a square matrix's condition number is that of its smallest singular "
            "value, which scaling rows hardly moves. The text was read in the abstract only",
            moved_from="the same at the best of three rates on the judging keys, one order of the images for all; and "
            "without weight normalisation, which the paper names, beside it",
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


def _conditioned(params: list[Array]) -> Float[Array, ""]:
    return _condition(weight_conditioning(params))


def _with_gains(weights: list[Array]) -> list[tuple[Array, Array]]:
    """What weight normalisation trains, beginning with the same weights: directions of rows, and their norms."""
    return [(weight, jnp.linalg.norm(weight, axis=1, keepdims=True)) for weight in weights]


def _normalised(params: list[tuple[Array, Array]]) -> list[Array]:
    return [gain * weight for (_, gain), weight in zip(params, weight_conditioning([w for w, _ in params]))]


def _run(
    optimiser: Callable[[Array], optax.GradientTransformation],
    steps: int,
    used: Callable[[Any], list[Array]],
    *,
    start: Callable[[list[Array]], Any] = list,
) -> Run:
    """Steps to the goal, all of them where it is not reached; the last accuracy in percent, and condition number."""

    def run(rate: Float[Array, ""], key: Key) -> dict[str, Array]:
        order_key, start_key, batch_key = jax.random.split(key, 3)
        images, labels = digits()
        order = jax.random.permutation(order_key, len(images))
        x, y = images[order] - 0.3, labels[order]

        def right(params: Any, *_: object) -> Array:
            answers = jnp.argmax(_network(used(params), x[_TRAIN:]), axis=1)
            return 100 * jnp.mean((answers == y[_TRAIN:]).astype(jnp.float32))

        params, accuracies = trained(
            lambda params, rows: cross_entropy(_network(used(params), x[rows]), y[rows]),
            start(_draw(start_key, 0.0)),
            optimiser(rate),
            lambda step, key: jax.random.randint(key, (_BATCH,), 0, _TRAIN),
            steps,
            key=batch_key,
            record=right,
            every=_EVERY,
        )
        reached = accuracies >= 95
        first = jnp.where(jnp.any(reached), _EVERY * (jnp.argmax(reached) + 1), steps)
        return {"reached": first, "accuracy": accuracies[-1], "end": _condition(used(params))}

    return run


__all__ = ["PAPER", "checks"]
