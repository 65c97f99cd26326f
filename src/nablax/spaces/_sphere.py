"""Directions: arrays of length 1."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_key, check_shape_of_one, fault, norm, unit_vector
from ._manifold import AbstractManifold, check_points, dot


class Sphere(AbstractManifold):
    r"""Arrays of one shape and of Euclidean length 1, with the metric of the space around.

    .. math::
        \exp_y(v) = \cos(\lVert v\rVert)\,y + \frac{\sin\lVert v\rVert}{\lVert v\rVert}\,v, \qquad
        d(y, z) = 2\operatorname{atan2}(\lVert z-y\rVert, \lVert z+y\rVert)

    Distances are angles in radians, accurate at 0 and at π. At the antipode every direction leads there: where
    ``z`` is ``-y`` to the last bit `log` takes one of them, and `transport` is not defined and gives NaN.

    Args:
        shape: shape of one point, of two numbers at least; an integer stands for a vector of that length.

    Attributes:
        shape: shape of one point, a tuple.
        dim: one less than there are numbers.

    Raises:
        ValueError: a side of the shape is not a positive integer, or there is one number only.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import Sphere
        >>> space = Sphere(2)
        >>> east, north = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> [round(float(x), 4) for x in space.log(east, north)]
        [0.0, 1.5708]

    Cost: a few passes over the point.

    References:
        Absil, Mahony, Sepulchre, "Optimization Algorithms on Matrix Manifolds", 2008, examples 5.4.1 and 8.1.1. The
        angle by atan2 is W. Kahan's.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...]):
        self.shape = check_shape_of_one(shape)
        if math.prod(self.shape) < 2:
            raise fault(expected="two numbers at least", got=repr(shape), fix="Sphere(3) is the sphere of globes.")

    @property
    def dim(self) -> int:
        """One less than a point has numbers."""
        return math.prod(self.shape) - 1

    def exp(self, y: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Walk the great circle from ``y`` along ``v``, as far as ``v`` is long."""
        check_points(self, y, v)
        angle = norm(v)
        return unit_vector(jnp.cos(angle) * y + jnp.sinc(angle / jnp.pi) * v)

    def log(self, y: Float[Array, "*shape"], z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Tangent at ``y`` along the shorter great circle to ``z``, as long as the angle between them."""
        angle = self.distance(y, z)
        across = self.tangent(y, z - y)
        near = across / jnp.sinc(jnp.minimum(angle, 1) / jnp.pi)
        least = jnp.argmin(jnp.abs(y).reshape(-1))  # an axis that is not y's, for the antipode
        any_way = self.tangent(y, jnp.zeros(y.size, y.dtype).at[least].set(1).reshape(y.shape))
        far = angle * unit_vector(jnp.where(jnp.all(across == 0), any_way, self.tangent(y, unit_vector(across))))
        return jnp.where(angle < 1, near, far)

    def inner(
        self, y: Float[Array, "*shape"], u: Float[Array, "*shape"], v: Float[Array, "*shape"]
    ) -> Float[Array, ""]:
        """Sum of products of two tangents."""
        check_points(self, y, u, v)
        return dot(u, v)

    def project(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The array over its length; NaN at zero, which is as far from every point."""
        check_points(self, y)
        return jnp.where(jnp.any(y != 0), unit_vector(y), jnp.nan)

    def tangent(self, y: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """``v`` without its part along ``y``."""
        check_points(self, y, v)
        return v - dot(y, v) * y

    def transport(
        self, y: Float[Array, "*shape"], v: Float[Array, "*shape"], z: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Carry ``v`` from ``y`` to ``z`` along the great circle: parallel, keeping lengths and angles."""
        check_points(self, y, v, z)
        both = y + z
        return v - 2 * dot(z, v) / dot(both, both) * both

    def gradient(self, y: Float[Array, "*shape"], ambient: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The ambient gradient's tangent part."""
        return self.tangent(y, ambient)

    def distance(self, y: Float[Array, "*shape"], z: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Angle between two points, in radians, up to π."""
        check_points(self, y, z)
        return 2 * jnp.arctan2(norm(z - y), norm(z + y))

    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, " count *shape"]:
        """Points drawn uniformly."""
        check_key(key)
        drawn = jax.random.normal(key, (check_count(count, what="count"), *self.shape))
        return jax.vmap(self.project)(drawn)
