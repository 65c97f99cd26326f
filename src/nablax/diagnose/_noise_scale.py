"""How noisy is the gradient of this batch, and which batch size does that suggest?"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._core import Key, fault
from ..calculus import Estimate
from ._along import Moved, Point, by_row, directional, first_rows, row_count
from ._sharpness import hessian
from ._table import table

# Gradients of single rows held at once, in numbers: on a processor what its cache holds (more is three times slower),
# on an accelerator enough to fill it.
NUMBERS = {"cpu": 2**18}
NUMBERS_ELSEWHERE = 2**26
FEWEST = 8
# Disjoint groups of rows whose signed sums stand for the covariance where it meets the Hessian.
GROUPS = 4


class NoiseScale(eqx.Module):
    r"""Gradient noise :math:`\Sigma` (covariance of one row's gradient) against the true gradient G.

    Each scale is a batch size: at it the noise of the mean gradient is as large as the gradient. Standard errors are
    by the jackknife over rows (the curved one: over groups of rows, delta method).

    Attributes:
        simple: :math:`\operatorname{tr}\Sigma/\lVert G\rVert^2`, rows.
        preconditioned: :math:`\operatorname{tr}R\Sigma/G^{\top}RG`, R the optimiser's rates, rows; as ``simple``
            without them.
        curved: :math:`\operatorname{tr}H\Sigma/G^{\top}HG`, rows: the batch beyond which the best step along the
            gradient hardly grows. NaN where it was not asked for.
        noise: :math:`\operatorname{tr}R\Sigma`, and
        signal: :math:`G^{\top}RG`, both without bias; it can come out negative where noise hides it.
        mean_loss: of the rows; differs from the loss where that is no mean over rows.
        rows: how many rows were used.
        batch: rows in the batch.
    """

    simple: Estimate
    preconditioned: Estimate
    curved: Estimate
    noise: Estimate
    signal: Estimate
    mean_loss: Float[Array, ""]
    rows: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    @property
    def resolved(self) -> bool:
        """Whether the gradient stands out of its noise by two standard errors."""
        return bool(self.signal.value > 2 * self.signal.standard_error)

    @property
    def suggested(self) -> float:
        """Batch size that the preconditioned scale suggests, a power of two; a lower bound if not ``resolved``."""
        signal = float(self.signal.value)
        if not self.resolved:
            signal = max(signal, 0.0) + 2 * float(self.signal.standard_error)
        scale = float(self.noise.value) / signal if signal > 0 else math.nan
        return 2.0 ** math.ceil(math.log2(max(scale, 1.0))) if math.isfinite(scale) else math.nan

    def lines(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        lines = [
            ("noise scale", self.simple, "rows"),
            ("noise scale, preconditioned", self.preconditioned, "rows"),
        ]
        if not jnp.isnan(self.curved.value):
            lines.append(("noise scale, curved", self.curved, "rows"))
        bound = "" if self.resolved else " (at least)"
        return [*lines, (f"suggested batch{bound}", self.suggested, "rows"), ("this batch", self.batch, "rows")]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table("Gradient noise", self.lines(), [f"{self.rows} rows used"])


class RowGradients(eqx.Module):
    """What is kept of the rows' gradients.

    Attributes:
        mean: vector.
        signed: sums of centred gradients with random signs over disjoint groups of rows, each over the root of its
            rows. On average their curvature is the trace of H times covariance.
        squares: squared length of each row's gradient.
        weighted: the same in the optimiser's coordinates.
        alive: whether an element's gradient was other than zero in any row.
        losses: of the rows.
    """

    mean: Float[Array, " dim"]
    signed: Float[Array, "groups dim"]
    squares: Float[Array, " rows"]
    weighted: Float[Array, " rows"]
    alive: Bool[Array, " dim"]
    losses: Float[Array, " rows"]


class Curved(NamedTuple):
    """What the curved scale needs: curvatures of the signed sums, of the mean, and rows' slopes along its image."""

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
        losses: ``losses(params, batch) -> [rows]``. Default: the loss of batches of one row.
        rows: use at most so many, from the first; None for all.
        curved: also the curved scale.
        key: for the signs.

    Returns:
        A `NoiseScale`.

    Raises:
        ValueError: the batch's arrays share no leading axis, or have fewer than four rows.

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
    if (row_count(batch) or 0) < 4:
        raise fault(
            expected="a batch of at least four rows, every array with that leading axis",
            got=str([jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]),
            mend="Put one example a row; close over what is shared by all rows.",
        )
    return _noise_scale(loss, losses, params, batch, rates, key, rows, curved)


@eqx.filter_jit
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
    gradients, each = row_gradients(loss, losses, point, batch, scale, rows, key)
    mean = gradients.mean[None]
    directions = {"mean": mean, "weighted": scale[None] * mean}
    found: Curved | None = None
    if curved:
        value = point.take(loss, batch)
        image = hessian(value, point.vector)(gradients.mean)
        directions["image"] = image[None]
        _, along = directional(value, point.vector, {"signed": gradients.signed})
    _, by_row = directional(each, point.vector, directions)
    if curved:
        found = Curved(along["signed"][1], gradients.mean @ image, by_row["image"][0][0])
    return scales(gradients, by_row["mean"][0][0], by_row["weighted"][0][0], found, total)


def row_gradients(
    loss: Callable,
    losses: Callable | None,
    point: Point,
    batch: PyTree,
    rates: Float[Array, " dim"],
    rows: int | None,
    key: Key,
) -> tuple[RowGradients, Moved]:
    """Gradients of single rows, a chunk at a time; and the losses of the rows that were used."""
    total = row_count(batch)
    assert total is not None
    count = total if rows is None else min(rows, total)
    at_once = max(FEWEST, NUMBERS.get(jax.default_backend(), NUMBERS_ELSEWHERE) // point.vector.size)
    pieces = -(-count // min(count, at_once))
    chunk = count // pieces
    count = chunk * pieces  # a few rows fewer rather than a second, shorter chunk to compile
    arrays, others = eqx.partition(first_rows(batch, count), eqx.is_array)

    def row_losses(vector: Array, given: PyTree) -> Float[Array, " rows"]:
        return point.take(by_row(loss) if losses is None else losses, eqx.combine(given, others))(vector)

    def single(vector: Array, row: PyTree) -> Float[Array, ""]:
        return row_losses(vector, jax.tree.map(lambda leaf: leaf[None], row))[0]

    # Row i is in group i mod GROUPS; its sign stands in that group's column.
    signs = jax.random.rademacher(key, (count, 1), rates.dtype)
    signed = signs * jax.nn.one_hot(jnp.arange(count) % GROUPS, GROUPS, dtype=rates.dtype)

    def piece(carry: tuple[Array, Array, Array], given: tuple[PyTree, Array]) -> tuple[tuple, tuple]:
        total, sums, alive = carry
        rows, sign = given
        values, each = jax.vmap(jax.value_and_grad(single), in_axes=(None, 0))(point.vector, rows)
        squares = each**2
        carry = (
            total + jnp.sum(each, axis=0),
            sums + sign.T @ each,
            jnp.maximum(alive, jnp.max(jnp.abs(each), axis=0)),
        )
        return carry, (values, jnp.sum(squares, axis=1), squares @ rates)

    start = (jnp.zeros_like(rates), jnp.zeros((GROUPS, rates.size), rates.dtype), jnp.zeros_like(rates))
    chunks = jax.tree.map(lambda leaf: leaf.reshape(pieces, chunk, *leaf.shape[1:]), (arrays, signed))
    (total_gradient, sums, largest), (values, squares, weighted) = jax.lax.scan(piece, start, chunks)
    mean = total_gradient / count
    members = jnp.maximum(jnp.sum(jnp.abs(signed), axis=0), 1)
    centred = (sums - jnp.sum(signed, axis=0)[:, None] * mean[None]) / jnp.sqrt(members)[:, None]
    gradients = RowGradients(
        mean=mean,
        signed=centred,
        squares=squares.reshape(count),
        weighted=weighted.reshape(count),
        alive=largest != 0,
        losses=values.reshape(count),
    )
    return gradients, lambda vector: row_losses(vector, arrays)


def scales(
    gradients: RowGradients,
    inner: Float[Array, " rows"],
    weighted_inner: Float[Array, " rows"],
    curved: Curved | None,
    batch: int,
) -> NoiseScale:
    """The scales, from the rows' gradients and their inner products with the mean, plain and in rates."""
    count = gradients.squares.shape[0]
    simple, _, _ = _jackknifed(gradients.squares, inner)
    preconditioned, noise, signal = _jackknifed(gradients.weighted, weighted_inner)
    nan = jnp.full_like(simple.value, jnp.nan)
    return NoiseScale(
        simple=simple,
        preconditioned=preconditioned,
        curved=Estimate(nan, nan) if curved is None or count < 2 * GROUPS else _curved(curved, count),
        noise=noise,
        signal=signal,
        mean_loss=jnp.mean(gradients.losses),
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


def _curved(parts: Curved, count: int) -> Estimate:
    noise = Estimate.from_samples(parts.signed * count / (count - 1))
    signal = parts.mean - noise.value / count
    signal_error = jnp.hypot(2 * Estimate.from_samples(parts.slopes).standard_error, noise.standard_error / count)
    value = noise.value / signal
    return Estimate(value, jnp.abs(value) * jnp.hypot(noise.standard_error / noise.value, signal_error / signal))
