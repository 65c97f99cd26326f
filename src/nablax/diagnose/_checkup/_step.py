"""Does the step do what its quadratic model says, and how far along it does the model hold?"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, Finding, canonical_convolutions, check_callable, described, fault, table
from ..._pages import Card, Series, figure, markup, plot
from ...calculus import Estimate, SoftmaxRadius, softmax_radius
from ._along import Along, Moved, Point, directional, exact, row_error
from ._part import Part, Setting, percent
from ._shared import Shared

MULTIPLES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# The model is said to hold where its error is below this share of what it predicts, slope and curvature apart.
SHARE = 0.25


class StepQuality(AbstractRecord):
    r"""A step against its quadratic model :math:`q(s)=s\,g\cdot u+\tfrac12s^2u^{\top}Hu`; changes in units of loss.

    Standard errors are over the rows of the batch, the step held fixed; NaN where row losses are not known.

    Attributes:
        slope: :math:`g\cdot u`.
        curvature: :math:`u^{\top}Hu`.
        predicted: change of the loss at the step by the model, negative for a decrease.
        actual: change of the loss at the step.
        loss: before the step.
        multiples: of the step at which the loss was evaluated.
        changes: of the loss there.
        holds: largest tested multiple up to which the model's error stays within a quarter of its terms; 0 if
            the smallest fails. The largest multiple means at least that.
        best: tested multiple with the lowest loss, 0 if all raise it.
        model_best: multiple at which the model is lowest; infinite without positive curvature.
        radius: multiple up to which cross-entropy's Taylor series along the step converges (linearised logits,
            worst row); NaN where no logits were given.
        rows_beyond: share of rows whose own radius is below 1; NaN likewise.
        lost: of the elements that the update is to change, the share that stay as they are, rounded to their own type.
    """

    slope: Estimate
    curvature: Estimate
    predicted: Estimate
    actual: Estimate
    loss: Float[Array, ""]
    multiples: Float[Array, " multiples"]
    changes: Float[Array, " multiples"]
    holds: Float[Array, ""]
    best: Float[Array, ""]
    model_best: Float[Array, ""]
    radius: Float[Array, ""]
    rows_beyond: Float[Array, ""]
    lost: Float[Array, ""]

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        lines = [
            ("loss", self.loss, "loss"),
            ("change by this step, predicted", self.predicted, "loss"),
            ("change by this step, actual", self.actual, "loss"),
            ("quadratic model holds up to", self.holds, "× step"),
            ("lowest loss among multiples at", self.best, "× step"),
            ("lowest by the model at", self.model_best, "× step"),
        ]
        if not jnp.isnan(self.radius):
            lines.append(("softmax series converges up to", self.radius, "× step"))
            lines.append(("rows beyond their radius", self.rows_beyond, "share"))
        if self.lost > 0:
            lines.append(("elements whose change rounds to nothing", self.lost, "share"))
        return lines

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table("The step", self.rows())


def step_quality(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    update: PyTree,
    *args: Any,
    losses: Callable[..., Float[Array, " rows"]] | None = None,
    logits: Callable[..., Float[Array, "... classes"]] | None = None,
    multiples: Sequence[float] = MULTIPLES,
) -> StepQuality:
    r"""Compare a step with its quadratic model, at several multiples of it.

    .. math::
        L(\theta+su)-L(\theta) \;\approx\; s\,g\cdot u+\tfrac12s^2\,u^{\top}Hu, \qquad
        |\text{error}| \le \tfrac14\big(|s\,g\cdot u|+\tfrac12s^2|u^{\top}Hu|\big)

    Args:
        loss: ``loss(params, *args) -> scalar``.
        params: any pytree; inexact leaves move.
        update: what the optimiser adds to the parameters, shaped like the inexact leaves.
        *args: passed on.
        losses: ``losses(params, *args) -> [rows]`` whose mean the loss is; gives standard errors.
        logits: ``logits(params, *args) -> [..., classes]`` of a cross-entropy; gives the radius.
        multiples: of the step, ascending, 1 among them; powers of two from 1/8 to 16 by default.

    Returns:
        A `StepQuality`.

    Raises:
        ValueError: the multiples are not positive and ascending, or 1 is not among them; the loss is not one real
            number, or the update has other leaves than the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import step_quality
        >>> record = step_quality(lambda p: jnp.sum(p**2), jnp.ones(2), -0.5 * jnp.ones(2))
        >>> float(record.predicted.value), float(record.actual.value), float(record.model_best)
        (-1.5, -1.5, 2.0)

    Cost:
        A forward pass a multiple, about four for slope and curvature, five more with row
        losses, and one JVP of the logits.

    References:
        - See :func:`nablax.calculus.softmax_radius` for the radius.
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.", takes=1 + len(args))
    try:
        chosen = tuple(float(multiple) for multiple in multiples)
    except (TypeError, ValueError):
        fix = "Leave multiples at its default, or add 1."
        raise fault(expected="multiples, a sequence of numbers", got=described(multiples), fix=fix) from None
    return _step(loss, losses, logits, params, update, args, chosen)


