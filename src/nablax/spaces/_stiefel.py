"""Frames: matrices with orthonormal columns."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import expm
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_key, exact, fault, nonzero
from ._manifold import AbstractManifold, check_points, dot
from ._orthogonal import rotation_log

_LOG_STEPS = 100


class Stiefel(AbstractManifold):
    r"""Matrices of orthonormal columns, fewer than rows, with the canonical metric.

    .. math::
        Y^TY = I, \qquad \langle U, V\rangle_Y = \operatorname{tr}\big(U^T(I-\tfrac12YY^T)V\big), \qquad
        \exp_Y(V) = e^{W}Y, \quad W = PVY^T-YV^TP,\ P = I-\tfrac12YY^T

    Distances are those of the least rotation of the whole space that takes one frame to the other.

    `log` iterates, and converges for frames up to some 2.5 apart, more slowly the farther; where it has not converged
    it gives NaN, and so does `distance`. Neither is to be differentiated. `transport` is by projection, since a
    parallel one has no closed form: lengths shrink as the tangent spaces turn.

    Args:
        rows: length of the columns.
        columns: how many there are, less than rows; for as many take `Rotations`.

    Attributes:
        shape: shape of one point, ``(rows, columns)``.
        dim: ``rows * columns - columns * (columns + 1) / 2``.

    Raises:
        ValueError: the numbers are not whole or not positive, or columns are not fewer than rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.spaces import Stiefel
        >>> space = Stiefel(4, 2)
        >>> frame = space.project(jnp.arange(8.0).reshape(4, 2) ** 2)
        >>> bool(jnp.allclose(frame.T @ frame, jnp.eye(2), atol=1e-6))
        True

    Cost: O(rows × columns²) and an exponential of 4 × columns; the logarithm some ten to a hundred logarithms of
    rotations of 2 × columns.

    References:
        - Edelman, Arias, Smith, "The Geometry of Algorithms with Orthogonality Constraints", 1998,
          https://arxiv.org/abs/physics/9806030, section 2.4 (canonical metric, gradient). The exponential by W, without
          the basis of a residual that may be singular, is derived here.
        - Zimmermann, "A matrix-algebraic algorithm for the Riemannian logarithm on the Stiefel manifold under the
          canonical metric", 2017, https://arxiv.org/abs/1604.05054, with its Procrustes start.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, rows: int, columns: int):
        self.shape = (check_count(rows, what="rows"), check_count(columns, what="columns"))
        if columns >= rows:
            raise fault(
                expected="fewer columns than rows",
                got=f"{rows} rows and {columns} columns",
                fix="Square orthogonal matrices are Rotations(size).",
            )

    @property
    def dim(self) -> int:
        """Number of a frame's free entries."""
        rows, columns = self.shape
        return rows * columns - columns * (columns + 1) // 2

    @exact
    def exp(self, y: Float[Array, "rows columns"], v: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        """Turn the frame ``y`` along ``v``."""
        check_points(self, y, v)
        part = v - y @ (y.T @ v) / 2
        # W = AB^T of low rank: exp(W) Y = Y + A φ(B^TA) B^TY, with φ(X) = (e^X − 1)/X a block of one exponential.
        a, b = jnp.concatenate([part, y], axis=1), jnp.concatenate([y, -part], axis=1)
        width = a.shape[1]
        blocks = jnp.zeros((2 * width, 2 * width), y.dtype)
        blocks = blocks.at[:width, :width].set(b.T @ a).at[:width, width:].set(jnp.eye(width, dtype=y.dtype))
        return y + a @ (expm(blocks)[:width, width:] @ (b.T @ y))

    @exact
    def log(self, y: Float[Array, "rows columns"], z: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        """Tangent at ``y`` that leads to ``z``; NaN where the iteration has not converged."""
        check_points(self, y, z)
        columns = y.shape[1]
        # Both frames in one basis, the first columns of which are y.
        basis = jnp.concatenate([y, jnp.linalg.qr(jnp.concatenate([y, z - y @ (y.T @ z)], axis=1))[0][:, columns:]], 1)
        frame = basis.T @ z
        rest = jnp.linalg.qr(frame, mode="complete")[0][:, columns:]
        # Of all that completes the frame to a rotation, what is nearest to the identity; then what turns least.
        left, _, right = jnp.linalg.svd(rest[columns:])
        sign = jnp.sign(jnp.linalg.det(jnp.concatenate([frame, rest @ right.T @ left.T], axis=1)))
        rest = rest @ right.T.at[:, -1].multiply(sign) @ left.T
        rounding = jnp.finfo(y.dtype).eps

        def going_on(carry: tuple) -> Array:
            turn, _, log = carry
            return (turn < _LOG_STEPS) & (jnp.linalg.norm(log[columns:, columns:]) > 10 * len(log) * rounding)

        def step(carry: tuple) -> tuple:
            turn, rest, log = carry
            rest = rest @ expm(-log[columns:, columns:])
            return turn + 1, rest, rotation_log(jnp.concatenate([frame, rest], axis=1))

        start = (0, rest, rotation_log(jnp.concatenate([frame, rest], axis=1)))
        _, _, log = jax.lax.while_loop(going_on, step, start)
        converged = jnp.linalg.norm(log[columns:, columns:]) < rounding**0.75
        return jnp.where(converged, basis @ log[:, :columns], jnp.nan)

    @exact
    def inner(
        self, y: Float[Array, "rows columns"], u: Float[Array, "rows columns"], v: Float[Array, "rows columns"]
    ) -> Float[Array, ""]:
        """Canonical product of two tangents."""
        check_points(self, y, u, v)
        return dot(u, v) - dot(y.T @ u, y.T @ v) / 2

    @exact
    def project(self, y: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        """Nearest frame, by singular vectors; not to be differentiated, since singular values of frames are equal."""
        check_points(self, y)
        left, _, right = jnp.linalg.svd(y, full_matrices=False)
        return left @ right

    @exact
    def tangent(self, y: Float[Array, "rows columns"], v: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        """``v`` less y times the symmetric part of yᵀv."""
        check_points(self, y, v)
        inside = y.T @ v
        return v - y @ (inside + inside.T) / 2

    def transport(
        self, y: Float[Array, "rows columns"], v: Float[Array, "rows columns"], z: Float[Array, "rows columns"]
    ) -> Float[Array, "rows columns"]:
        """Carry ``v`` from ``y`` to ``z`` by projection on the tangents there; no isometry."""
        check_points(self, y)
        return self.tangent(z, v)

    @exact
    def gradient(
        self, y: Float[Array, "rows columns"], ambient: Float[Array, "rows columns"]
    ) -> Float[Array, "rows columns"]:
        """E − YEᵀY, of the canonical metric."""
        check_points(self, y, ambient)
        return self.tangent(y, ambient - y @ (ambient.T @ y))

    def distance(self, y: Float[Array, "rows columns"], z: Float[Array, "rows columns"]) -> Float[Array, ""]:
        """Length of the logarithm; NaN where that has not converged."""
        log = self.log(y, z)
        square = self.inner(y, log, log)
        return jnp.where(square == 0, 0, jnp.sqrt(nonzero(square)))

    @exact
    def sample(self, count: int, *, key: PRNGKeyArray) -> Float[Array, "count rows columns"]:
        """Frames drawn uniformly."""
        check_key(key)
        drawn = jax.random.normal(key, (check_count(count, what="count"), *self.shape))
        return jax.vmap(self.project)(drawn)
