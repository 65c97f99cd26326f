"""Is the learning rate beyond what the curvature allows: top eigenvalue over this optimiser's own threshold."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Finding,
    Key,
    Level,
    UpdateRule,
    canonical_convolutions,
    check_callable,
    check_count,
    check_key,
    fault,
    table,
)
from ..._pages import Card, Series, figure, markup, plot
from ...calculus import Estimate
from ._along import Point, directional, ratio, row_error
from ._curvature import TRACE_PROBES, Curvature, curvature, hessian, top_direction, trace_probe, within
from ._part import Part, Setting, percent
from ._shared import Shared
from ._signs import TO_TELL, Signs

# Top eigenvalue over threshold from which the edge is called near.
NEAR = 0.8


class Sharpness(AbstractRecord):
    r"""How near a step is to the edge of stability.

    Attributes:
        ratio: top eigenvalue over threshold, no unit: above 1 the quadratic model of the loss diverges. Its standard
            error is over the rows of the batch (:math:`v^{\top}H_iv` at the eigenvector), where row losses were
            given; NaN where the rule is not known.
        headroom: factor by which the learning rate may grow before the ratio is 1; infinite without positive
            curvature.
        sharpness: top eigenvalue of :math:`P^{-1}H` (of H for gradient descent and momentum), units of loss over
            parameters squared; of H itself where the rule is not known. NaN where the rates have no common factor.
        threshold: at the present learning rate, unit of ``sharpness``.
        residual: an eigenvalue lies within this distance of the ratio's; unit of ``ratio``.
        decay: largest share of the threshold that decay of weights takes, no unit; it is in the ratio.
        trace: of :math:`R^{1/2}HR^{1/2}`, no unit; standard error over six random probes, beside the eigenvalues found;
            in a check-up each probe is asked about a quarter of the rows, of whose losses the loss is the mean or sum.
            At a minimum of all rows stochastic gradient descent asks for at most 2 of it.
        rule: what is known of the optimiser.
    """

    ratio: Estimate
    headroom: Estimate
    sharpness: Estimate
    threshold: Float[Array, ""]
    residual: Float[Array, ""]
    decay: Float[Array, ""]
    trace: Estimate
    rule: UpdateRule

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        return [
            ("top eigenvalue / threshold (stable below 1)", self.ratio, "1"),
            ("learning-rate headroom", self.headroom, "×"),
            ("sharpness", self.sharpness, "loss / params²"),
            ("threshold of this optimiser", self.threshold, "loss / params²"),
            ("eigenvalue's residual / threshold", self.residual, "1"),
            ("trace of rate × Hessian", self.trace, "1"),
            *([("share of the threshold that decay takes", self.decay, "1")] if self.decay > 0 else []),
        ]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table("Edge of stability", self.rows(), [f"optimiser: {self.rule.name()}"])


def sharpness(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: Any,
    rule: UpdateRule,
    key: Key,
    steps: int = 20,
    losses: Callable[..., Float[Array, " rows"]] | None = None,
) -> Sharpness:
    r"""Compare the curvature with the largest that the optimiser can bear.

    .. math::
        \lambda_{\max}\big(R^{1/2}HR^{1/2}\big) \;\Big/\;
        \{2,\; 2+2\beta,\; \tfrac{2+2\beta}{1+2\beta},\; \tfrac{2+2\beta_1}{1-\beta_1}\},
        \qquad R=\eta P^{-1}

    for gradient descent, heavy ball, Nesterov and the Adam family: in the usual form
    :math:`\lambda_{\max}(P^{-1}H)` against :math:`2/\eta`, :math:`(2+2\beta)/\eta` and
    :math:`(2+2\beta_1)/((1-\beta_1)\eta)`. The preconditioner is taken as standing still.

    Args:
        loss: ``loss(params, *args) -> scalar``.
        params: any pytree; inexact leaves move.
        *args: passed on to the loss.
        rule: of the optimiser, from :func:`update_rule`.
        key: for the random start and the trace's probes.
        steps: Hessian products to spend on the eigenvalue, 20 by default.
        losses: ``losses(params, *args) -> [rows]`` whose mean the loss is; gives the standard error over rows.

    Returns:
        A `Sharpness`.

    Raises:
        ValueError: fewer than one product, or a loss that is not one real number.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.diagnose import sharpness, update_rule
        >>> loss = lambda p: jnp.sum(jnp.array([1.0, 5.0]) * p**2) / 2
        >>> optimizer, p = optax.sgd(0.1), jnp.ones(2)
        >>> rule = update_rule(optimizer, optimizer.init(p), p, jax.grad(loss)(p))
        >>> record = sharpness(loss, p, rule=rule, key=jax.random.key(0))
        >>> round(float(record.sharpness.value), 3), round(float(record.headroom.value), 3)
        (5.0, 4.0)

    Cost:
        ``steps`` Hessian products (nine forward passes each), and six passes of second order forward mode for the
        trace, one more for the standard error.

    References:
        - Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", 2021,
          https://arxiv.org/abs/2103.00065
        - Cohen et al., "Adaptive Gradient Methods at the Edge of Stability", 2022,
          https://arxiv.org/abs/2207.14484
        - Wu and Su, "The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent", 2023,
          https://arxiv.org/abs/2305.17490 (after the abstract: the trace). Others who repeat it,
          https://github.com/da-kozlov/ml-portfolio, take it, as here, against 2 over the rate, but of the outer
          products of the output's gradients, which is the Hessian's where every row is fitted; one row a step
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.", takes=1 + len(args))
    check_key(key)
    check_count(steps, what="steps")
    if not isinstance(rule, UpdateRule):
        fix = "Pass rule=update_rule(optimizer, opt_state, params, gradient)."
        raise fault(expected="rule, an UpdateRule", got=f"a {type(rule).__name__}", fix=fix)
    return _sharpness(loss, losses, params, args, rule, key, steps)


