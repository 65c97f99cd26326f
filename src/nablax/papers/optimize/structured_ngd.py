r"""Structured natural gradient descent in half precision beside K-FAC, and on equal steps beside AdamW.

A network of the digits, averaged over 2 by 2 pixels, in batches of 32. K-FAC here is the usual one: averages of the
covariances of layers' inputs and errors, inverted with damping each tenth step; in half precision its averages, what is
decomposed and Cholesky's factors are halves. The paper's rule is by gradients alone, fitted as seldom.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...optimize import structured_ngd
from .._contrast import Contrast
from .._problems._classifier import loss, network, pooled_digits
from .._problems._training import trained
from .._problems._tuning import Runs, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="structured-ngd",
    title="Simplifying Momentum-based Positive-definite Submanifold Optimization with Applications to Deep Learning",
    year=2023,
    link="https://arxiv.org/abs/2302.09738",
    rooms=("optimize",),
    row=221,
    read="code",
)

_BATCH, _STEPS, _EVERY, _DAMPING, _LEAST, _MOST = 32, 1000, 10, 1e-3, 1e-6, 10.0
_HALVES, _KFAC_HALVES = "structured NGD in halves", "K-FAC in halves"
_WHOLE, _KFAC = "structured NGD", "K-FAC"
_LOSS = "log10 of the loss of the digits trained on, nats"

Make = Callable[[Any], optax.GradientTransformation]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train for 1,000 steps in half precision and in single.

    Args:
        key: of weights and batches.
        full: the digits as they are, and twice the keys. The paper's networks on images are at neither scale.

    Returns:
        Three checks.
    """
    finite_key, loss_key = jax.random.split(key)
    fits, dampings = (0.03, 0.1, 0.3, 0.9), (1e-4, 1e-3, 1e-2, 1e-1)
    rates, fine = np.logspace(-3.2, -1.2, 5).tolist(), np.logspace(-3.2, 0.2, 20).tolist()
    ends = {1e-4: "hardly any damping", 0.9: "a fit is no longer than 1"}

    def compared(methods: dict[str, Make], grid: Any, key: Key, *, by: str) -> Runs:
        runs = {name: _run(make, full) for name, make in methods.items()}
        direction: Any = "lower" if by == "loss" else "higher"
        return tuned(runs, grid, direction, key=key, keys=40 if full else 20, of=by, ends=ends)

    def ours(dtype: DTypeLike) -> Make:
        return lambda setting: structured_ngd(
            setting[0], rows=_BATCH, fit_rate=setting[1], every=_EVERY, factor_dtype=dtype
        )

    def kfac(dtype: DTypeLike) -> Make:
        return lambda setting: _kfac(setting[0], setting[1], dtype)

    finite = compared(
        {
            _HALVES: lambda rate: ours(jnp.bfloat16)((rate, 0.01)),
            _KFAC_HALVES: lambda rate: kfac(jnp.bfloat16)((rate, _DAMPING)),
        },
        rates,
        finite_key,
        by="finite",
    )
    fitted = {_HALVES: ours(jnp.bfloat16), _WHOLE: ours(jnp.float32)}
    damped = {_KFAC_HALVES: kfac(jnp.bfloat16), _KFAC: kfac(jnp.float32)}
    plain: dict[str, Make] = {"AdamW": optax.adamw, "momentum": lambda rate: optax.sgd(rate, 0.9)}
    grid = dict.fromkeys(fitted, (rates, fits)) | dict.fromkeys(damped, (rates, dampings)) | dict.fromkeys(plain, fine)
    losses = compared(fitted | damped | plain, grid, loss_key, by="loss")

    def against(first: str, others: tuple[str, ...], **decides: Any) -> Contrast:
        runs = losses._replace(results={first: losses.results[first]} | losses.results)
        return runs.contrast(_LOSS, "lower", of="loss", against=others, **decides)

    return [
        Check(
            "In half precision and at the authors' damping its weights are finite after 1,000 steps, every time; those "
            "of K-FAC by Cholesky's factors in halves are not.",
            "stable in half precision for want of inverses, in the abstract",
            expected=False,
            tried="K-FAC's averages, damped matrices and factors in halves, on inputs of 16 pixels and 32 units",
            contrasts=finite.contrast("share of runs that end finite", "higher", of="finite", threshold=0.99),
        ),
        Check(
            "Its loss in half precision is below that of K-FAC, damping and rate tuned, and of AdamW in single "
            "precision.",
            "second-order training in low precision, in the abstract",
            expected=False,
            tried="rates over two decades and fits from 0.03 to 0.9, each tenth step; gradients alone, where K-FAC "
            "looks into the layers",
            contrasts=against(_HALVES, (_KFAC_HALVES, "AdamW")),
        ),
        Check(
            "In single precision its loss is below AdamW's and momentum's after as many steps, and K-FAC's.",
            "second-order optimisers for deep learning, in the abstract",
            expected=False,
            tried="the same",
            contrasts=against(_WHOLE, ("AdamW", "momentum", _KFAC)),
        ),
    ]


