"""Flat space: the one where moving is adding."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_shape_of_one
from ._manifold import check_points
from ._space import AbstractSpace


class Euclidean(AbstractSpace):
    r"""Real arrays of one shape with the dot product.

    $$\exp_y(v) = y + v, \qquad \log_y(z) = z - y, \qquad \langle u, v \rangle_y = \sum_i u_i v_i$$

    Args:
        shape: shape of one point; an integer stands for a vector of that length.

    Attributes:
        shape: shape of one point, a tuple.
        dim: number of coordinates, the product of ``shape``.

    Raises:
        ValueError: a side of the shape is not a positive integer; a point or a tangent has another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> space = Euclidean(2)
        >>> y, z = jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0])
        >>> v = space.log(y, z)
        >>> float(space.inner(y, v, v))
        25.0
        >>> space.exp(y, 0.5 * v).tolist()
        [2.5, 4.0]

    Cost: every member is at most one pass over the point; no field is evaluated.

    References:
        M. do Carmo, "Riemannian Geometry", 1992, chapter 3 (exponential map), of which this is the flat case.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...]):
        self.shape = check_shape_of_one(shape)

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return math.prod(self.shape)

    def exp(self, y: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Walk from ``y`` along the tangent ``v`` for unit time: ``y + v``.

        Args:
            y: a point.
            v: a tangent vector at ``y``.

        Returns:
            The point reached, shaped like ``y``.
        """
        check_points(self, y, v)
        return y + v

    def log(self, y: Float[Array, "*shape"], z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Tangent at ``y`` that ``exp`` takes to ``z``: ``z - y``.

        Args:
            y: the point where the tangent lives.
            z: the point to reach.

        Returns:
            The tangent vector, shaped like ``y``.
        """
        check_points(self, y, z)
        return z - y

    def inner(
        self, y: Float[Array, "*shape"], u: Float[Array, "*shape"], v: Float[Array, "*shape"]
    ) -> Float[Array, ""]:
        """Dot product of two tangents; the metric is the same at every ``y``.

        Args:
            y: the point where both tangents live.
            u: a tangent vector.
            v: a tangent vector.

        Returns:
            The scalar product.
        """
        check_points(self, y, u, v)
        return jnp.vdot(u, v)

    def project(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Nearest point of the space: ``y`` itself.

        Args:
            y: an ambient array.

        Returns:
            The point, shaped like ``y``.
        """
        check_points(self, y)
        return y

    def tangent(self, y: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Project an ambient vector on the tangent space at ``y``: ``v`` itself.

        Args:
            y: a point.
            v: an ambient vector.

        Returns:
            The tangent vector, shaped like ``v``.
        """
        check_points(self, y, v)
        return v
