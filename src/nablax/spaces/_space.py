"""What every space answers: where a tangent leads, which tangent leads there, how long it is."""

import abc

import equinox as eqx
from jaxtyping import Array, Float


class AbstractSpace(eqx.Module):
    r"""A set of points, arrays of one shape, each with a tangent space.

    Code that is written with these members alone, such as a path along ``exp(y, t * log(y, z))``, serves flat and
    curved spaces alike.

    Attributes:
        shape: shape of one point, a tuple.
        dim: of the space, the number of independent directions at a point.

    Example:
        >>> from nablax.spaces import AbstractSpace, Euclidean
        >>> isinstance(Euclidean(2), AbstractSpace)
        True

    Cost:
        None of the model.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Number of independent directions at a point."""

    @abc.abstractmethod
    def exp(self, y: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Walk from ``y`` along the tangent ``v`` for unit time."""

    @abc.abstractmethod
    def log(self, y: Float[Array, "*shape"], z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Tangent at ``y`` that ``exp`` takes to ``z``."""

    @abc.abstractmethod
    def inner(
        self, y: Float[Array, "*shape"], u: Float[Array, "*shape"], v: Float[Array, "*shape"]
    ) -> Float[Array, ""]:
        """Scalar product of two tangents at ``y``."""

    @abc.abstractmethod
    def project(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Nearest point of the space to an ambient array."""

    @abc.abstractmethod
    def tangent(self, y: Float[Array, "*shape"], v: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Nearest tangent at ``y`` to an ambient vector."""


__all__ = ["AbstractSpace"]
