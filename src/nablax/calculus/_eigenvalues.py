"""The algebraically largest eigenvalues of a symmetric linear map on pytrees."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import AbstractRecord, Key, Product, fault, flat_product, norm, space
from ._lanczos import (
    Carry,
    Iteration,
    Row,
    checked_symmetric,
    gathered,
    iterate,
    loop,
    tridiagonal,
)

# Steps between two looks at the residuals: a look is a dense eigenproblem of ``steps`` rows.
_EVERY = 4


class Eigenvalues(AbstractRecord):
    r"""Eigenvalues with how far each is from being one.

    Attributes:
        values: algebraically largest first, units of the map.
        vectors: orthonormal; a tree like the parameters with leading axis ``count``, None in place of leaves
            that are not inexact arrays.
        residuals: :math:`\lVert A v - \lambda v\rVert`, units of the map. For a symmetric map an eigenvalue lies
            within this distance of the value.
        products: number of products spent.
    """

    values: Float[Array, " count"]
    vectors: PyTree
    residuals: Float[Array, " count"]
    products: Int[Array, ""]


class _Pairs(NamedTuple):
    """Ritz values, their vectors' coordinates in the basis, and residuals."""

    values: Float[Array, " count"]
    coordinates: Float[Array, "count steps"]
    residuals: Float[Array, " count"]


def top_eigenvalues(
    product: Product, like: PyTree, *, count: int = 5, steps: int = 40, tolerance: float | None = None, key: Key
) -> Eigenvalues:
    r"""Find the algebraically largest eigenvalues of a symmetric linear map, and their vectors.

    .. math:: T s_i = \lambda_i s_i, \qquad v_i = Q^{\top} s_i, \qquad
              \lVert A v_i - \lambda_i v_i\rVert^2
              = \lVert (P^{\top} - \lambda_i) s_i\rVert^2 + \beta^2 s_{i,\text{last}}^2

    with :math:`T`, :math:`Q` of :func:`lanczos` from a random start and the rows of :math:`P` the map's products
    in the basis: the residuals cost no further product. Nor does it cost one to see that the map is not symmetric,
    which is an error where :math:`P` is not, by more than the cube root of the precision of its numbers (0.5 % of it in
    single precision).
    On CPUs the map's convolutions are as fast as outside of the iteration's loop.
    For the smallest ones negate the map: ``top_eigenvalues(lambda v: -A(v), ...)`` and negate ``values``; the
    largest in magnitude are among the two.

    An eigenvalue that is repeated exactly is found once for every restart of the iteration, hence as often as it
    occurs when ``steps`` exceeds the number of distinct eigenvalues, and once otherwise; a small residual does
    not show the difference.

    Args:
        product: the map, ``product(v) -> Av``, linear and symmetric; JAX must be able to differentiate it.
        like: a tree with the structure, shapes and dtypes of the argument, for instance the parameters; its
            leaves that are not inexact arrays are passed on to the product.
        count: how many, 5 by default; at most the number of parameters.
        steps: products to spend, 40 by default; no more than the number of parameters are used, and with
            that many the answer is exact. More make the residuals smaller.
        tolerance: stop as soon as every residual is at most this share of the largest value's magnitude, looking
            every fourth step; the error of a value is then about the square of it. By default all steps are taken,
            which reverse-mode differentiation asks for.
        key: of the random start.

    Returns:
        An :class:`Eigenvalues`.

    Raises:
        ValueError: fewer than one value, or more than there are steps or parameters; a tolerance that is not
            positive; and as :func:`lanczos`.
        equinox.EquinoxRuntimeError: the map is not symmetric.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import top_eigenvalues
        >>> found = top_eigenvalues(lambda v: jnp.arange(9.0) * v, jnp.zeros(9), count=2, key=jax.random.key(0))
        >>> [round(float(x), 4) for x in found.values]
        [8.0, 7.0]

    Cost:
        ``steps`` products, as :func:`lanczos`; fewer with a tolerance.

    References:
        - Saad, "Numerical Methods for Large Eigenvalue Problems", 2011, https://doi.org/10.1137/1.9781611970739
          (Ritz pairs and their residuals; the form for a map that is not quite symmetric is derived here)
    """
    vectors = space(like)
    steps = min(steps, vectors.flat.size)
    if not 1 <= count <= steps:
        raise fault(
            expected=f"between 1 and {steps} eigenvalues, the number of steps or of parameters",
            got=str(count),
            fix="Ask for fewer, or take more steps.",
        )
    if tolerance is not None and not tolerance > 0:
        raise fault(expected="a positive tolerance", got=str(tolerance), fix="1e-3 gives six digits or so.")
    start = jax.random.normal(key, vectors.flat.shape, vectors.flat.dtype)
    flat = flat_product(product, like, vectors)
    if tolerance is None:
        result = iterate(flat, start, start, steps)
        pairs = _ritz(result, count)
    else:
        result, pairs = _until(flat, start, count, steps, tolerance)
    values = checked_symmetric(pairs.values, result.projected, like)
    return Eigenvalues(values, vectors.rows(pairs.coordinates @ result.basis), pairs.residuals, result.taken)


def _ritz(result: Iteration, count: int) -> _Pairs:
    """The largest eigenvalues of the projection, and what each misses of being one of the map's."""
    size = result.diagonal.size
    # Where no step was taken there is no eigenvalue: those go below all others.
    lowest = -1 - 4 * jnp.max(jnp.abs(result.projected))
    diagonal = jnp.where(jnp.arange(size) < result.taken, result.diagonal, lowest)
    values, coordinates = jnp.linalg.eigh(tridiagonal(diagonal, result.off_diagonal))
    values, coordinates = values[: -count - 1 : -1], coordinates[:, : -count - 1 : -1].T
    inside = coordinates @ result.projected - values[:, None] * coordinates
    leaving = jnp.abs(coordinates) @ result.dropped
    return _Pairs(values, coordinates, jax.vmap(norm)(jnp.concatenate([inside, leaving[:, None]], axis=1)))


def _until(
    product: Callable[[Array], Array], start: Float[Array, " dim"], count: int, steps: int, tolerance: float
) -> tuple[Iteration, _Pairs]:
    """The iteration, left as soon as the residuals are small."""
    begin, body = loop(product, start, start, steps)
    rows: Row = (jnp.zeros((steps, steps), start.dtype), jnp.zeros((steps,), start.dtype), jnp.zeros((steps,), bool))
    values, coordinates = jnp.zeros((count,), start.dtype), jnp.zeros((count, steps), start.dtype)
    none = _Pairs(values, coordinates, residuals=jnp.full_like(values, jnp.inf))
    State = tuple[Int[Array, ""], Carry, Row, _Pairs]

    def going(state: State) -> Bool[Array, ""]:
        taken, _, _, pairs = state
        # Written so that what is not a number goes on to the end, where the user sees it.
        return (taken < steps) & ~jnp.all(pairs.residuals <= tolerance * jnp.max(jnp.abs(pairs.values)))

    def turn(state: State) -> State:
        taken, carry, rows, pairs = state
        carry, row = body(carry, taken)
        rows = jax.tree.map(lambda stack, one: stack.at[taken].set(one), rows, row)
        taken = taken + 1
        look = (taken % _EVERY == 0) | (taken == steps)
        pairs = jax.lax.cond(look, lambda: _ritz(gathered(carry[0], rows, taken), count), lambda: pairs)
        return taken, carry, rows, pairs

    taken, (basis, _, _), rows, pairs = jax.lax.while_loop(going, turn, (jnp.array(0), begin, rows, none))
    return gathered(basis, rows, taken), pairs
