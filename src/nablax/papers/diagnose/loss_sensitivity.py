r"""Sensitivity analysis on the loss landscape: derivatives up to the third as sensitivities of the inputs.

A small tanh network learns a response that rises with some inputs, falls with others, bends with one and ignores the
rest. Derivatives of its squared loss along each input are put beside Spearman's rank correlation. First derivatives of
the loss were meant to be the baseline that fails, but at the first key they rank the inputs too; the network before
training, which stood for it next, is no rival. The baselines are the plainest sensitivities there are: the slope of the
network's prediction at the mean input, and the coefficients of a linear regression.
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

# Strength of the monotone inputs, with sign; the ninth input enters by its square, the last two not at all.
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

    def loss(model: MLP, batch: tuple[Array, Array], *, key: Key) -> Float[Array, ""]:
        return jnp.mean((jax.vmap(lambda x: predict(model, x))(batch[0]) - batch[1]) ** 2)

    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    model = fit(loss, start, (xs, ys), optimizer=optimizer, steps=steps, batch_size=128, key=fit_key).model

    def by_loss(model: MLP) -> np.ndarray:
        record = sensitivity(lambda x, y: 0.5 * (predict(model, x) - y) ** 2, xs[:500], ys[:500])
        return np.abs(np.asarray(record.signed.value))

    learned = by_loss(model)
    slope = np.abs(np.asarray(jax.jit(jax.grad(lambda x: predict(model, x)))(jnp.mean(xs, axis=0))))
    design = np.asarray(xs, float)
    linear = np.abs(np.linalg.lstsq(design - design.mean(0), np.asarray(ys, float))[0])
    spearman = np.abs(spearmanr(np.asarray(xs), np.asarray(ys)).statistic[:-1, -1])

    def agreement(sizes: np.ndarray) -> float:
        return float(spearmanr(sizes[:8], spearman[:8]).statistic)

    second, plain, fitted = agreement(learned[1]), agreement(slope), agreement(linear)
    first, third = agreement(learned[0]), agreement(learned[2])
    quadratic, ignored = 8, [9, 10]
    seen = learned[1][quadratic] / learned[1][ignored].max()
    unseen = spearman[quadratic] / spearman[ignored].max()
    return [
        Check(
            statement="Second derivatives of the loss along the inputs tell what Spearman's correlation tells.",
            stated="stated in words: similar when drawn",
            measured=f"rank agreement with its sizes over eight monotone inputs {second:.2f} (first "
            f"derivatives {first:.2f}, third {third:.2f})",
            criterion="rank agreement of at least 0.95, which no baseline reaches",
            holds=bool(second >= 0.95 > max(plain, fitted)),
            baseline=f"slope of the prediction at the mean input {plain:.2f}; linear regression {fitted:.2f}",
            expected=False,
            tried="keys 0 to 3: second derivatives 1.00 each time, and so is a linear regression. Less agree the slope "
            "of the prediction at the mean input (0.95 at key 0, then 0.90, 0.88, 0.93), the loss's first derivatives "
            "(0.98, then 0.43, 0.64, 0.83) and the network untrained (0.19, 0.48, 0.55 at keys 0 to 2). The agreement "
            "is there, the contrast with something plainer is not",
        ),
        Check(
            statement="Derivatives of the loss show dependence that no monotone measure sees.",
            stated="stated in words: they indicate the extent of each variable's influence",
            measured=f"an input that enters by its square: {seen:.0f} times as much at second order as any that "
            "does not enter",
            criterion="at least 5 times as much",
            holds=bool(seen >= 5 > unseen),
            baseline=f"Spearman's correlation: {unseen:.1f} times",
        ),
    ]


__all__ = ["PAPER", "checks"]
