"""The algebraically largest eigenvalues of a symmetric linear map on pytrees."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import Key, fault
from ._lanczos import iterate, norm, tridiagonal
from ._ravel import Product, flat_product, space


class Eigenvalues(eqx.Module):
    r"""Eigenvalues with how far each is from being one.

    Attributes:
        values: algebraically largest first, units of the map.
        vectors: orthonormal; a tree like the parameters with leading axis ``count``, None in place of leaves
            that are not inexact arrays.
        residuals: :math:`\lVert A v - \lambda v\rVert`, units of the map. For a symmetric map an eigenvalue lies
            within this distance of the value.
    """

    values: Float[Array, " count"]
    vectors: PyTree
    residuals: Float[Array, " count"]


def top_eigenvalues(product: Product, like: PyTree, *, count: int = 5, steps: int = 40, key: Key) -> Eigenvalues:
    r"""Find the algebraically largest eigenvalues of a symmetric linear map, and their vectors.

    .. math:: T s_i = \lambda_i s_i, \qquad v_i = Q^{\top} s_i, \qquad
              \lVert A v_i - \lambda_i v_i\rVert^2
              = \lVert (P^{\top} - \lambda_i) s_i\rVert^2 + \beta^2 s_{i,\text{last}}^2

    with :math:`T`, :math:`Q` of :func:`lanczos` from a random start and the rows of :math:`P` the map's products
    in the basis: the residuals cost no further product, and grow where the map is not symmetric.
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
        key: of the random start.

    Returns:
        An :class:`Eigenvalues`.

    Raises:
        ValueError: fewer than one value, or more than there are steps or parameters; and as :func:`lanczos`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import top_eigenvalues
        >>> found = top_eigenvalues(lambda v: jnp.arange(9.0) * v, jnp.zeros(9), count=2, key=jax.random.key(0))
        >>> [round(float(x), 4) for x in found.values]
        [8.0, 7.0]

    Cost:
        ``steps`` products, as :func:`lanczos`.

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
            mend="Ask for fewer, or take more steps.",
        )
    start = jax.random.normal(key, vectors.flat.shape, vectors.flat.dtype)
    result = iterate(flat_product(product, like, vectors), start, start, steps)
    values, coordinates = jnp.linalg.eigh(tridiagonal(result.diagonal, result.off_diagonal))
    values, coordinates = values[: -count - 1 : -1], coordinates[:, : -count - 1 : -1].T
    inside = coordinates @ result.projected - values[:, None] * coordinates
    leaving = jnp.abs(coordinates) @ result.dropped
    residuals = jax.vmap(norm)(jnp.concatenate([inside, leaving[:, None]], axis=1))
    return Eigenvalues(values, vectors.rows(coordinates @ result.basis), residuals)
