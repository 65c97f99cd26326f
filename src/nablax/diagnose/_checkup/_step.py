"""Does the step do what its quadratic model says, and how far along it does the model hold?"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import canonical_convolutions, check_callable, fault, table
from ...calculus import Estimate, SoftmaxRadius, softmax_radius
from ._along import (
    Moved,
    Point,
    directional,
    exact,
    row_error,
)

MULTIPLES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# The model is said to hold where its error is below this share of what it predicts, slope and curvature apart.
SHARE = 0.25


class StepQuality(eqx.Module):
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
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.")
    return _step(loss, losses, logits, params, update, args, tuple(multiples))


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
    derivatives: tuple[Float[Array, " one"], Float[Array, " one"]],
    rows: RowChanges | None,
    radius: SoftmaxRadius | None,
    point: Point,
    update: Float[Array, " dim"],
    multiples: tuple[float, ...],
    total: int | None = None,
) -> StepQuality:
    """The step's record, of the loss and its derivatives along the update; ``rows`` are some of ``total``."""
    if 1.0 not in multiples or list(multiples) != sorted(set(multiples)) or multiples[0] <= 0:
        raise fault(
            expected="positive, ascending multiples with 1 among them",
            got=str(multiples),
            fix="Leave multiples at its default, or add 1.",
        )
    slope, curvature = derivatives[0][0], derivatives[1][0]
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
        lost=_lost(point, update),
    )


def _lost(point: Point, update: Float[Array, " dim"]) -> Float[Array, ""]:
    moving = update != 0
    # The barrier keeps the compiler from calculating in more digits than the parameters have.
    rounded = jax.lax.optimization_barrier(point.tree(point.vector + update))
    same = point.like(rounded, "parameters") == point.vector
    return jnp.sum(moving & same) / jnp.maximum(jnp.sum(moving), 1)
