"""Do several losses pull against one another, and which of them does the step in the end pay for?"""

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
    canonical_convolutions,
    nonzero,
    table,
)
from ..._pages import Card, Cell, Table, figure, heat, markup
from ...calculus import Estimate
from ._along import Point, row_count
from ._losses import Losses, gradients_of, named, side_by_side
from ._part import Part, Setting
from ._shared import Shared

# Cosine between gradients, and ratio of their lengths, from which they are mentioned.
OPPOSED, UNEVEN = -0.1, 10.0
# And the cosine from which they are where no standard error is known.
FAR_OPPOSED = -0.5
# Share of itself by which a step may raise a loss before it is a fault whatever becomes of the sum, which is all that
# the bank of runs tells.
DEAR = 0.01

# Groups of rows for the jackknife, and gradients of groups held at once, in numbers.
GROUPS = 8
# Share of the losses by which their means over groups may miss them.
MISMATCH = 0.1
NUMBERS = 2**26
NO_ERRORS = "no standard errors: no groups of rows to be had, or their gradients are too large to be held at once"


class Conflicts(AbstractRecord):
    """Gradients of several losses against one another, and what the step does to each.

    Standard errors are by the jackknife over groups of rows; NaN where the batch cannot be cut into groups, or where
    the gradients of two groups are too large to be held at once.

    Attributes:
        values: of the losses.
        norms: of their gradients, units of the loss over units of the parameters.
        cosines: between the gradients, no unit.
        first_order: change of each loss by the update, to first order, in its unit; NaN without an update.
        changes: the actual change of each loss.
        weights: by which an aggregator combines the gradients at this step, no unit; NaN without one that has weights.
        names: of the losses.
    """

    values: Float[Array, " losses"]
    norms: Estimate
    cosines: Estimate
    first_order: Estimate
    changes: Float[Array, " losses"]
    weights: Float[Array, " losses"]
    names: tuple[str, ...] = eqx.field(static=True)

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        lines: list[tuple[str, Any, str]] = []
        for i, name in enumerate(self.names):
            lines.append((f"{name}: value", self.values[i], "loss"))
            lines.append((f"{name}: gradient norm", self._one(self.norms, i), "loss / params"))
            if not np.isnan(self.first_order.value[i]):
                lines.append((f"{name}: change, first order", self._one(self.first_order, i), "loss"))
                lines.append((f"{name}: change, actual", self.changes[i], "loss"))
            if not np.isnan(self.weights[i]):
                lines.append((f"{name}: weight in the direction", self.weights[i], "1"))
        for i, name in enumerate(self.names):
            for j in range(i):
                lines.append((f"cosine {self.names[j]}, {name}", self._one(self.cosines, (j, i)), "1"))
        return lines

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table("Several losses", self.rows(), [NO_ERRORS] if np.isnan(self.norms.standard_error).all() else [])

    def opposed(self) -> list[tuple[int, int]]:
        """Pairs of losses whose gradients point apart by two standard errors, or by far where these are not known."""
        cosines, errors = np.asarray(self.cosines.value), np.asarray(self.cosines.standard_error)
        found = []
        for i in range(len(self.names)):
            for j in range(i):
                known = not np.isnan(errors[i, j])
                apart = cosines[i, j] <= (OPPOSED if known else FAR_OPPOSED)
                if apart and not cosines[i, j] + 2 * errors[i, j] > 0:
                    found.append((i, j))
        return found

    def lowest(self) -> float:
        """The lowest such cosine; 0 where there is none."""
        return min((float(self.cosines.value[pair]) for pair in self.opposed()), default=0.0)

    def paying(self) -> list[int]:
        """Losses of such pairs that the step raises, by two standard errors where these are known."""
        slopes, errors = np.asarray(self.first_order.value), np.nan_to_num(np.asarray(self.first_order.standard_error))
        among = sorted({k for pair in self.opposed() for k in pair})
        return [k for k in among if slopes[k] > 2 * errors[k] and self.changes[k] > 0]

    @staticmethod
    def _one(estimate: Estimate, index: Any) -> Estimate:
        return Estimate(estimate.value[index], estimate.standard_error[index])


