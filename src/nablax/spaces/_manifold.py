"""What a curved space answers beside: how tangents are carried, what a gradient is there, how far points are."""

import abc

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import fault
from ._space import AbstractSpace


class AbstractManifold(AbstractSpace):
    r"""A curved space with what optimisers need beside exponential and logarithm.

    Points and tangents are arrays of the space's shape in an ambient space of numbers; an ambient gradient
    :math:`e = \partial f/\partial y`, which JAX gives, becomes the Riemannian one by

    .. math:: \langle \operatorname{grad} f, v\rangle_y = \textstyle\sum_i e_i v_i \quad\text{for every tangent } v.

    Every member is of one point; wrap it in ``jax.vmap`` for more. Single and double precision; what is no point or
    no tangent is not noticed: `project` and `tangent` make it one.

    Example:
        >>> from nablax.spaces import AbstractManifold, Sphere
        >>> isinstance(Sphere(3), AbstractManifold)
        True

    Cost:
        None of the model.

    References:
        P.-A. Absil, R. Mahony, R. Sepulchre, "Optimization Algorithms on Matrix Manifolds", 2008, chapters 3, 5, 8.
    """

    @abc.abstractmethod
    def transport(
        self, y: Float[Array, "*shape"], v: Float[Array, "*shape"], z: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Carry the tangent ``v`` at ``y`` to a tangent at ``z``."""

    @abc.abstractmethod
    def gradient(self, y: Float[Array, "*shape"], ambient: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Tangent at ``y`` whose scalar products are the derivatives that the ambient gradient gives."""

    @abc.abstractmethod
    def distance(self, y: Float[Array, "*shape"], z: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Length of the shortest way from ``y`` to ``z``; its derivative where they meet is zero."""

    @abc.abstractmethod
    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, " count *shape"]:
        """Random points, on the leading axis."""


def check_points(space: AbstractSpace, *arrays: Array) -> None:
    """Refuse arrays that are not shaped like one point.

    Raises:
        ValueError: one is not.
    """
    for array in arrays:
        if jnp.shape(array) != space.shape:
            raise fault(
                expected=f"one array of shape {space.shape}",
                got=f"shape {jnp.shape(array)}",
                fix="For a batch, wrap the call in jax.vmap.",
            )


def dot(u: Array, v: Array) -> Array:
    """Sum of products, in the precision of the numbers on every device."""
    return jnp.sum(u * v)
