"""How noisy is the gradient of this batch, and which batch size does that suggest?"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import (
    AbstractRecord,
    Finding,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_key,
    described,
    fault,
    nonzero,
    table,
)
from ..._pages import Card, Series, figure, markup, plot
from ...calculus import Estimate
from ._along import Point, directional, row_count
from ._curvature import hessian
from ._noise_estimates import Curved, curved_scale, jackknifed
from ._part import Part, Setting, percent
from ._row_gradients import (
    FEWEST,
    GROUPS,
    RowGradients,
    coupled,
    row_gradients,
)
from ._shared import Shared

# Noise scale over batch size from which the batch is called small; and its inverse for large.
SMALL, LARGE = 4.0, 16.0
# Noise over signal below which it is the rounding of rows that are all alike.
ALIKE = 1e-5
# Share by which the mean of the rows' losses may miss the loss, where all rows were taken, and where only a part.
MISMATCH, PARTLY = 0.05, 0.5
# Beside that, of rows of which only some were looked at: standard errors of their mean.
MISSED = 4.0


class NoiseScale(AbstractRecord):
    r"""Gradient noise :math:`\Sigma` (covariance of one row's gradient) against the true gradient G.

    Each scale is a batch size: at it the noise of the mean gradient is as large as the gradient. Standard errors are
    by the jackknife over rows (the curved one: over groups of rows, delta method). All are NaN where the rows are
    ``coupled``, or where the loss of a row by itself is.

    Attributes:
        simple: :math:`\operatorname{tr}\Sigma/\lVert G\rVert^2`, rows.
        preconditioned: :math:`\operatorname{tr}R\Sigma/G^{\top}RG`, R the optimiser's rates, rows; as ``simple``
            without them.
        curved: :math:`\operatorname{tr}H\Sigma/G^{\top}HG`, rows: the batch beyond which the best step along the
            gradient hardly grows. NaN where it was not asked for.
        noise: :math:`\operatorname{tr}R\Sigma`, and
        signal: :math:`G^{\top}RG`, both without bias, in units of R times ``unit`` squared; it can come out negative
            where noise hides it.
        unit: largest element of any row's gradient, loss over params: with it no scale of the loss takes the two
            out of the range of numbers.
        mean_loss: of the rows, each by itself; differs from the loss where that is no mean over rows.
        mean_error: its standard error.
        tail: longest gradient of a row over the median one, no unit.
        coupled: whether the given losses of rows depend on which other rows are there, as with batch normalisation or
            contrastive losses: a row by itself then has no gradient of its own.
        rows: how many rows were used.
        batch: rows in the batch.
    """

    simple: Estimate
    preconditioned: Estimate
    curved: Estimate
    noise: Estimate
    signal: Estimate
    unit: Float[Array, ""]
    mean_loss: Float[Array, ""]
    mean_error: Float[Array, ""]
    tail: Float[Array, ""]
    coupled: Bool[Array, ""]
    rows: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    @property
    def resolved(self) -> bool:
        """Whether the gradient stands out of its noise by two standard errors."""
        return bool(self.signal.value > 2 * self.signal.standard_error)

    @property
    def alike(self) -> bool:
        """Whether all rows looked at have the same gradient, up to rounding."""
        return bool(self.signal.value > 0) and abs(float(self.noise.value)) < ALIKE * float(self.signal.value)

    @property
    def at_least(self) -> float:
        """Lower bound of the preconditioned scale: the signal two standard errors above what was seen of it."""
        signal = max(float(self.signal.value), 0.0) + 2 * float(self.signal.standard_error)
        return float(self.noise.value) / signal if signal > 0 else math.nan

    @property
    def suggested(self) -> float:
        """Batch size that the preconditioned scale suggests, a power of two; a lower bound if not ``resolved``."""
        scale = float(self.noise.value) / float(self.signal.value) if self.resolved else self.at_least
        if not math.isfinite(scale):
            return math.nan
        exponent = math.log2(max(scale, 1.0))
        return 2.0 ** (math.ceil(exponent) if self.resolved else math.floor(exponent))

    def lines(self) -> list[tuple[str, Any, str]]:
        """Lines of the table; a scale that noise hides is given by its lower bound."""
        end = ("this batch", self.batch, "rows")
        if not self.resolved:
            bound = ("noise scale, preconditioned (at least)", self.at_least, "rows")
            return [bound, ("suggested batch (at least)", self.suggested, "rows"), end]
        named = {"": self.simple, ", preconditioned": self.preconditioned, ", curved": self.curved}
        # Resolved is the preconditioned one; below zero, or NaN, are others that noise hides or that were not had.
        scales = [(f"noise scale{name}", part, "rows") for name, part in named.items() if part.value >= 0]
        return [*scales, ("suggested batch", self.suggested, "rows"), end]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table("Gradient noise", self.lines(), [f"{self.rows} rows used"])


def noise_scale(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    batch: PyTree,
    *,
    rates: PyTree | None = None,
    losses: Callable[..., Float[Array, " rows"]] | None = None,
    rows: int | None = None,
    curved: bool = True,
    key: Key,
) -> NoiseScale:
    r"""Measure the gradient noise scale from the gradients of single rows.

    .. math::
        B = \frac{\operatorname{tr}\hat\Sigma}{\lVert\bar g\rVert^2-\operatorname{tr}\hat\Sigma/n},\qquad
        \hat\Sigma=\frac1{n-1}\sum_i(g_i-\bar g)(g_i-\bar g)^{\top}

    Below B a larger batch saves nearly as many steps as it costs rows; far above it costs rows for nothing. The mean
    gradient's length is freed of the noise in it, without which no scale above n could ever be seen. For the curved
    scale :math:`\operatorname{tr}H\Sigma` is estimated by sums of centred gradients with random signs over disjoint
    groups of rows.

    Args:
        loss: ``loss(params, batch) -> scalar``, a mean over the rows of the batch.
        params: any pytree; inexact leaves move.
        batch: any pytree whose arrays share a leading axis.
        rates: the optimiser's, ``update_rule(...).rates``; None for the bare gradient.
        losses: ``losses(params, batch) -> [rows]``, where no row's loss depends on the others (each is asked for by
            itself, too; where that differs the record is ``coupled``). Default: the loss of batches of one row.
        rows: use at most so many, four or more, from all over the batch; None for all.
        curved: also the curved scale.
        key: for the signs.

    Returns:
        A `NoiseScale`.

    Raises:
        ValueError: the batch's arrays share no leading axis, or have fewer than four rows; the loss is not one real
            number, or the losses of rows are not one each.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import noise_scale
        >>> x = jnp.array([[1.0], [3.0], [2.0], [2.0]])
        >>> loss = lambda p, x: jnp.mean(p * x)
        >>> record = noise_scale(loss, jnp.ones(1), x, curved=False, key=jax.random.key(0))
        >>> round(float(record.simple.value), 4)  # variance 2/3, squared mean 4 - 2/3/4
        0.1739

    Cost:
        The gradient of every row by itself, a few at a time, so that memory is bounded; two JVPs of the rows' losses;
        for the curved scale a Hessian product, another JVP and four passes of second-order forward mode.

    References:
        - McCandlish, Kaplan, Amodei and the OpenAI Dota Team, "An Empirical Model of Large-Batch Training", 2018,
          https://arxiv.org/abs/1812.06162 (simple and curved scale; the preconditioned one, the jackknife and the
          signed groups are ours)
    """
    check_callable(loss, what="loss", fix="Pass loss(params, batch) -> scalar.", takes=2)
    check_key(key)
    if rows is not None:
        check_count(rows, what="rows", least=4)
    if (row_count(batch) or 0) < 4:
        raise fault(
            expected="a batch of at least four rows, every array with that leading axis",
            got=described(batch),
            fix="Put one example a row; close over what is shared by all rows.",
        )
    return _noise_scale(loss, losses, params, batch, rates, key, rows, curved)


@eqx.filter_jit
@canonical_convolutions
def _noise_scale(
    loss: Callable,
    losses: Callable | None,
    params: PyTree,
    batch: PyTree,
    rates: PyTree | None,
    key: Key,
    rows: int | None,
    curved: bool,
) -> NoiseScale:
    point, total = Point.of(params), row_count(batch)
    assert total is not None
    scale = jnp.ones_like(point.vector) if rates is None else point.like(rates, "rates")
    value = point.loss(loss, batch)
    jax.eval_shape(value, point.vector)
    gradients, each = row_gradients(loss, losses, point, batch, scale, rows, key)
    mean = gradients.mean[None]
    directions = {"mean": mean, "weighted": scale[None] * mean}
    found: Curved | None = None
    if curved:
        image = hessian(value, point.vector)(gradients.mean)
        directions["image"] = image[None] / gradients.unit
        _, along = directional(value, point.vector, {"signed": gradients.signed})
    together, by_row = directional(each, point.vector, directions)
    if curved:
        found = Curved(along["signed"][1], gradients.mean @ image, by_row["image"][0][0])
    return scales(gradients, together, by_row["mean"][0][0], by_row["weighted"][0][0], found, total)


def scales(
    gradients: RowGradients,
    together: Float[Array, " rows"],
    inner: Float[Array, " rows"],
    weighted_inner: Float[Array, " rows"],
    curved: Curved | None,
    batch: int,
) -> NoiseScale:
    """The scales, from the rows' gradients and their slopes along the mean, plain and in rates.

    ``together`` holds the rows' losses as they are among the others. The mean is in units of the gradients', slopes
    and curvatures are still in the loss's.
    """
    count, unit = gradients.squares.shape[0], gradients.unit
    simple, _, _ = jackknifed(gradients.squares, inner / unit)
    preconditioned, noise, signal = jackknifed(gradients.weighted, weighted_inner / unit)
    nan = jnp.full_like(simple.value, jnp.nan)
    bent = Estimate(nan, nan) if curved is None or count < 2 * GROUPS else curved_scale(curved, unit, count)
    parts = (simple, preconditioned, bent, noise, signal)
    bound = coupled(gradients.losses, together)
    simple, preconditioned, bent, noise, signal = jax.tree.map(lambda x: jnp.where(bound, jnp.nan, x), parts)
    return NoiseScale(
        simple=simple,
        preconditioned=preconditioned,
        curved=bent,
        noise=noise,
        signal=signal,
        unit=unit,
        mean_loss=jnp.mean(gradients.losses),
        mean_error=Estimate.from_samples(gradients.losses).standard_error,
        tail=jnp.sqrt(jnp.max(gradients.squares) / nonzero(jnp.median(gradients.squares))),
        coupled=bound,
        rows=count,
        batch=batch,
    )


def measure(shared: Shared) -> NoiseScale | None:
    """Of a check-up, where there are rows."""
    if shared.rows is None or shared.total is None:
        return None
    gradients, slopes = shared.rows.gradients, shared.rows.slopes
    curved = Curved(shared.signed, gradients.mean @ shared.rows.image, slopes["image"])
    return scales(gradients, shared.rows.before, slopes["mean"], slopes["weighted"], curved, shared.total)


def judge(part: NoiseScale, setting: Setting) -> list[Finding]:
    """Whether the rows can be told apart, and whether they are too few or too many."""
    mean, loss, size = float(part.mean_loss), setting.loss, setting.batch_size
    if size is None:
        return []
    if part.coupled:
        text = (
            "The losses of rows depend on which other rows are there (batch normalisation, contrast between rows?): a "
            "row has no gradient of its own, so that there is no noise scale, and standard errors are not to be relied "
            "on. Leave these parts out with rows=0."
        )
        return [Finding("warning", "batch", text)]
    if not np.isfinite([mean, float(part.noise.value), float(part.signal.value)]).all():
        text = (
            "There are rows whose loss or gradient by itself is not finite (all masked, 0/0?): nothing can be said of "
            "noise, nor of standard errors. Divide by at least one, leave such rows out, pass example_losses= that are "
            "finite, or rows=0."
        )
        return [Finding("warning", "batch", text)]
    share = MISMATCH if part.rows == part.batch else PARTLY
    if part.alike:
        return []  # which is said of the rows themselves
    # Where only some rows were looked at, a few of the others may hold most of the loss.
    chance = 0.0 if part.rows == part.batch else MISSED * float(part.mean_error)
    if abs(mean - loss) > share * max(abs(mean), abs(loss)) + chance:
        text = (
            f"The loss ({loss:.4g}) is not the mean of its rows' losses ({mean:.4g}): noise and standard errors are "
            "not to be relied on. Pass example_losses= whose mean it is, or rows=0 where the rows see one another "
            "(batch normalisation, contrast)."
        )
        return [Finding("warning", "batch", text)]
    value, error = float(part.preconditioned.value), float(part.preconditioned.standard_error)
    suggested = part.suggested
    if not np.isfinite(suggested):
        return []
    if not part.resolved:
        return [_hidden(part, size)]
    said = f"the noise scale is {value:.3g} ± {error:.2g} rows, against {size} rows a step"
    if value > SMALL * size:
        noise = value / size
        text = (
            f"The batch is small: {said}, so that a step is {percent(noise / (1 + noise))} noise. Up to about "
            f"{suggested:g} rows, larger batches save nearly as many steps as they cost rows; with this one lower the "
            "rate as training goes on."
        )
        return [Finding("note", "batch", text)]
    if size > LARGE * max(value, 1):
        text = f"The batch could be smaller: {said}; {suggested:g} rows would do nearly as well a step."
        return [Finding("note", "batch", text)]
    return [Finding("note", "batch", f"{said[0].upper()}{said[1:]}.")]


def _hidden(part: NoiseScale, size: int) -> Finding:
    """Of a noise scale that is known by its lower bound only."""
    said = f"the noise scale is at least {part.at_least:.3g}, against {size} rows a step"
    # What was left out for the sake of equal pieces is no reason to measure again.
    whole = part.rows > part.batch - FEWEST
    more = "a larger batch, and batch_size= for that of a step" if whole else f"rows={part.batch}"
    if part.at_least <= size:
        text = f"The noise scale cannot be seen in {part.rows} rows: {said}. Measure with {more} if you want to know."
        return Finding("note", "batch", text)
    text = (
        f"The gradient does not stand out of its noise in {part.rows} rows: {said}. A batch of {part.suggested:g} or "
        "more, or an average over steps (lower rate, more momentum), would let it; near the end of training this is "
        "how it has to be."
    )
    if part.rows < size:
        text = f"{text} To see it measure with {more}."
    return Finding("note", "batch", text)


def card(part: NoiseScale, setting: Setting) -> Card:
    """The share of a step that is noise, by the batch's size."""
    title = "Gradient noise"
    if math.isnan(part.at_least):
        return Card(title, "–", "rows: noise scale", "Not known: rows have no gradient of their own that is finite.")
    if not part.resolved:
        hidden = "Not resolved: the gradient does not stand out of its noise in these rows."
        return Card(title, f"≥ {figure(part.at_least)}", "rows: noise scale, at least", hidden)
    scale, size = float(part.preconditioned.value), setting.batch_size or part.batch
    if not math.isfinite(scale) or scale <= 0:
        return Card(title, figure(scale))
    sizes = 2.0 ** np.arange(0, 1 + math.ceil(math.log2(max(scale, size, 16) * 4)))
    picture = plot(
        [Series("share of a step that is noise", sizes, scale / (scale + sizes), "line")],
        x_label="batch size (rows)",
        y_label="noise in a step",
        log_x=True,
        vertical=[(size, f"this batch: {size}"), (scale, f"noise scale: {scale:.3g}")],
        y_range=(0.0, 1.0),
    )
    small = f"± {float(part.preconditioned.standard_error):.2g} rows: noise scale in the optimiser's metric"
    said = f"At a batch of this size noise and gradient are alike. Suggested: {part.suggested:g} rows."
    return Card(title, f"{scale:.3g}", small, said, markup(picture))


PART = Part("noise", measure, judge, card)