@eqx.filter_jit
@canonical_convolutions
def _sharpness(
    loss: Callable, losses: Callable | None, params: PyTree, args: tuple, rule: UpdateRule, key: Key, steps: int
) -> Sharpness:
    point = Point.of(params)
    start, draw = jax.random.split(key)
    value, rates = point.loss(loss, *args), point.like(rule.rates, "rates")
    found = curvature(hessian(value, point.vector), rates, count=1, steps=steps, key=start)
    # One after another: drawing takes several times the memory of what is drawn.
    probes = jax.lax.map(trace_probe(found, rates, draw), jnp.arange(TRACE_PROBES))
    _, along = directional(value, point.vector, {"probes": probes})
    rows = None
    if losses is not None:
        top = {"top": top_direction(found, rates)[None]}
        rows = directional(point.losses(losses, *args), point.vector, top)[1]["top"][1][0]
    return edge(rule, found, along["probes"][1], rows)


def edge(
    rule: UpdateRule,
    found: Curvature,
    traces: Float[Array, " probes"],
    rows: Float[Array, " rows"] | None,
    total: int | None = None,
    decay: Float[Array, " dim"] | None = None,
) -> Sharpness:
    """Put the top eigenvalue beside the threshold.

    ``rows`` holds the curvature along its direction of some of the ``total`` rows; by default these are all.
    """
    largest = found.values[0]
    error = jnp.full_like(largest, jnp.nan) if rows is None else row_error(rows, total)
    top = Estimate(largest, error.astype(largest.dtype))
    threshold = rule.threshold.astype(largest.dtype)
    share = ratio(top, threshold)
    positive = share.value > 0
    safe = jnp.where(positive, share.value, 1)
    headroom = Estimate(
        jnp.where(jnp.isnan(share.value), jnp.nan, jnp.where(positive, 1 / safe, jnp.inf)),
        jnp.where(positive, share.standard_error / safe**2, jnp.nan),
    )
    # Without a rule the rates are ones, and the eigenvalue that of the Hessian.
    rate = jnp.where(jnp.isnan(threshold), 1, rule.learning_rate.astype(largest.dtype))
    return Sharpness(
        ratio=share,
        headroom=headroom,
        sharpness=ratio(top, rate),
        threshold=threshold / rate,
        residual=found.residuals[0] / threshold,
        decay=jnp.zeros_like(threshold) if decay is None else jnp.nan_to_num(jnp.max(decay) / threshold),
        trace=Estimate.from_samples(within(found, decay) + traces),
        rule=rule,
    )


def measure(shared: Shared) -> Sharpness:
    """Of a check-up."""
    top = None if shared.rows is None else shared.rows.along["top"].curvatures[0]
    return edge(shared.rule, shared.curvature, shared.probed, top, shared.total, shared.decay)