@eqx.filter_jit
@canonical_convolutions
def _step(
    loss: Callable,
    losses: Callable | None,
    logits: Callable | None,
    params: PyTree,
    update: PyTree,
    args: tuple,
    multiples: tuple[float, ...],
) -> StepQuality:
    point = Point.of(params)
    value, u = point.loss(loss, *args), point.like(update, "an update")
    at, along = directional(value, point.vector, {"update": u[None]})
    rows = None
    if losses is not None:
        each = point.losses(losses, *args)
        before, by_row = directional(each, point.vector, {"update": u[None]})
        rows = RowChanges(by_row["update"][0][0], by_row["update"][1][0], each(point.vector + u) - before)
    radius = None if logits is None else softmax_radius(point.take(logits, *args))(point.vector, u)
    return against_model(value, at, along["update"], rows, radius, point, u, multiples)


class RowChanges(NamedTuple):
    """Derivatives of the rows' losses along the step, and their actual changes."""

    slopes: Float[Array, " rows"]
    curvatures: Float[Array, " rows"]
    changes: Float[Array, " rows"]


def against_model(
    value: Moved,
    at: Float[Array, ""],
    derivatives: Along,
    rows: RowChanges | None,
    radius: SoftmaxRadius | None,
    point: Point,
    update: Float[Array, " dim"],
    multiples: tuple[float, ...],
    total: int | None = None,
    gradient: Float[Array, " dim"] | None = None,
) -> StepQuality:
    """The step's record, of the loss and its derivatives along the update; ``rows`` are some of ``total``.

    Elements without ``gradient`` do not count as lost: what moves them is decay.
    """
    if 1.0 not in multiples or list(multiples) != sorted(set(multiples)) or multiples[0] <= 0:
        raise fault(
            expected="positive, ascending multiples with 1 among them",
            got=str(multiples),
            fix="Leave multiples at its default, or add 1.",
        )
    slope, curvature = derivatives.slopes[0], derivatives.curvatures[0]
    s = jnp.asarray(multiples, at.dtype)
    changes = jax.lax.map(lambda multiple: value(point.vector + multiple.astype(update.dtype) * update), s) - at
    predicted = s * slope + s**2 / 2 * curvature
    # Below rounding nothing can be seen, and nothing is claimed against the model.
    rounding = 64 * jnp.finfo(at.dtype).eps * jnp.abs(at)
    error = jnp.abs(changes - predicted)
    good = error <= SHARE * (jnp.abs(s * slope) + s**2 / 2 * jnp.abs(curvature)) + rounding
    reach = jnp.sum(jnp.cumprod(good.astype(int)))
    one = multiples.index(1.0)
    lowest = jnp.argmin(jnp.where(jnp.isnan(changes), jnp.inf, changes))
    estimates = [exact(x) for x in (slope, curvature, predicted[one], changes[one])]
    if rows is not None:
        samples = (rows.slopes, rows.curvatures, rows.slopes + rows.curvatures / 2, rows.changes)
        estimates = [Estimate(e.value, row_error(x, total)) for e, x in zip(estimates, samples)]
    nan = jnp.full((), jnp.nan, at.dtype)
    return StepQuality(
        slope=estimates[0],
        curvature=estimates[1],
        predicted=estimates[2],
        actual=estimates[3],
        loss=at,
        multiples=s,
        changes=changes,
        holds=jnp.where(reach > 0, s[jnp.maximum(reach - 1, 0)], 0),
        best=jnp.where(changes[lowest] < 0, s[lowest], 0),
        model_best=jnp.where(curvature > 0, -slope / jnp.where(curvature > 0, curvature, 1), jnp.inf),
        radius=nan if radius is None else radius.smallest(),
        rows_beyond=nan if radius is None else jnp.mean(radius.radius < 1),
        lost=_lost(point, update, gradient),
    )


def _lost(point: Point, update: Float[Array, " dim"], gradient: Float[Array, " dim"] | None) -> Float[Array, ""]:
    moving = update != 0 if gradient is None else (update != 0) & (gradient != 0)
    # The barrier keeps the compiler from calculating in more digits than the parameters have.
    rounded = jax.lax.optimization_barrier(point.tree(point.vector + update))
    same = point.like(rounded, "parameters") == point.vector
    return jnp.sum(moving & same) / jnp.maximum(jnp.sum(moving), 1)


