"""A step of fitting a metric P = QᵀQ, Q any matrix or a triangular one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import exact, nonzero


class MatrixFit(NamedTuple):
    """A metric P = QᵀQ of one matrix, in the course of being fitted.

    Attributes:
        q: Q.
        bound: a running estimate of how strongly the criterion bends.
    """

    q: Float[Array, "dim dim"]
    bound: Float[Array, ""]


def matrix_begun(vector: Float[Array, " dim"], scale: Array) -> MatrixFit:
    """Q as a multiple of the identity."""
    return MatrixFit(scale * jnp.eye(vector.size, dtype=vector.dtype), jnp.zeros((), vector.dtype))


@exact
def matrix_halves(
    fit: MatrixFit, h: Float[Array, " dim"], probe: Float[Array, " dim"], *, triangular: bool
) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
    """Qh and Q⁻ᵀ times the probe: the criterion is the sum of their squares."""
    if triangular:
        return fit.q @ h, jax.scipy.linalg.solve_triangular(fit.q, probe, trans="T")
    return fit.q @ h, jnp.linalg.solve(fit.q.T, probe)


@exact
def matrix_fitted(
    fit: MatrixFit, probe: Float[Array, " dim"], h: Float[Array, " dim"], *, triangular: bool, rate: Any, decay: float
) -> MatrixFit:
    r"""Take one relative step down the criterion, :math:`dQ=\mathcal EQ`.

    Args:
        fit: what there is.
        probe: v.
        h: the curvature's product with it.
        triangular: keep to upper triangular matrices.
        rate: of the step, no unit, at most 1.
        decay: of the bound.
    """
    a, b = matrix_halves(fit, h, probe, triangular=triangular)
    size = jnp.sum(a**2) + jnp.sum(b**2)
    bound = jnp.maximum(decay * fit.bound + (1 - decay) * size, size)
    if triangular:
        change = jnp.triu(jnp.outer(a, a) - jnp.outer(b, b)) @ fit.q
    else:  # in another order, without the product of two matrices
        change = jnp.outer(a, a @ fit.q) - jnp.outer(b, b @ fit.q)
    return MatrixFit((fit.q - rate / nonzero(bound) * change).astype(fit.q.dtype), bound.astype(fit.bound.dtype))