def _run(make: Make, full: bool) -> Callable[[Any, Key], dict[str, Array]]:
    def run(setting: Any, key: Key) -> dict[str, Array]:
        weight_key, batch_key = jax.random.split(key)
        images, labels = pooled_digits(full)

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            rows = jax.random.randint(key, (_BATCH,), 0, len(images))
            return images[rows], labels[rows]

        params, _ = trained(
            lambda params, batch: loss(params, *batch),
            network(weight_key, (images.shape[1], 32, 10)),
            make(setting),
            batches,
            _STEPS,
            key=batch_key,
            extra=_covariances,
        )
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
        end = jnp.nan_to_num(loss(params, images, labels), nan=_MOST, posinf=_MOST)
        return {"finite": finite.astype(jnp.float32), "loss": jnp.log10(jnp.clip(end, _LEAST, _MOST))}

    return run


def _covariances(params: PyTree, batch: tuple[Array, Array], grads: PyTree) -> dict[str, PyTree]:
    """Of each layer's inputs, a one among them for the bias, and of its errors; computed where a rule asks for them."""
    images, labels = batch

    def forward(taps: list[Array]) -> tuple[Float[Array, ""], list[Array]]:
        x, seen = images, []
        for number, ((weight, bias), tap) in enumerate(zip(params, taps)):
            seen.append(jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1))
            x = x @ weight + bias[None] + tap
            x = jnp.tanh(x) if number < len(params) - 1 else x
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, labels)), seen

    taps = [jnp.zeros((len(images), len(bias))) for _, bias in params]
    errors, seen = jax.grad(forward, has_aux=True)(taps)
    rows = len(images)
    # The loss is a mean: a row's own error is so many times its share.
    return {"inputs": [(x.T @ x / rows, rows * e.T @ e) for x, e in zip(seen, errors)]}


class _KfacState(NamedTuple):
    step: Array
    averages: PyTree
    inverses: PyTree


def _kfac(rate: Any, damping: Any, dtype: DTypeLike) -> optax.GradientTransformationExtraArgs:
    """K-FAC with momentum 0.9: averages, damped matrices and their factors in one type, arithmetic in single."""

    def init(params: PyTree) -> _KfacState:
        eyes = [tuple(jnp.eye(side, dtype=dtype) for side in (len(w) + 1, len(b))) for w, b in params]
        singles = jax.tree.map(lambda x: x.astype(jnp.float32), eyes)
        return _KfacState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, eyes), singles)

    def update(
        grads: PyTree, state: _KfacState, params: PyTree = None, *, inputs: PyTree = None, **extra: Any
    ) -> tuple[PyTree, _KfacState]:
        averages = jax.tree.map(lambda old, new: (0.95 * old + 0.05 * new).astype(dtype), state.averages, inputs)
        seen = 1 - 0.95 ** (state.step + 1)

        def invert(average: Array) -> Array:
            damped = average.astype(jnp.float32) / seen + jnp.sqrt(damping) * jnp.eye(len(average))
            lower = jnp.linalg.cholesky(damped.astype(dtype).astype(jnp.float32))
            lower = lower.astype(dtype).astype(jnp.float32)
            return jax.scipy.linalg.cho_solve((lower, True), jnp.eye(len(lower)))

        inverses = jax.lax.cond(
            state.step % _EVERY == 0, lambda: jax.tree.map(invert, averages), lambda: state.inverses
        )

        def one(pair: tuple[Array, Array], sides: tuple[Array, Array]) -> tuple[Array, Array]:
            whole = sides[0] @ jnp.concatenate([pair[0], pair[1][None]]) @ sides[1]
            return whole[:-1], whole[-1]

        steps = [one(pair, sides) for pair, sides in zip(grads, inverses)]
        return steps, _KfacState(state.step + 1, averages, inverses)

    rule = optax.GradientTransformationExtraArgs(init, update)
    return optax.chain(rule, optax.trace(0.9), optax.scale_by_learning_rate(rate))


__all__ = ["PAPER", "checks"]