def measure(shared: Shared) -> StepQuality | None:
    """Of a check-up, where there is a step."""
    if shared.update is None or shared.along is None:
        return None
    point, u, rows, logits = shared.point, shared.update, None, shared.asked.logits
    if shared.rows is not None:
        slopes, curvatures = shared.rows.along["update"]
        changes = shared.rows.losses(point.vector + u) - shared.rows.before
        rows = RowChanges(slopes[0], curvatures[0], changes)
    radius = None if logits is None else softmax_radius(point.take(logits, shared.batch))(point.vector, u)
    return against_model(
        shared.value, shared.loss, shared.along, rows, radius, point, u, MULTIPLES, shared.total, shared.gradient
    )


def judge(part: StepQuality, setting: Setting) -> list[Finding]:
    """Whether the step lowers the loss, and how far its model holds."""
    found = []
    actual, predicted = float(part.actual.value), float(part.predicted.value)
    if not np.isfinite(actual):
        text = (
            f"After this step the loss is {float(part.loss) + actual:.4g}: do not make it. Lower the rate or clip it."
        )
        return [Finding("fault", "step", text)]
    if level := setting.levels.get("still"):
        text = "The step is nothing, though there are gradients: look at the rate, the schedule and what is masked."
        return [Finding(level, "step", text)]
    if level := setting.levels.get("uphill"):
        text = (
            f"The step points up the gradient (cosine {setting.signs.uphill:+.2f}), as with a sign turned round: what "
            "is added to the parameters has to be minus a rate times it. Optax's scale_by_… want optax.scale(-rate) "
            "behind them, and rates are positive."
        )
        return [Finding(level, "direction", text)]
    best, holds, lost = float(part.best), float(part.holds), float(part.lost)
    error = float(part.actual.standard_error)
    rounding = 64 * jnp.finfo(part.loss.dtype).eps * abs(float(part.loss))
    if actual > rounding:
        where = f"of the multiples tried, {best:g} times the step lowers it most" if best else "so does every multiple"
        text = (
            f"This step raises the loss on its own batch by {actual:.3g}{'' if np.isnan(error) else f' ± {error:.1g}'} "
            f"(the quadratic model said {predicted:+.3g}); {where}."
        )
        found.append(Finding(setting.levels.get("raises", "note"), "step", text))
    elif level := setting.levels.get("lost"):
        text = (
            f"The step is lost in the parameters' rounding: {percent(lost)} of the elements that it is to change stay "
            "as they are. Keep a float32 copy of the parameters and add the steps to that."
        )
        found.append(Finding(level, "step", text))
    elif holds < 1:
        model = f"it holds up to {holds:g} of it" if holds else "not even an eighth of it is within the model"
        text = (
            f"The step goes beyond its quadratic model ({model}): predicted {predicted:+.3g}, actual {actual:+.3g}. "
            "Conclusions from curvature are worth little at this step size."
        )
        found.append(Finding("note", "step", text))
    radius = float(part.radius)
    if radius < 1:
        text = (
            f"The step is {1 / radius:.3g} times the convergence radius of the softmax's series ("
            f"{percent(float(part.rows_beyond))} of rows are beyond theirs): beyond it the model above says nothing."
        )
        found.append(Finding("note", "softmax", text))
    return found


def card(part: StepQuality, setting: Setting) -> Card:
    """The loss along the step, and its model."""
    title = "Along the step"
    s, changes = np.asarray(part.multiples, float), np.asarray(part.changes, float)
    if not np.isfinite(changes[s <= 1]).all():
        return Card(title, "–", "change of the loss", "The loss is not finite along the step.")
    # Of the far multiples only those are drawn that leave the near ones visible.
    near = np.abs(changes[s <= 1])
    shown = (s <= 1) | (np.abs(changes) <= 12 * max(float(np.max(near)), 1e-30))
    end = float(s[shown].max())
    fine = np.linspace(0, end, 60)
    model = fine * float(part.slope.value) + fine**2 / 2 * float(part.curvature.value)
    marks = [(1.0, "this step")]
    if math.isfinite(part.radius) and float(part.radius) < end:
        marks.append((float(part.radius), "softmax radius"))
    if 0 < float(part.holds) < end:
        marks.append((float(part.holds), "model holds to here"))
    values = np.concatenate([[0.0], changes[shown]])
    low, high = float(np.min(values)), float(np.max(values))
    gap = max(high - low, 1e-30)
    picture = plot(
        [
            Series("quadratic model", fine, model),
            Series("actual", np.concatenate([[0.0], s[shown]]), values, "both"),
        ],
        x_label="multiple of the step",
        y_label="change of the loss",
        vertical=marks,
        y_range=(low - 0.4 * gap, high + 0.4 * gap),
    )
    said = f"The model holds up to {figure(part.holds)} times the step; "
    said += f"the loss is lowest at {figure(part.best)} times (of those tried)."
    if not math.isnan(part.radius):
        said += f" Softmax radius: {figure(part.radius)} steps."
    small = f"change of the loss, predicted {float(part.predicted.value):+.3g}"
    return Card(title, f"{float(part.actual.value):+.3g}", small, said, markup(picture))


PART = Part("step", measure, judge, card)
