"""What several of the check-up's parts share: the parameters that move, row losses, derivatives along a direction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_floats, check_loss, described, fault, push_forward, space, split
from ...calculus import Estimate

# Rows of a part below which there are fewer parts.
FEWEST_DEALT = 8

# of the vector of parameters: a loss, or one a row
Moved = Callable[[Array], Float[Array, "..."]]


class Along(NamedTuple):
    """Slopes and curvatures of a function along several directions, leading axis ``directions``."""

    slopes: Float[Array, "directions ..."]
    curvatures: Float[Array, "directions ..."]


class Point(NamedTuple):
    """The parameters that move, as one vector: every sum and product over them is one operation to compile.

    Attributes:
        vector: values of the inexact leaves, in their widest type, at least single precision.
        tree: vector -> those leaves in their places and types, None elsewhere.
        still: the other leaves.
    """

    vector: Float[Array, " dim"]
    tree: Callable[[Float[Array, " dim"]], PyTree]
    still: PyTree

    @staticmethod
    def of(params: PyTree) -> "Point":
        """Take parameters apart.

        Raises:
            ValueError: no leaf of them is inexact, or one is complex.
        """
        if isinstance(params, optax.LookaheadParams):
            raise fault(
                expected="the parameters that the loss is taken at",
                got="optax.LookaheadParams",
                fix="Pass params.fast, with the fast optimiser and opt_state.fast_state.",
            )
        vectors = space(params)
        return Point(vectors.flat, vectors.tree, split(params)[1])

    def whole(self, tree: PyTree) -> PyTree:
        """Those leaves and the other ones, together again."""
        return eqx.combine(tree, self.still)

    def take(self, function: Callable[..., Any], *args: Any) -> Callable[[Float[Array, " dim"]], Any]:
        """A function of parameters as one of the vector."""
        return lambda vector: function(self.whole(self.tree(vector)), *args)

    def loss(self, function: Callable[..., Any], *args: Any) -> Callable[[Float[Array, " dim"]], Float[Array, ""]]:
        """A loss as one of the vector.

        Raises:
            ValueError: on calling it, where the loss is not one real number.
        """
        value = self.take(function, *args)
        return lambda vector: check_loss(value(vector))

    def losses(
        self, function: Callable[..., Any], *args: Any, rows: int | None = None
    ) -> Callable[[Float[Array, " dim"]], Float[Array, " rows"]]:
        """Losses of rows as one of the vector.

        Raises:
            ValueError: on calling it, where they are no vector of real numbers, or not of so many rows.
        """
        value = self.take(function, *args)

        def checked(vector: Float[Array, " dim"]) -> Float[Array, " rows"]:
            found = value(vector)
            if len(getattr(found, "shape", ())) != 1 or rows not in (None, found.shape[0]):
                raise fault(
                    expected=f"losses of the rows, a vector of {'them' if rows is None else f'{rows}, one a row'}",
                    got=described(found),
                    fix="Return the loss of each row, not their mean, and pass that as the loss.",
                )
            check_floats(found, what="losses of the rows", fix="Return real floating-point numbers.")
            return found

        return checked

    def like(self, tree: PyTree, what: str) -> Float[Array, " dim"]:
        """A tree with the inexact leaves of the parameters as a vector.

        Raises:
            ValueError: its leaves are not those of the parameters.
        """
        given = eqx.filter(tree, eqx.is_inexact_array)
        expected = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(self.tree, self.vector))]
        shapes = [leaf.shape for leaf in jax.tree.leaves(given)]
        if shapes != expected:
            raise fault(
                expected=f"{what} with the inexact leaves of the parameters, {expected}",
                got=str(shapes),
                fix="Build it from the same parameters.",
            )
        return ravel_pytree(given)[0].astype(self.vector.dtype)


def row_count(batch: PyTree) -> int | None:
    """Common length of the leading axes of a batch's arrays; None if they have none."""
    counts = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(eqx.filter(batch, eqx.is_array))}
    return counts.pop() if len(counts) == 1 and 0 not in counts else None


def some_rows(batch: PyTree, count: int) -> PyTree:
    """Rows from all over a batch, in its order: drawn once and for all, so that no order of the batch biases them."""
    total = row_count(batch)
    if total is None or count == total:
        return batch
    chosen = np.sort(np.random.default_rng(0).choice(total, count, replace=False))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen] if eqx.is_array(leaf) else leaf, batch)


def by_row(loss: Callable[..., Float[Array, "..."]]) -> Callable[[PyTree, PyTree], Float[Array, "rows ..."]]:
    """Losses of the rows of a batch, by mapping a mean over batches of one row."""

    def rows(params: PyTree, batch: PyTree) -> Float[Array, "rows ..."]:
        arrays, others = eqx.partition(batch, eqx.is_array)

        def one(row: PyTree) -> Float[Array, "..."]:
            return loss(params, eqx.combine(jax.tree.map(lambda leaf: leaf[None], row), others))

        return jax.vmap(one)(arrays)

    return rows


