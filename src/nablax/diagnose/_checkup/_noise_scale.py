"""How noisy is the gradient of this batch, and which batch size does that suggest?"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import Key, canonical_convolutions, check_callable, check_count, check_key, described, fault, table
from ...calculus import Estimate
from ._along import Point, directional, row_count
from ._row_gradients import (
    GROUPS,
    RowGradients,
    coupled,
    row_gradients,
)
from ._sharpness import hessian


class NoiseScale(eqx.Module):
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
    coupled: Bool[Array, ""]
    rows: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    @property
    def resolved(self) -> bool:
        """Whether the gradient stands out of its noise by two standard errors."""
        return bool(self.signal.value > 2 * self.signal.standard_error)

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


class Curved(NamedTuple):
    """What the curved scale needs: curvatures of the signed sums, of the mean, and rows' slopes along its image.

    Sums, mean and image are in units of the rows' gradients, the numbers in that of the loss.
    """

    signed: Float[Array, " groups"]
    mean: Float[Array, ""]
    slopes: Float[Array, " rows"]


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
    check_callable(loss, what="loss", fix="Pass loss(params, batch) -> scalar.")
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
    simple, _, _ = _jackknifed(gradients.squares, inner / unit)
    preconditioned, noise, signal = _jackknifed(gradients.weighted, weighted_inner / unit)
    nan = jnp.full_like(simple.value, jnp.nan)
    curved_scale = Estimate(nan, nan) if curved is None or count < 2 * GROUPS else _curved(curved, unit, count)
    parts = (simple, preconditioned, curved_scale, noise, signal)
    bound = coupled(gradients.losses, together)
    simple, preconditioned, curved_scale, noise, signal = jax.tree.map(lambda x: jnp.where(bound, jnp.nan, x), parts)
    return NoiseScale(
        simple=simple,
        preconditioned=preconditioned,
        curved=curved_scale,
        noise=noise,
        signal=signal,
        unit=unit,
        mean_loss=jnp.mean(gradients.losses),
        coupled=bound,
        rows=count,
        batch=batch,
    )


def _jackknifed(squares: Float[Array, " rows"], inner: Float[Array, " rows"]) -> tuple[Estimate, Estimate, Estimate]:
    """Noise over signal, noise, signal; leaving out each row in turn needs no gradient again."""
    count = squares.shape[0]
    largest = jnp.max(squares)
    scale = jnp.where(largest > 0, largest, 1)
    a, b = squares / scale, inner / scale
    total, length = jnp.sum(a), jnp.mean(b)

    def parts(total: Array, length: Array, n: int) -> tuple[Array, Array]:
        noise = (total - n * length) / (n - 1)
        return noise, length - noise / n

    noise, signal = parts(total, length, count)
    rest = count - 1
    noises, signals = parts(total - a, (count**2 * length - 2 * count * b + a) / rest**2, rest)

    def error(each: Float[Array, " rows"]) -> Float[Array, ""]:
        return jnp.sqrt((count - 1) * jnp.mean((each - jnp.mean(each)) ** 2))

    return (
        Estimate(noise / signal, error(noises / signals)),
        Estimate(scale * noise, scale * error(noises)),
        Estimate(scale * signal, scale * error(signals)),
    )


def _curved(parts: Curved, unit: Float[Array, ""], count: int) -> Estimate:
    noise = Estimate.from_samples(parts.signed / unit * count / (count - 1))
    signal = parts.mean / unit - noise.value / count
    signal_error = jnp.hypot(
        2 * Estimate.from_samples(parts.slopes / unit).standard_error, noise.standard_error / count
    )
    value = noise.value / signal
    return Estimate(value, jnp.abs(value) * jnp.hypot(noise.standard_error / noise.value, signal_error / signal))
