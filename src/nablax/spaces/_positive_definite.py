"""Covariances: symmetric positive definite matrices, with a metric in which units do not matter."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_key, exact, nonzero, norm
from ._manifold import AbstractManifold, check_points, dot


class PositiveDefinite(AbstractManifold):
    r"""Symmetric positive definite matrices with the affine-invariant metric.

    .. math::
        \langle U, V\rangle_Y = \operatorname{tr}(Y^{-1}UY^{-1}V), \qquad
        \exp_Y(V) = L\exp(L^{-1}VL^{-T})L^T, \quad LL^T = Y

    Nothing changes when every matrix M is replaced by AMAᵀ, such as by other units; singular matrices are infinitely
    far. Logarithms and exponentials of matrices are of their eigenvalues, with derivatives that hold where two are
    equal.

    Args:
        size: rows of a matrix.

    Attributes:
        shape: shape of one point, ``(size, size)``.
        dim: ``size * (size + 1) / 2``.

    Raises:
        ValueError: ``size`` is no whole number, 1 at least.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import PositiveDefinite
        >>> space = PositiveDefinite(2)
        >>> y, z = jnp.eye(2), jnp.diag(jnp.array([4.0, 16.0]))
        >>> halfway = space.exp(y, 0.5 * space.log(y, z))  # the geometric mean
        >>> [round(float(x), 3) for x in jnp.diag(halfway)]
        [2.0, 4.0]

    Cost: a factorisation and a symmetric eigendecomposition, O(size³).

    References:
        Pennec, Fillard, Ayache, "A Riemannian Framework for Tensor Computing", 2006, section 3 (the metric's
        exponential, logarithm and distance). That a Cholesky factor serves as well as the symmetric root follows from
        invariance under congruence.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, size: int):
        side = check_count(size, what="size")
        self.shape = (side, side)

    @property
    def dim(self) -> int:
        """Number of a matrix's free entries."""
        return self.shape[0] * (self.shape[0] + 1) // 2

    @exact
    def exp(self, y: Float[Array, "size size"], v: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Walk from ``y`` along ``v``."""
        check_points(self, y, v)
        factor = jnp.linalg.cholesky(y)
        return _symmetric(factor @ of_symmetric(_between(factor, v), jnp.exp, jnp.exp) @ factor.T)

    @exact
    def log(self, y: Float[Array, "size size"], z: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Tangent at ``y`` that leads to ``z``."""
        check_points(self, y, z)
        factor = jnp.linalg.cholesky(y)
        return _symmetric(factor @ of_symmetric(_between(factor, z), jnp.log, jnp.reciprocal) @ factor.T)

    @exact
    def inner(
        self, y: Float[Array, "size size"], u: Float[Array, "size size"], v: Float[Array, "size size"]
    ) -> Float[Array, ""]:
        """Trace of Y⁻¹UY⁻¹V."""
        check_points(self, y, u, v)
        factor = jnp.linalg.cholesky(y)
        return dot(_between(factor, u), _between(factor, v))

    @exact
    def project(self, y: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """The symmetric part, its eigenvalues raised to a rounding of the largest where they are less."""
        check_points(self, y)
        values, vectors = jnp.linalg.eigh(_symmetric(y))
        least = jnp.finfo(y.dtype).eps * jnp.maximum(jnp.max(jnp.abs(values)), jnp.finfo(y.dtype).tiny)
        raised = _symmetric((vectors * jnp.maximum(values, least)[None]) @ vectors.T)
        return jnp.where(values[0] >= least, _symmetric(y), raised)

    def tangent(self, y: Float[Array, "size size"], v: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """The symmetric part."""
        check_points(self, y, v)
        return _symmetric(v)

    @exact
    def transport(
        self, y: Float[Array, "size size"], v: Float[Array, "size size"], z: Float[Array, "size size"]
    ) -> Float[Array, "size size"]:
        """Carry ``v`` from ``y`` to ``z`` along the geodesic: parallel, EVEᵀ with E the root of ZY⁻¹."""
        check_points(self, y, v, z)
        factor = jnp.linalg.cholesky(y)
        left = factor @ of_symmetric(_between(factor, z), jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x))
        return _symmetric(left @ _between(factor, v) @ left.T)

    @exact
    def gradient(self, y: Float[Array, "size size"], ambient: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Y times the ambient gradient's symmetric part times Y."""
        check_points(self, y, ambient)
        return _symmetric(y @ _symmetric(ambient) @ y)

    @exact
    def distance(self, y: Float[Array, "size size"], z: Float[Array, "size size"]) -> Float[Array, ""]:
        """Length of the logarithms of the eigenvalues of Y⁻¹Z."""
        check_points(self, y, z)
        return norm(jnp.log(jnp.linalg.eigvalsh(_between(jnp.linalg.cholesky(y), z))))

    @exact
    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, "count size size"]:
        """Where standard normal tangents at the identity lead."""
        check_key(key)
        drawn = jax.random.normal(key, (check_count(count, what="count"), *self.shape))
        return jax.vmap(lambda v: of_symmetric(_symmetric(v), jnp.exp, jnp.exp))(drawn)


def _symmetric(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2


def _between(factor: Array, matrix: Array) -> Array:
    """A symmetric matrix with the factor taken off both sides."""
    left = solve_triangular(factor, matrix, lower=True)
    return _symmetric(solve_triangular(factor, left.T, lower=True))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def of_symmetric(matrix: Array, function: Callable, derivative: Callable) -> Array:
    """A function of a symmetric matrix by its eigenvalues; differentiable also where two are equal."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * function(values)[None]) @ vectors.T


@of_symmetric.defjvp
def _of_symmetric(function: Callable, derivative: Callable, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(primals[0])
    of_values = function(values)
    gap = values[:, None] - values[None]
    middle = (values[:, None] + values[None]) / 2
    # Where the slope hardly changes between two eigenvalues, it is the slope midway, to the square of their gap.
    change = jnp.abs(derivative(values)[:, None] - derivative(values)[None])
    close = change <= jnp.finfo(values.dtype).eps ** (1 / 3) * jnp.abs(derivative(middle))
    quotient = (of_values[:, None] - of_values[None]) / nonzero(gap)
    slopes = jnp.where(close, derivative(middle), quotient)
    moved = vectors @ (slopes * (vectors.T @ _symmetric(tangents[0]) @ vectors)) @ vectors.T
    return (vectors * of_values[None]) @ vectors.T, moved
