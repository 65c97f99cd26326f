"""Gradients of single rows, a chunk at a time, and what is kept of them."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import Key, nonzero, peak
from ._along import (
    Moved,
    Point,
    by_row,
    row_count,
    some_rows,
)

# Gradients of single rows held at once, in numbers: on a processor what its cache holds (more is three times slower),
# on an accelerator enough to fill it.
NUMBERS = {"cpu": 2**18}
NUMBERS_ELSEWHERE = 2**26
FEWEST = 8
# Of them so many are held, where that leaves no row over: half, since what is made of them takes as much again.
HELD = {"cpu": 2**17}
# Disjoint groups of rows whose signed sums stand for the covariance where it meets the Hessian.
GROUPS = 4
# Root-mean-square difference between the losses of rows by themselves and among the others, as a share of them, from
# which it is no rounding.
COUPLED = 0.01


class RowGradients(eqx.Module):
    """What is kept of the rows' gradients.

    Attributes:
        mean: vector.
        signed: sums of centred gradients with random signs over disjoint groups of rows, each over the root of its
            rows. On average their curvature is the trace of H times covariance.
        squares: squared length of each row's gradient.
        weighted: the same in the optimiser's coordinates.
        unit: largest finite element of any row's gradient, by which all the above are divided: squares of gradients
            would leave single precision soon.
        alive: whether an element's gradient was other than zero in any row; rows where it is NaN do not count.
        losses: of the rows, each by itself.
    """

    mean: Float[Array, " dim"]
    signed: Float[Array, "groups dim"]
    squares: Float[Array, " rows"]
    weighted: Float[Array, " rows"]
    unit: Float[Array, ""]
    alive: Bool[Array, " dim"]
    losses: Float[Array, " rows"]


def row_gradients(
    loss: Callable,
    losses: Callable | None,
    point: Point,
    batch: PyTree,
    rates: Float[Array, " dim"],
    rows: int | None,
    key: Key,
) -> tuple[RowGradients, Moved]:
    """Gradients of single rows, each by itself, a chunk at a time; and the losses of the rows that were used."""
    total = row_count(batch)
    assert total is not None
    count = total if rows is None else min(rows, total)
    at_once = max(FEWEST, NUMBERS.get(jax.default_backend(), NUMBERS_ELSEWHERE) // point.vector.size)
    pieces = -(-count // min(count, at_once))
    chunk = count // pieces
    count = chunk * pieces  # a few rows fewer rather than a second, shorter chunk to compile
    chunk = _held(count, chunk, HELD.get(jax.default_backend(), NUMBERS_ELSEWHERE) // point.vector.size)
    pieces = count // chunk
    arrays, others = eqx.partition(some_rows(batch, count), eqx.is_array)

    def row_losses(vector: Array, given: PyTree) -> Float[Array, " rows"]:
        length = row_count(given)
        return point.losses(by_row(loss) if losses is None else losses, eqx.combine(given, others), rows=length)(vector)

    def single(vector: Array, row: PyTree) -> Float[Array, ""]:
        return row_losses(vector, jax.tree.map(lambda leaf: leaf[None], row))[0]

    # Row i is in group i mod GROUPS; its sign stands in that group's column, behind a column of ones for the mean.
    signs = jax.random.rademacher(key, (count, 1), rates.dtype)
    signed = signs * jax.nn.one_hot(jnp.arange(count) % GROUPS, GROUPS, dtype=rates.dtype)
    summed = jnp.concatenate([jnp.ones_like(signs), signed], axis=1)
    lengths = jnp.stack([jnp.ones_like(rates), rates], axis=1)

    # Sums over rows are matrix products: as reductions along the leading axis they take five times as long on a CPU.
    def piece(carry: tuple[Array, Array], given: tuple[PyTree, Array]) -> tuple[tuple, tuple]:
        sums, alive = carry
        rows, weights = given
        values, each = jax.vmap(jax.value_and_grad(single), in_axes=(None, 0))(point.vector, rows)

        # One row after another, for each of these steps would hold as many numbers as all rows' gradients together.
        def looked(alive: Array, gradient: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            size = peak(gradient)
            highest = jnp.max(jnp.where(jnp.isfinite(gradient), jnp.abs(gradient), 0))
            felt = (gradient != 0) & ~jnp.isnan(gradient)
            return alive | felt, (size, highest, (gradient / size) ** 2 @ lengths)

        alive, (sizes, highest, squares) = jax.lax.scan(looked, alive, each)
        return (sums + weights.T @ each, alive), (values, sizes, highest, squares)

    start = (jnp.zeros((1 + GROUPS, rates.size), rates.dtype), jnp.zeros(rates.shape, bool))
    chunks = jax.tree.map(lambda leaf: leaf.reshape(pieces, chunk, *leaf.shape[1:]), (arrays, summed))
    (sums, alive), (values, sizes, highest, squares) = jax.lax.scan(piece, start, chunks)
    unit = nonzero(jnp.max(highest))
    shares, squares = (sizes.reshape(count) / unit) ** 2, squares.reshape(count, 2)
    mean, sums = sums[0] / unit / count, sums[1:] / unit
    members = jnp.maximum(jnp.sum(jnp.abs(signed), axis=0), 1)
    centred = (sums - jnp.sum(signed, axis=0)[:, None] * mean[None]) / jnp.sqrt(members)[:, None]
    gradients = RowGradients(
        mean=mean,
        signed=centred,
        squares=shares * squares[:, 0],
        weighted=shares * squares[:, 1],
        unit=unit,
        alive=alive,
        losses=values.reshape(count),
    )
    return gradients, lambda vector: row_losses(vector, arrays)


def _held(count: int, most: int, wanted: int) -> int:
    """Rows at once, a divisor of their count no larger than wanted, nor than most; most where there is none near."""
    wanted = min(most, max(1, wanted))
    found = next(size for size in range(wanted, 0, -1) if count % size == 0)
    return found if 2 * found >= wanted else most


def coupled(alone: Float[Array, " rows"], together: Float[Array, " rows"]) -> Bool[Array, ""]:
    """Whether the rows' losses depend on which other rows are there; False where any is NaN."""
    largest = jnp.maximum(jnp.max(jnp.abs(alone)), jnp.max(jnp.abs(together)))
    a, b = (losses / nonzero(largest) for losses in (alone, together))
    return jnp.sum((a - b) ** 2) > COUPLED**2 * jnp.sum(a**2 + b**2)
