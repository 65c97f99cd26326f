r"""Sensitivity analysis on the loss landscape: derivatives up to the third as sensitivities of the inputs.

A small tanh network learns a response that rises with some inputs, falls with others, bends with one and ignores the
rest. Derivatives of its squared loss along each input are put beside Spearman's rank correlation, and beside plainer
sensitivities: the slope of the prediction at the mean input, and the coefficients of a linear regression.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.stats import spearmanr

from ..._core import Key
from ...diagnose import sensitivity
from ...fields import MLP
from ...follow import fit
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="loss-sensitivity",
    title="Sensitivity Analysis On Loss Landscape",
    year=2024,
    link="https://arxiv.org/abs/2403.01128",
    rooms=("diagnose",),
    row=119,
    read="abstract",
)

# Strength of the monotone inputs, with sign.
_SLOPES = np.array([1.0, -0.8, 0.65, -0.5, 0.4, -0.3, 0.2, -0.1])
_FEATURES = 11


def _response(xs: Float[Array, "rows 11"]) -> Float[Array, " rows"]:
    return jnp.sinh(xs[:, :8]) @ jnp.asarray(_SLOPES, xs.dtype) / 1.5 + 0.5 * (xs[:, 8] ** 2 - 1)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that the loss's second derivatives rank the inputs as Spearman's do, and see what those cannot.

    Args:
        key: of all randomness.
        full: more rows and steps. The paper's tables of data are not attempted: the response is known in both.

    Returns:
        Two checks.
    """
    rows, steps = (8000, 10_000) if full else (2000, 1500)
    data_key, model_key, fit_key = jax.random.split(key, 3)
    xs = jax.random.normal(data_key, (rows, _FEATURES))
    ys = _response(xs)
    ys = (ys - jnp.mean(ys)) / jnp.std(ys)
    start = MLP(_FEATURES, width=64, depth=2, activation="tanh", key=model_key)

    def predict(model: MLP, x: Float[Array, "11"]) -> Float[Array, ""]:
        return model(jnp.zeros(()), x, None)[0]

    def loss(model: MLP, batch: tuple[Array, Array]) -> Float[Array, ""]:
        return jnp.mean((jax.vmap(lambda x: predict(model, x))(batch[0]) - batch[1]) ** 2)

    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    model = fit(loss, start, (xs, ys), optimizer=optimizer, steps=steps, batch_size=128, key=fit_key).model

    record = sensitivity(lambda x, y: 0.5 * (predict(model, x) - y) ** 2, xs[:500], ys[:500])
    second = np.abs(np.asarray(record.signed.value))[1]
    slope = np.abs(np.asarray(jax.jit(jax.grad(lambda x: predict(model, x)))(jnp.mean(xs, axis=0))))
    design = np.asarray(xs, float)
    linear = np.abs(np.linalg.lstsq(design - design.mean(0), np.asarray(ys, float))[0])
    spearman = np.abs(spearmanr(np.asarray(xs), np.asarray(ys)).statistic[:-1, -1])
    sizes = {
        "second derivatives": second,
        "slope of the prediction at the mean input": slope,
        "linear regression": linear,
    }
    agreement = {name: float(spearmanr(size[:8], spearman[:8]).statistic) for name, size in sizes.items()}
    first, third = np.asarray(record.magnitude.value)[[0, 2]]

    @jax.jit
    def error(inputs: Array) -> Array:
        return jnp.mean((jax.vmap(lambda x: predict(model, x))(inputs) - ys) ** 2)

    mixed = jax.random.permutation(jax.random.fold_in(data_key, 1), xs)
    permuted = np.array([float(error(xs.at[:, place].set(mixed[:, place]))) for place in range(_FEATURES)])
    sizes = {"permuting the input": permuted, "Spearman": spearman, "linear regression": linear}
    influence = {"derivatives of the loss, the worse of first and third": min(_ranked(first), _ranked(third))}
    influence |= {name: _ranked(size) for name, size in sizes.items()}
    return [
        Check(
            "Second derivatives of the loss along the inputs tell what Spearman's correlation tells.",
            "stated in words: similar when drawn",
            contrasts=Contrast(
                "rank agreement with Spearman's sizes over eight monotone inputs", agreement, "higher", threshold=0.95
            ),
            expected=False,
            tried="four keys; the loss's first derivatives and the network before training agree less, but a linear "
            "regression as well",
            moved_from="against the loss's first derivatives, then against the network before training",
        ),
        Check(
            "First and third derivatives of the loss tell how much each input matters.",
            "stated in words: they indicate the extent of each variable's influence",
            contrasts=Contrast(
                "rank agreement with the shares of the response's variance, over all eleven inputs",
                influence,
                "higher",
                margin=0.02,
            ),
            expected=False,
            tried="nearer than Spearman's and a linear regression, which miss the input that enters by its square; "
            "permuting each input of the network in turn says as much",
            moved_from="influence by second derivatives of an input that enters by its square, five times that of one "
            "that does not enter, which Spearman's misses; the paper does not say so",
        ),
    ]


def _ranked(sizes: np.ndarray) -> float:
    """Agreement of a measure with what each input adds to the variance of the response, squares of normals and all."""
    added = _SLOPES**2 * (np.exp(2) - 1) / 2 / 1.5**2
    return float(spearmanr(sizes, [*added, 0.5**2 * 2, 0.0, 0.0]).statistic)


__all__ = ["PAPER", "checks"]