def afresh(at: Float[Array, " dim"], direction: Float[Array, " dim"]) -> tuple[Array, Array]:
    """Both as they are, for the body of a loop over directions.

    Otherwise the compiler lifts out of the loop all that does not depend on the direction, which is every number that
    the value or the gradient is made of, and keeps it: that takes twice the memory, and where it leaves the processor's
    cache more time than to compute it again.
    """
    return jax.lax.optimization_barrier((at, direction))


def directional(
    function: Moved, at: Float[Array, " dim"], directions: dict[str, Float[Array, "directions dim"]]
) -> tuple[Array, dict[str, Along]]:
    """Slope and curvature along several directions at once, so that the function is compiled once for all of them.

    Both derivatives are forward: about four forward passes a direction; by reverse mode where forward mode is not
    defined.

    Args:
        function: of the vector of parameters, a scalar or one number a row.
        at: where.
        directions: by name.

    Returns:
        The function's value; and by name slopes and curvatures.
    """

    def along(direction: Array) -> tuple[Array, Array, Array]:
        here, direction = afresh(at, direction)

        def first(point: Array) -> tuple[Array, Array]:
            return push_forward(function, point, direction)

        (value, slope), (_, curvature) = push_forward(first, here, direction)
        return value, slope, curvature

    # One direction after another: activations of one at a time, in cache where the batch allows it.
    values, slopes, curvatures = jax.lax.map(along, jnp.concatenate(list(directions.values())))
    found, begin = {}, 0
    for name, block in directions.items():
        end = begin + block.shape[0]
        found[name] = Along(slopes[begin:end], curvatures[begin:end])
        begin = end
    return values[0], found


def slopes_along(
    function: Moved, at: Float[Array, " dim"], directions: dict[str, Float[Array, " dim"]]
) -> dict[str, Array]:
    """Slopes alone, one direction a name: about two forward passes each."""
    found = jax.lax.map(lambda d: push_forward(function, *afresh(at, d))[1], jnp.stack(list(directions.values())))
    return dict(zip(directions, found, strict=True))


def dealt(batch: PyTree, most: int) -> tuple[PyTree, int]:
    """A batch's rows dealt out like cards: arrays ``[size, parts, ...]``, and how many parts, no more than asked for.

    Where there are fewer than eight rows a part there are fewer parts. A few rows are left over.
    """
    total = row_count(batch)
    assert total is not None
    parts = max(1, min(most, total // FEWEST_DEALT))
    size = total // parts

    def deal(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        return jnp.asarray(leaf)[: size * parts].reshape(size, parts, *jnp.shape(leaf)[1:])

    return jax.tree.map(deal, batch), parts


def curvatures_on_parts(
    loss_of: Callable[[PyTree], Callable[[Array], Float[Array, ""]]],
    whole: Float[Array, ""],
    at: Float[Array, " dim"],
    direction: Callable[[Int[Array, ""]], Float[Array, " dim"]],
    count: int,
    batch: PyTree,
    most: int,
) -> Float[Array, " count"]:
    """Curvature of a loss along directions drawn at random, by their number, each on one part of the rows in turn.

    A direction is made where it is asked about, so that one of them at a time takes memory.

    Each is that of the whole batch on average; what the rows differ by is in the scatter of the directions. A loss that
    is a sum over rows and no mean is told by its values: ``whole``, that of all rows, is then as many times a part's.
    """
    arrays, parts = dealt(batch, most)
    total = row_count(batch)
    assert total is not None

    def along(index: Int[Array, ""]) -> tuple[Array, Array]:
        rows = jax.tree.map(
            lambda leaf: (
                jax.lax.dynamic_index_in_dim(leaf, index % parts, 1, keepdims=False) if eqx.is_array(leaf) else leaf
            ),
            arrays,
        )
        value, towards = loss_of(rows), direction(index)

        def first(point: Array) -> tuple[Array, Array]:
            return push_forward(value, point, towards)

        (here, _), (_, curvature) = push_forward(first, at, towards)
        return here, curvature

    values, curvatures = jax.lax.map(along, jnp.arange(count))
    mean, times = jnp.mean(values[:parts]), total / (total // parts)
    summed = jnp.abs(whole - times * mean) < jnp.abs(whole - mean)
    return jnp.where(summed, times, 1.0).astype(curvatures.dtype) * curvatures


def rescaled(vector: Float[Array, " dim"], rates: Float[Array, " dim"], power: float) -> Float[Array, " dim"]:
    """Each element times its rate to a power; zero where the rate is zero."""
    return jnp.where(rates > 0, vector * jnp.where(rates > 0, rates, 1) ** power, 0)


def ratio(numerator: Estimate, denominator: Array | float) -> Estimate:
    """An estimate over an exact number."""
    return Estimate(numerator.value / denominator, numerator.standard_error / jnp.abs(denominator))


def row_error(rows: Float[Array, " rows"], total: int | None = None) -> Float[Array, ""]:
    """Standard error of a mean over ``total`` rows of which these are some; by default over these."""
    share = 1.0 if total is None else rows.shape[0] / total
    return Estimate.from_samples(rows).standard_error * share**0.5


def exact(value: Array) -> Estimate:
    """A number without sampling error known."""
    return Estimate(value, jnp.full_like(value, jnp.nan))
