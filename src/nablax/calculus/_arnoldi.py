"""Extreme eigenvalues of a linear map from a small projection of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import Key, canonical_convolutions
from ._lanczos import iterate


def arnoldi(
    product: Callable[[Float[Array, " dim"]], Float[Array, " dim"]], dim: int, steps: int, *, key: Key, dtype: jnp.dtype
) -> tuple[Float[Array, "steps steps"], Float[Array, ""]]:
    """Project a map on its Krylov space from a random start, orthogonalised twice.

    Args:
        product: the linear map of flat vectors.
        dim: their length.
        steps: dimension of the Krylov space, at most ``dim``.
        key: for the start.
        dtype: of the vectors.

    Returns:
        The projection (upper Hessenberg) and the length of what its last column leaves outside the space.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import arnoldi, ritz_values
        >>> turn = jnp.array([[0.0, -2.0], [2.0, 0.0]])
        >>> projected, left = arnoldi(lambda v: turn @ v, 2, 2, key=jax.random.key(0), dtype=jnp.float32)
        >>> values, residuals = ritz_values(projected, left)
        >>> [f"{abs(value.imag):.3f}" for value in values]
        ['2.000', '2.000']

    Cost:
        ``steps`` products and two orthogonalisations against all earlier vectors in each.

    References:
        - Arnoldi, "The principle of minimized iterations in the solution of the matrix eigenvalue problem", 1951,
          https://doi.org/10.1090/qam/42792
    """
    start = jax.random.normal(key, (dim,), dtype)
    run = iterate(canonical_convolutions(product), start, start, steps)
    return run.projected.T, run.dropped[-1]


def ritz_values(projections: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of projections, and what each misses of being one of the map's.

    Args:
        projections: ``[..., steps, steps]``, from `arnoldi`.
        left: ``[...]``, the length left outside.

    Returns:
        Complex eigenvalues ``[..., steps]`` and residual norms ``‖Av − λv‖`` for unit ``v``, ``[..., steps]``.

    Example:
        >>> import numpy as np
        >>> from nablax.calculus import ritz_values
        >>> ritz_values(np.diag([1.0, 3.0]), np.array(0.0))[0].real
        array([1., 3.])

    Cost:
        One dense eigendecomposition of each projection, on the host.
    """
    # On the host: not every accelerator has the unsymmetric eigenproblem.
    values, vectors = np.linalg.eig(np.asarray(projections, np.float64))
    return values, np.asarray(left, np.float64)[..., None] * np.abs(vectors[..., -1, :])