def conflicts(losses: Losses, params: PyTree, batch: PyTree, *, update: PyTree | None = None) -> Conflicts:
    r"""Compare the gradients of several losses with one another and with the step that is made.

    .. math::
        \cos_{kl}=\frac{g_k\cdot g_l}{\lVert g_k\rVert\,\lVert g_l\rVert},\qquad
        \Delta L_k\approx g_k\cdot u

    Args:
        losses: ``{name: loss(params, batch) -> scalar}``, a sequence of such losses, or one function that returns
            all of them as a vector.
        params: any pytree; inexact leaves move.
        batch: any pytree.
        update: what the optimiser in the end adds to the parameters, momentum and preconditioner included; None
            if only the gradients are compared.

    Returns:
        A `Conflicts`.

    Raises:
        ValueError: no losses, or losses that are neither scalars nor one vector.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import conflicts
        >>> losses = {"up": lambda p, b: p[0], "down": lambda p, b: -3 * p[0]}
        >>> record = conflicts(losses, jnp.ones(2), None, update=jnp.array([1.0, 0.0]))
        >>> float(record.cosines.value[0, 1]), record.first_order.value.tolist()
        (-1.0, [1.0, -3.0])

    Cost:
        Two gradients a loss, the second in groups of rows for the standard errors, and a forward pass of each.
    """
    return _conflicts(named(losses), params, batch, update)


@eqx.filter_jit
@canonical_convolutions
def _conflicts(losses: Any, params: PyTree, batch: PyTree, update: PyTree | None) -> Conflicts:
    point = Point.of(params)
    return compare(losses, point, batch, None if update is None else point.like(update, "an update"))


def compare(
    losses: Any,
    point: Point,
    batch: PyTree,
    update: Float[Array, " dim"] | None,
    weights: Float[Array, " losses"] | None = None,
) -> Conflicts:
    """The record, not compiled by itself."""
    names, together = side_by_side(losses, point, batch)
    function, count = point.take(together, batch), len(names)
    values, gradients = gradients_of(function, point.vector)
    norms, cosines = _norms_and_cosines(gradients @ gradients.T)
    nan = jnp.full((count,), jnp.nan, values.dtype)
    errors: tuple[Array, Array, Array] = (nan, jnp.full((count, count), jnp.nan, values.dtype), nan)
    groups = _group_count(batch, count * point.vector.size)
    if groups:
        errors = _errors(together, point, batch, update, groups, values)
    return Conflicts(
        values=values,
        norms=Estimate(norms, errors[0]),
        cosines=Estimate(cosines, errors[1]),
        first_order=Estimate(nan, nan) if update is None else Estimate(gradients @ update, errors[2]),
        changes=nan if update is None else function(point.vector + update) - values,
        weights=nan if weights is None else weights.astype(values.dtype),
        names=names,
    )


def _norms_and_cosines(gram: Float[Array, "losses losses"]) -> tuple[Array, Array]:
    norms = jnp.sqrt(jnp.diagonal(gram))
    safe = nonzero(norms)
    return norms, gram / (safe[:, None] * safe[None, :])


