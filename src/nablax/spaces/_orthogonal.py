"""Roots and logarithms of rotations by products and inverses alone, so that their derivatives are finite."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ROOTS, _TERMS, _POLAR_STEPS = 3, 12, 12


def rotation_root(matrix: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """The rotation by half of each angle: the orthogonal factor of I + R, by Newton's iteration, scaled.

    Every angle is below π; at π itself the root is not defined and comes out as no number.
    """

    def step(x: Array, _: None) -> tuple[Array, None]:
        inverse = jnp.linalg.inv(x).T
        # A scale changes how fast this converges, not where: it is no part of the derivative.
        scale = jax.lax.stop_gradient(jnp.sqrt(jnp.linalg.norm(inverse) / jnp.linalg.norm(x)))
        return (scale * x + inverse / scale) / 2, None

    return jax.lax.scan(step, matrix + jnp.eye(len(matrix), dtype=matrix.dtype), None, _POLAR_STEPS)[0]


def rotation_log(matrix: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """The antisymmetric logarithm of a rotation with angles below π.

    Three roots bring angles within π/8; there the series of 2 artanh W, W = (R − I)(R + I)⁻¹, ‖W‖ < 0.2, is exact to a
    rounding after twelve terms.
    """
    small = jax.lax.scan(lambda x, _: (rotation_root(x), None), matrix, None, _ROOTS)[0]
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    cayley = jnp.linalg.solve((small + identity).T, (small - identity).T).T
    square = cayley @ cayley
    weights = 1 / (2 * jnp.arange(_TERMS, dtype=matrix.dtype)[::-1] + 1)
    series = jax.lax.scan(lambda sum_, w: (square @ sum_ + w * identity, None), jnp.zeros_like(matrix), weights)[0]
    log = 2 ** (_ROOTS + 1) * cayley @ series
    return (log - log.T) / 2
