"""Weight conditioning of a small network of the digits: rates that it trains at, speed, and condition numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import weight_conditioning
from .._problems._classifier import cross_entropy, digits
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
_TRAIN, _BATCH, _CHUNK, _UNEVEN = 1200, 64, 10, 1.0


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train with and without at three rates, plain descent and batches of 64.

    Args:
        key: of all randomness.
        full: six times the seeds and eight times the steps. The paper's image and neural-field networks are not
            trained.

    Returns:
        Three checks.
    """
    seeds, chunks = (12, 160) if full else (2, 20)
    curves, before, after = (np.asarray(x) for x in _measure(key, seeds, chunks))
    ends = 100 * curves[..., -1].min(0)  # the worst seed, by rate and method
    good = np.nanmean(100 * curves, axis=0) >= 95
    steps = np.where(good.any(-1), (good.argmax(-1) + 1) * _CHUNK, np.inf).min(0)
    start, left = np.exp(np.log(before).mean(0)), np.exp(np.median(np.log(after), 0).mean(0))
    best = int(np.argmax(ends.min(1)))
    return [
        Check(
            "The condition number of matrices whose rows are uneven falls.",
            "the aim of the method, stated in words",
            f"condition number {start[0]:.0f}, geometric mean over {_SIZES[1]} × {_SIZES[0]}, square and final "
            f"matrices of Gaussian rows with log-normal norms, {seeds} seeds",
            "at most half of the raw matrices'",
            bool(start[0] <= start[1] / 2),
            f"raw matrices: {start[1]:.0f}",
        ),
        Check(
            "Training converges over a wide range of rates.",
            "stated in words (a smoother loss landscape, stronger convergence)",
            f"worst test accuracy over rates {_RATES} and {seeds} seeds {ends[:, 0].min():.1f} %",
            "at least 90 %",
            bool(ends[:, 0].min() >= 90 > ends[:, 1].min()),
            f"plain weights: {ends[:, 1].min():.1f} %; at their best rate {_RATES[best]}: {ends[best, 1]:.1f} %",
        ),
        Check(
            "Training is faster, and its matrices end better conditioned, than with plain weights.",
            "stated in words and figures",
            f"95 % test accuracy after {steps[0]:.0f} steps at best; condition number at the end {left[0]:.0f}",
            "at most 0.8 of the steps, and half the condition number",
            bool(np.isfinite(steps[0]) and steps[0] <= 0.8 * steps[1] and left[0] <= left[1] / 2),
            f"plain weights: {steps[1]:.0f} steps; condition number {left[1]:.0f}",
            expected=False,
            tried="rates from 0.05 to 5, rows even and uneven at the start: at equal rates plain weights lower the "
            "training loss faster up to rate 1; a square matrix's condition number is that of its smallest singular "
            "value, which scaling rows hardly moves. The text was read in the abstract only",
        ),
    ]


def _draw(key: Key, uneven: float) -> list[Array]:
    out = []
    for layer_key, inputs, outputs in zip(jax.random.split(key, len(_SIZES) - 1), _SIZES, _SIZES[1:]):
        direction, size = jax.random.split(layer_key)
        scale = jnp.exp(uneven * jax.random.normal(size, (outputs, 1))) / jnp.sqrt(float(inputs))
        out.append(jax.random.normal(direction, (outputs, inputs)) * scale)
    return out


def _measure(key: Key, seeds: int, chunks: int) -> tuple[Array, Array, Array]:
    """Accuracy ``[seeds, rates, methods, chunks]``; mean condition numbers at an uneven start and at the end."""
    images, labels = digits()
    order = jax.random.permutation(jax.random.key(3), len(images))
    x, y = images[order] - 0.3, labels[order]

    def network(params: list[Array], inputs: Array) -> Array:
        for weight in params[:-1]:
            inputs = jnp.tanh(inputs @ weight.T)
        return inputs @ params[-1].T

    def conditions(params: list[Array]) -> Float[Array, ""]:
        return jnp.exp(jnp.mean(jnp.stack([jnp.log(jnp.linalg.cond(w)) for w in params])))

    def run(key: Key, rate: Array, plain: Array) -> tuple[Array, Array]:
        def used(params: list[Array]) -> list[Array]:
            return jax.tree.map(lambda c, w: jnp.where(plain, w, c), weight_conditioning(params), params)

        def step(params: PyTree, key: Key) -> tuple[PyTree, None]:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            grads = jax.grad(lambda p: cross_entropy(network(used(p), x[rows]), y[rows]))(params)
            return jax.tree.map(lambda w, g: w - rate * g, params, grads), None

        def chunk(params: PyTree, keys: Key) -> tuple[PyTree, Array]:
            params, _ = jax.lax.scan(step, params, keys)
            right = jnp.argmax(network(used(params), x[_TRAIN:]), axis=1) == y[_TRAIN:]
            return params, jnp.mean(right.astype(jnp.float32))

        params, curve = jax.lax.scan(chunk, _draw(key, 0.0), jax.random.split(key, (chunks, _CHUNK)))
        return curve, conditions(used(params))

    def seed(key: Key) -> tuple[Array, Array, Array]:
        over = jax.vmap(jax.vmap(run, in_axes=(None, None, 0)), in_axes=(None, 0, None))
        curves, after = over(key, jnp.array(_RATES), jnp.array([False, True]))
        raw = _draw(key, _UNEVEN)
        return curves, jnp.stack([conditions(weight_conditioning(raw)), conditions(raw)]), after

    curves, before, after = jax.jit(jax.vmap(seed))(jax.random.split(key, seeds))
    return curves, before, after.reshape(-1, 2)[None]