def _group_count(batch: PyTree, numbers: int) -> int:
    rows = _lengths(batch)
    most = min(GROUPS, NUMBERS // max(1, numbers))
    return most if rows and most >= 2 and min(rows) >= most else 0


def _lengths(batch: PyTree) -> list[int]:
    """Leading axes of the arrays of a batch, which need not be of one length; scalars are shared by all rows."""
    leaves = jax.tree.leaves(eqx.filter(batch, eqx.is_array))
    return [leaf.shape[0] for leaf in leaves if jnp.ndim(leaf)]


def _errors(
    together: Callable[..., Array],
    point: Point,
    batch: PyTree,
    update: Float[Array, " dim"] | None,
    groups: int,
    values: Float[Array, " losses"],
) -> tuple[Array, Array, Array]:
    count = values.shape[0]
    rowed, others = eqx.partition(batch, lambda leaf: eqx.is_array(leaf) and jnp.ndim(leaf) > 0)

    def cut(leaf: Array) -> Array:
        size = leaf.shape[0] // groups
        return leaf[: groups * size].reshape(groups, size, *leaf.shape[1:])

    def of_group(given: PyTree) -> tuple[Array, Array]:
        return gradients_of(point.take(together, eqx.combine(given, others)), point.vector)

    grouped = jax.tree.map(cut, rowed)
    try:
        jax.eval_shape(of_group, jax.tree.map(lambda leaf: leaf[0], grouped))
    except (TypeError, ValueError):
        # An array whose leading axis holds no rows cannot be cut.
        nan = jnp.full_like(values, jnp.nan)
        return nan, jnp.full((count, count), jnp.nan, values.dtype), nan
    each, flat = jax.lax.map(of_group, grouped)
    # Arrays of several lengths are terms of their own, each a mean over its rows; where the groups say otherwise, no
    # error is known.
    unlike = jnp.any(jnp.abs(jnp.mean(each, axis=0) - values) > MISMATCH * jnp.max(jnp.abs(values)))
    unlike = unlike & (row_count(batch) is None)
    flat = flat.reshape(groups * count, -1)
    gram = flat @ flat.T
    slopes = flat @ (jnp.zeros_like(point.vector) if update is None else update)
    # Leaving a group out is a weighting of the groups, so that no gradient is formed again.
    weights = (1 - jnp.eye(groups, dtype=gram.dtype)) / (groups - 1)
    left = jnp.einsum("wg,gkhl,wh->wkl", weights, gram.reshape(groups, count, groups, count), weights)
    norms, cosines = jax.vmap(_norms_and_cosines)(left)
    along = weights @ slopes.reshape(groups, count)

    def error(each: Array) -> Array:
        found = jnp.sqrt((groups - 1) * jnp.mean((each - jnp.mean(each, axis=0, keepdims=True)) ** 2, axis=0))
        return jnp.where(unlike, jnp.nan, found)

    return error(norms), error(cosines), error(along)


def measure(shared: Shared) -> Conflicts | None:
    """Of a check-up, where several losses were given."""
    losses = shared.asked.losses
    return None if losses is None else compare(losses, shared.point, shared.batch, shared.update, shared.weights)


def judge(part: Conflicts, setting: Setting) -> list[Finding]:
    """Which losses pull against one another, and which hardly counts."""
    found = []
    cosines, errors = np.asarray(part.cosines.value), np.asarray(part.cosines.standard_error)
    paying = part.paying()
    for i, j in part.opposed():
        known = not np.isnan(errors[i, j])
        text = (
            f"{part.names[j]} and {part.names[i]} pull against one another (cosine {cosines[i, j]:.2f}"
            f"{f' ± {errors[i, j]:.1g}' if known else ', standard error not known'})"
        )
        pays = [k for k in (i, j) if k in paying]
        for k in pays:
            text += f"; this step raises {part.names[k]} by {part.changes[k]:.3g}"
        text += ". An aggregator (UPGrad, PCGrad, MGDA) before the optimiser takes steps that no loss pays for."
        # Trading one loss for another is what a sum of losses asks for; undoing most of one is not.
        dear = any(part.changes[k] > DEAR * abs(part.values[k]) for k in pays)
        worst = setting.levels.get("conflict", "note") if cosines[i, j] == cosines.min() else "note"
        found.append(Finding("fault" if dear else worst, "conflict", text))
    norms = np.asarray(part.norms.value)
    if len(norms) and norms.max() > UNEVEN * norms.min():
        most, least = part.names[int(norms.argmax())], part.names[int(norms.argmin())]
        times = f"{norms.max() / norms.min():.3g} times" if norms.min() > 0 else "infinitely many times"
        text = f"The gradient of {most} is {times} that of {least}: {least} hardly counts. Weigh the losses."
        found.append(Finding("note", "conflict", text))
    return found


def card(part: Conflicts, setting: Setting) -> Card:
    """The cosines, and what the step does to each loss."""
    rows = [
        [
            Cell(name),
            Cell(figure(part.values[i])),
            Cell(figure(part.norms.value[i])),
            Cell(figure(part.first_order.value[i]), bad=bool(part.first_order.value[i] > 0)),
            Cell(figure(part.changes[i])),
        ]
        for i, name in enumerate(part.names)
    ]
    return Card(
        "Several losses",
        said="Cosines between their gradients, and what this step does to each.",
        picture=markup(heat(np.asarray(part.cosines.value), part.names)),
        table=Table(("loss", "value", "gradient", "change, first order", "change, actual"), rows),
    )


PART = Part("conflicts", measure, judge, card)
