"""Hyperbolic space as a ball, whose edge is infinitely far."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_key, divide, nonzero, norm
from ._manifold import AbstractManifold, check_points, dot


class PoincareBall(AbstractManifold):
    r"""Vectors shorter than 1 with the metric of curvature −1.

    .. math::
        \langle u, v\rangle_y = \lambda_y^2 \textstyle\sum_i u_i v_i, \quad \lambda_y = \frac{2}{1-\lVert y\rVert^2},
        \qquad
        d(y, z) = 2\operatorname{asinh}\frac{\lVert z-y\rVert}{\sqrt{(1-\lVert y\rVert^2)(1-\lVert z\rVert^2)}}

    Near the edge a rounding moves a point far: 1 − ‖y‖² is lost. Points stay within 1 − 4e-3 in single precision and
    1 − 1e-5 in double, distances from the centre within 6.2 and 12.2; `exp` and `project` hold them there. Farther
    out take `Lorentz`, the same space.

    Args:
        dim: number of coordinates.

    Attributes:
        shape: shape of one point, ``(dim,)``.
        dim: number of coordinates.

    Raises:
        ValueError: ``dim`` is no whole number, 1 at least.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import PoincareBall
        >>> space = PoincareBall(2)
        >>> centre, half = jnp.zeros(2), jnp.array([0.5, 0.0])
        >>> round(float(space.distance(centre, half)), 4)  # log 3
        1.0986

    Cost: a few passes over the point.

    References:
        Ganea, Bécigneul, Hofmann, "Hyperbolic Neural Networks", 2018, https://arxiv.org/abs/1805.09112, lemmas 1 and 2
        (exponential, logarithm, transport by gyration). The differences that are taken before they cancel, and the
        distance by asinh, are derived here.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, dim: int):
        self.shape = (check_count(dim, what="dim"),)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.shape[0]

    def exp(self, y: Float[Array, " dim"], v: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Walk from ``y`` along ``v``: Möbius addition of a vector of length tanh(λ‖v‖/2); held within the edge."""
        check_points(self, y, v)
        length, half = norm(v), 1 / _room(y)
        w = divide(jnp.tanh(half * length), length, half).astype(v.dtype) * v
        along, square = dot(y, w), dot(w, w)
        sum_of_both = (1 + 2 * along + square) * y + _room(y) * w
        return self.project(sum_of_both / (1 + 2 * along + dot(y, y) * square))

    def log(self, y: Float[Array, " dim"], z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Tangent at ``y`` that leads to ``z``: along −y ⊕ z, as long as the distance in the metric."""
        half = self.distance(y, z) / 2
        apart = z - y
        square = dot(apart, apart)
        moved = (_room(y) * apart - square * y) / (_room(y) * _room(z) + square)  # −y ⊕ z, tanh(half) long
        return _room(y) * divide(half, jnp.tanh(half), 1) * moved

    def inner(self, y: Float[Array, " dim"], u: Float[Array, " dim"], v: Float[Array, " dim"]) -> Float[Array, ""]:
        """Sum of products times λ²."""
        check_points(self, y, u, v)
        scale = 2 / _room(y)
        return dot(scale * u, scale * v)

    def project(self, y: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The array itself, or what of it is as long as points may be."""
        check_points(self, y)
        longest = 1 - (1e-5 if y.dtype == jnp.float64 else 4e-3)
        length = norm(y).astype(y.dtype)
        return jnp.where(length > longest, longest / nonzero(length), 1) * y

    def tangent(self, y: Float[Array, " dim"], v: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """``v`` itself: every vector is a tangent."""
        check_points(self, y, v)
        return v

    def transport(
        self, y: Float[Array, " dim"], v: Float[Array, " dim"], z: Float[Array, " dim"]
    ) -> Float[Array, " dim"]:
        """Carry ``v`` from ``y`` to ``z`` along the geodesic: parallel, keeping lengths and angles."""
        check_points(self, y, v, z)
        yy, zz, yz, yv, zv = dot(y, y), dot(z, z), dot(y, z), dot(y, v), dot(z, v)
        # Gyration by z and −y, and the change of the metric's scale.
        of_z, of_y = 2 * yz * yv - zv * yy - yv, yv * zz - zv
        turned = v + 2 * (of_z * z - of_y * y) / (1 - 2 * yz + yy * zz)
        return _room(z) / _room(y) * turned

    def gradient(self, y: Float[Array, " dim"], ambient: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The ambient gradient over λ²."""
        check_points(self, y, ambient)
        return (_room(y) / 2) ** 2 * ambient

    def distance(self, y: Float[Array, " dim"], z: Float[Array, " dim"]) -> Float[Array, ""]:
        """Hyperbolic distance between two points."""
        check_points(self, y, z)
        return 2 * jnp.arcsinh(norm(z - y) / jnp.sqrt(_room(y) * _room(z)))

    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, "count dim"]:
        """Where standard normal tangents at the centre lead, held within the edge."""
        check_key(key)
        drawn = jax.random.normal(key, (check_count(count, what="count"), *self.shape)) / 2
        return jax.vmap(lambda v: self.exp(jnp.zeros_like(v), v))(drawn)


def _room(y: Array) -> Array:
    """How much the square of a point's length lacks of 1."""
    length = norm(y).astype(y.dtype)
    return (1 - length) * (1 + length)
