"""Hyperbolic space as a sheet of a hyperboloid, accurate far from its origin."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_key, divide, nonzero
from ._manifold import AbstractManifold, check_points, dot


class Lorentz(AbstractManifold):
    r"""Vectors on the upper sheet of the hyperboloid, with the metric of curvature −1.

    .. math::
        \langle u, v\rangle = -u_0v_0 + \textstyle\sum_{i\ge1} u_iv_i, \quad \langle y, y\rangle = -1,\ y_0 > 0,
        \qquad
        \exp_y(v) = \cosh(r)\,y + \frac{\sinh r}{r}\,v, \quad r = \sqrt{\langle v, v\rangle}

    A point at distance r from the origin has coordinates of size :math:`e^r/2`, and products of two cancel: distances
    between neighbours are right to a share of :math:`10^{-16}e^{r}` or so (:math:`10^{-7}e^{r}` in single precision).

    Args:
        size: number of a point's coordinates, one more than the dimension; 2 at least.

    Attributes:
        shape: shape of one point, ``(size,)``.
        dim: ``size - 1``.

    Raises:
        ValueError: ``size`` is no whole number, 2 at least.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import Lorentz
        >>> space = Lorentz(3)  # the hyperbolic plane
        >>> y = space.exp(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 2.0, 0.0]))
        >>> round(float(y[0]), 4)  # cosh 2
        3.7622

    Cost: a few passes over the point.

    References:
        Nickel, Kiela, "Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry", 2018,
        https://arxiv.org/abs/1806.03417, section 3. The distance by the chord, 2 asinh(√⟨z−y, z−y⟩/2), is derived here.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, size: int):
        self.shape = (check_count(size, what="size", least=2),)

    @property
    def dim(self) -> int:
        """One less than a point has coordinates."""
        return self.shape[0] - 1

    def exp(self, y: Float[Array, " size"], v: Float[Array, " size"]) -> Float[Array, " size"]:
        """Walk from ``y`` along ``v``, as far as ``v`` is long."""
        length = _root(self.inner(y, v, v))
        return self.project(jnp.cosh(length) * y + divide(jnp.sinh(length), length, 1) * v)

    def log(self, y: Float[Array, " size"], z: Float[Array, " size"]) -> Float[Array, " size"]:
        """Tangent at ``y`` that leads to ``z``, as long as the distance."""
        check_points(self, y, z)
        square = _chord(y, z)
        distance = 2 * jnp.arcsinh(_root(square) / 2)
        return divide(distance, jnp.sinh(distance), 1) * self.tangent(y, z - y)

    def inner(self, y: Float[Array, " size"], u: Float[Array, " size"], v: Float[Array, " size"]) -> Float[Array, ""]:
        """Minkowski's product, the same at every ``y``; of tangents it is positive."""
        check_points(self, y, u, v)
        return _product(u, v)

    def project(self, y: Float[Array, " size"]) -> Float[Array, " size"]:
        """The point above the array's last coordinates: its first becomes √(1 + Σ yᵢ²)."""
        check_points(self, y)
        return jnp.concatenate([jnp.sqrt(1 + dot(y[1:], y[1:]))[None], y[1:]])

    def tangent(self, y: Float[Array, " size"], v: Float[Array, " size"]) -> Float[Array, " size"]:
        """``v`` without its part along ``y``, orthogonal in Minkowski's product; its first number from the others."""
        check_points(self, y, v)
        v = v + _product(y, v) * y
        return jnp.concatenate([(dot(y[1:], v[1:]) / y[0])[None], v[1:]])

    def transport(
        self, y: Float[Array, " size"], v: Float[Array, " size"], z: Float[Array, " size"]
    ) -> Float[Array, " size"]:
        """Carry ``v`` from ``y`` to ``z`` along the geodesic: parallel, keeping lengths and angles."""
        check_points(self, y, v, z)
        return v + _product(z, v) / (2 + _chord(y, z) / 2) * (y + z)

    def gradient(self, y: Float[Array, " size"], ambient: Float[Array, " size"]) -> Float[Array, " size"]:
        """The ambient gradient, its first number's sign turned, made tangent."""
        check_points(self, y, ambient)
        return self.tangent(y, ambient.at[0].multiply(-1))

    def distance(self, y: Float[Array, " size"], z: Float[Array, " size"]) -> Float[Array, ""]:
        """Hyperbolic distance between two points."""
        check_points(self, y, z)
        return 2 * jnp.arcsinh(_root(_chord(y, z)) / 2)

    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, "count size"]:
        """Where standard normal tangents at the origin lead."""
        check_key(key)
        drawn = jax.random.normal(key, (check_count(count, what="count"), self.dim))
        origin = jnp.zeros(self.shape, drawn.dtype).at[0].set(1)
        return jax.vmap(lambda v: self.exp(origin, jnp.concatenate([jnp.zeros(1, v.dtype), v])))(drawn)


def _product(u: Array, v: Array) -> Array:
    return dot(u[1:], v[1:]) - u[0] * v[0]


def _chord(y: Array, z: Array) -> Array:
    """Minkowski's square of z − y, 4 sinh²(distance/2); the first numbers' difference by those of the others."""
    apart = z[1:] - y[1:]
    rise = dot(apart, z[1:] + y[1:]) / (y[0] + z[0])
    return jnp.maximum(dot(apart, apart) - rise**2, 0)


def _root(square: Array) -> Array:
    """Square root, of what rounding made negative zero; its derivative there is zero."""
    square = jnp.maximum(square, 0)
    return jnp.where(square == 0, 0, jnp.sqrt(nonzero(square)))
