"""Rotations of a space of any number of dimensions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import expm
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_key, exact, norm
from ._manifold import AbstractManifold, check_points, dot
from ._orthogonal import rotation_log, rotation_root


class Rotations(AbstractManifold):
    r"""Orthogonal matrices of determinant 1, in which distances are angles.

    .. math::
        \langle U, V\rangle_R = \tfrac12\operatorname{tr}(U^TV), \qquad \exp_R(V) = R\exp(R^TV), \qquad
        \log_R(Q) = R\log(R^TQ)

    A turn by θ about one axis is θ away, in radians; of several planes the squares of the angles add. Where one
    angle between two rotations is π two ways are as short: `log`, `distance` and `transport` are not defined there
    (NaN, or numbers without meaning within a root of rounding of it).

    Args:
        size: rows of a matrix, 2 at least; 3 for the rotations of space.

    Attributes:
        shape: shape of one point, ``(size, size)``.
        dim: ``size * (size - 1) / 2``.

    Raises:
        ValueError: ``size`` is no whole number, 2 at least.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import Rotations
        >>> quarter_turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
        >>> round(float(Rotations(2).distance(jnp.eye(2), quarter_turn)), 4)
        1.5708

    Cost: an exponential, or some forty inverses for the logarithm, O(size³).

    References:
        Edelman, Arias, Smith, "The Geometry of Algorithms with Orthogonality Constraints", 1998,
        https://arxiv.org/abs/physics/9806030. Logarithms by inverse scaling and squaring, with roots by Newton's
        iteration for the polar factor (N. Higham, "Functions of Matrices", 2008, chapters 8 and 11), put together here.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, size: int):
        side = check_count(size, what="size", least=2)
        self.shape = (side, side)

    @property
    def dim(self) -> int:
        """Number of planes that one can turn in."""
        return self.shape[0] * (self.shape[0] - 1) // 2

    @exact
    def exp(self, y: Float[Array, "size size"], v: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Turn on from ``y`` along ``v``."""
        check_points(self, y, v)
        return y @ expm(_antisymmetric(y.T @ v))

    @exact
    def log(self, y: Float[Array, "size size"], z: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Tangent at ``y`` that turns it to ``z``."""
        check_points(self, y, z)
        return y @ rotation_log(y.T @ z)

    def inner(
        self, y: Float[Array, "size size"], u: Float[Array, "size size"], v: Float[Array, "size size"]
    ) -> Float[Array, ""]:
        """Half the sum of products of two tangents."""
        check_points(self, y, u, v)
        return dot(u, v) / 2

    @exact
    def project(self, y: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Nearest rotation, by singular vectors; not to be differentiated: those of rotations have equal values."""
        check_points(self, y)
        left, _, right = jnp.linalg.svd(y)
        sign = jnp.sign(jnp.linalg.det(left @ right))
        return left.at[:, -1].multiply(sign) @ right

    @exact
    def tangent(self, y: Float[Array, "size size"], v: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """``y`` times the antisymmetric part of yᵀv."""
        check_points(self, y, v)
        return y @ _antisymmetric(y.T @ v)

    @exact
    def transport(
        self, y: Float[Array, "size size"], v: Float[Array, "size size"], z: Float[Array, "size size"]
    ) -> Float[Array, "size size"]:
        """Carry ``v`` from ``y`` to ``z`` along the geodesic: parallel, y H yᵀv H with H half of the turn between."""
        check_points(self, y, v, z)
        half = rotation_root(y.T @ z)
        return y @ half @ (y.T @ v) @ half

    @exact
    def gradient(self, y: Float[Array, "size size"], ambient: Float[Array, "size size"]) -> Float[Array, "size size"]:
        """Twice the ambient gradient's tangent part, since the metric is half the sum of products."""
        return 2 * self.tangent(y, ambient)

    def distance(self, y: Float[Array, "size size"], z: Float[Array, "size size"]) -> Float[Array, ""]:
        """Root of the sum of squares of the angles between two rotations, in radians."""
        return norm(self.log(y, z)) / 2**0.5

    @exact
    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, "count size size"]:
        """Rotations drawn uniformly."""
        check_key(key)
        drawn = jax.random.normal(key, (check_count(count, what="count"), *self.shape))
        return jax.vmap(self.project)(drawn)


def _antisymmetric(matrix: Array) -> Array:
    return (matrix - matrix.T) / 2