def judge(part: Sharpness, setting: Setting) -> list[Finding]:
    """Whether the rate is right: what the rehearsal says of it, and how near the edge of stability is."""
    signs, found = setting.signs, []
    if level := setting.levels.get("rises") or setting.levels.get("too high"):
        text = f"The learning rate is too high: {_rehearsed(signs)}{_edge(part)}. {_advice(part, setting)}"
        found.append(Finding(level, "learning rate", text))
    elif level := setting.levels.get("too low"):
        text = f"The learning rate is too low: {_rehearsed(signs)}. {_advice(part, setting)}"
        found.append(Finding(level, "learning rate", text))
    elif level := setting.levels.get("flat"):
        found.append(Finding(level, "flat", _flat(level, signs)))
    if not found or not np.isfinite(part.ratio.value):
        found.append(Finding("note", "learning rate", _note(part)))
    if level := setting.levels.get("decay"):
        text = (
            f"Decay forgets the weights: it alone takes {percent(signs.decay)} of what this optimiser can bear. Lower "
            "decay, or decay times rate; behind a momentum the weights shrink by about twice that share each step."
        )
        found.append(Finding(level, "decay", text))
    return found


def _flat(level: Level, signs: Signs) -> str:
    text = f"The loss is flat: {_rehearsed(signs)}, and no other rate that was tried moves it. "
    if level == "note":
        text += "It has come as far as it goes, or it is stuck."
        return f"{text} {TO_TELL}" if math.isnan(signs.chance) else text
    return f"{text}Look for saturated or dead units, for a gradient that is stopped, and for a batch that says nothing."


def _rehearsed(signs: Signs) -> str:
    """What became of the loss when this batch was taken again and again."""
    if not math.isfinite(signs.rise) or signs.rise >= 1e29:
        return "rehearsed on this batch the loss leaves the numbers"
    verb = "rises" if signs.rise > 0 else "falls"
    return f"rehearsed on this batch the loss {verb} by {percent(abs(signs.rise))}"


def _advice(part: Sharpness, setting: Setting) -> str:
    """The rate at which it went better, where there is one."""
    rate = float(part.rule.learning_rate)
    if setting.advised is None:
        return "No rate that was tried does better: look at data, start and loss."
    at = f"times {setting.advised:.3g}" if math.isnan(rate) else f"{rate * setting.advised:.2g} in place of {rate:.2g}"
    later = "" if setting.advised > 1 else "; if it is to be this high later, warm it up"
    return f"Try {at}, at which the rehearsal ends lower{later}."


def _edge(part: Sharpness) -> str:
    reached = float(part.ratio.value)
    if not math.isfinite(reached):
        return ""
    error = "" if np.isnan(part.ratio.standard_error) else f" ± {float(part.ratio.standard_error):.2g}"
    return f"; curvature times rate is {reached:.3g}{error} of the largest that {part.rule.name()} can bear"


def _note(part: Sharpness) -> str:
    """How near the edge is."""
    reached = float(part.ratio.value)
    if not np.isfinite(reached) and np.isfinite(part.rule.threshold):
        return (
            "How near the edge of stability is cannot be said: the curvature is not finite. Look for a square root, a "
            "norm or |x| at 0 (second derivatives), or a curvature too large for the loss's type."
        )
    if np.isnan(reached):
        return f"How near the edge of stability is cannot be said: {part.rule.name()}."
    said = _edge(part)[2:]
    if reached > NEAR:
        return f"At the edge of stability: {said}. Full-batch training hovers here; there is no room for a larger rate."
    return f"{said[0].upper()}{said[1:]}."


def card(part: Sharpness, setting: Setting) -> Card:
    """The eigenvalues over the threshold."""
    title = "Edge of stability"
    reached = float(part.ratio.value)
    if math.isnan(reached):
        return Card(title, "–", said=part.rule.name())
    eigenvalues = np.asarray(setting.eigenvalues) / float(part.rule.threshold)
    picture = plot(
        [Series("eigenvalues over threshold", np.arange(1, len(eigenvalues) + 1), eigenvalues, "stems")],
        x_label="eigenvalue, largest first",
        y_label="share of the threshold",
        horizontal=[(1.0, "edge of stability")],
        y_range=(min(0.0, float(eigenvalues.min())), 1.15 * max(1.0, float(eigenvalues.max()))),
    )
    error = "" if np.isnan(part.ratio.standard_error) else f"± {float(part.ratio.standard_error):.2g} "
    small = f"{error}of the threshold; headroom {figure(part.headroom.value, '×')}"
    said = (
        "Top eigenvalue of rate × Hessian in this optimiser's own metric, over the largest that it can bear. "
        "Below 1 steps settle, above 1 they overshoot."
    )
    return Card(title, f"{reached:.3g}", small, said, markup(picture))


PART = Part("sharpness", measure, judge, card)
