"""Metrics of a confusion matrix as losses."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core import check_callable, check_floats, check_rate, check_shape, divide, fault

Counts = tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""], Float[Array, ""]]
Metric = Callable[[Array, Array, Array, Array], Array]


def _accuracy(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    return divide(tp + tn, tp + fp + fn + tn)


def _f1(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    return divide(2 * tp, 2 * tp + fp + fn)


def _balanced_accuracy(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    return (divide(tp, tp + fn) + divide(tn, tn + fp)) / 2


def _geometric_mean(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    square = divide(tp, tp + fn) * divide(tn, tn + fp)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "balanced accuracy": _balanced_accuracy,
    "f1": _f1,
    "geometric mean": _geometric_mean,
}


def metric_loss(
    metric: Literal["accuracy", "balanced accuracy", "f1", "geometric mean"] | Metric, *, slope: float = 73.0
) -> Callable[[Float[Array, " rows"], Int[Array, " rows"] | Bool[Array, " rows"]], Float[Array, ""]]:
    r"""Make a loss of any metric of the confusion matrix, by sharpened probabilities.

    .. math::
        \tilde p=\sigma\big(L(p-\tfrac12)\big),\quad \mathrm{TP}=\sum y\tilde p,\quad \mathrm{FP}=\sum(1-y)\tilde p,
        \quad \mathrm{FN}=\sum y(1-\tilde p),\quad \mathrm{TN}=\sum(1-y)(1-\tilde p)

    and the loss is 1 less the metric of these, which tends to that at the threshold ½ as L grows. The metric is one of
    the batch: on small batches its mean is not the metric of all rows.

    With L = 73 a probability beyond 0.1 or 0.9 has no gradient to speak of, and none at all in single precision near 0
    and 1: begin with probabilities near ½, or with some epochs of cross-entropy.

    Args:
        metric: one of the names, or ``metric(tp, fp, fn, tn) -> scalar``, higher better, at most 1.
        slope: L, 73 by default, the authors'.

    Returns:
        ``loss(probabilities [rows], labels [rows]) -> scalar``. What a batch does not define (a recall without a
        positive) counts as 0, without a gradient.

    Raises:
        ValueError: an unknown name, a slope that is none; when called: shapes that differ, and, where they are
            not traced, logits for probabilities, or labels other than 0 and 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> loss = estimate.metric_loss("f1")
        >>> round(float(loss(jnp.array([0.9, 0.8, 0.1]), jnp.array([1, 0, 0]))), 3)
        0.333

    Cost: a few operations a row.

    References:
        - Han, Moniz and Chawla, "AnyLoss: Transforming Classification Metrics into Loss Functions", 2024,
          https://arxiv.org/abs/2405.14745 (there divided by the training set's size also in a batch; here by the
          batch's)
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise fault(expected=f"a metric among {', '.join(METRICS)}", got=repr(metric), fix="Or pass a function.")
        measured = METRICS[metric]
    else:
        measured = check_callable(metric, what="metric", fix="Pass metric(tp, fp, fn, tn) -> scalar.", takes=4)
    check_rate(slope, what="slope")

    def loss(
        probabilities: Float[Array, " rows"], labels: Int[Array, " rows"] | Bool[Array, " rows"]
    ) -> Float[Array, ""]:
        check_floats(probabilities, what="probabilities", fix="Pass the sigmoid of the logits.")
        labels = check_shape(
            labels, jnp.shape(probabilities), what="labels", fix="Pass one probability and one label of 0 or 1 a row."
        )
        _check_known(probabilities, lambda p: (p >= 0) & (p <= 1) | jnp.isnan(p), "probabilities from 0 to 1")
        _check_known(labels, lambda y: (y == 0) | (y == 1), "labels of 0 and 1")
        sharp = jax.nn.sigmoid(slope * (probabilities - 0.5))
        positive = labels.astype(sharp.dtype)
        counts = [
            jnp.sum(one * other)
            for one, other in (
                (positive, sharp),
                (1 - positive, sharp),
                (positive, 1 - sharp),
                (1 - positive, 1 - sharp),
            )
        ]
        return 1 - measured(*counts)

    return loss


def _check_known(values: Array, allowed: Callable[[Array], Array], expected: str) -> None:
    if isinstance(values, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():
        wrong = values[~allowed(values)]
    if wrong.size:
        raise fault(
            expected=expected, got=f"{wrong[0]:g}", fix="Pass jax.nn.sigmoid(logits), and 1 for what is positive."
        )


__all__ = ["METRICS", "metric_loss"]
