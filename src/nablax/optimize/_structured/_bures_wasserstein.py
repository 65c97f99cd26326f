"""The Bures–Wasserstein loss of a factored covariance, with derivatives that stay finite where it loses rank."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_shape, divide, exact
from .._settings import check_not_negative


@exact
def bures_wasserstein_loss(
    factor: Float[Array, "dim width"],
    target: Float[Array, "dim rank"],
    *,
    smoothing: float | Float[Array, ""] = 0.0,
) -> Float[Array, ""]:
    r"""Squared Bures–Wasserstein distance of two covariances that are given by factors.

    .. math::
        L(W) = \operatorname{tr}\Sigma+\operatorname{tr}\Sigma_0
        -2\operatorname{tr}\bigl(\Sigma_0^{1/2}\Sigma\,\Sigma_0^{1/2}\bigr)^{1/2}
        = \lVert W\rVert_F^2+\lVert R\rVert_F^2-2\lVert R^\top W\rVert_*,
        \qquad \Sigma = WW^\top,\quad \Sigma_0 = RR^\top

    with the sum of singular values last: what Gaussians of mean zero are apart by optimal transport. A linear network
    :math:`x=W_N\cdots W_1z` of normal z is trained by it at :math:`W=W_N\cdots W_1`. The gradient is

    .. math:: \nabla_W L = 2\,(W-R\,UV^\top), \qquad R^\top W = U\,S\,V^\top

    over singular values that are not zero; where there are such it is the shortest of the gradients around. No root of
    a matrix is taken, nor derivatives of eigenvectors, which are NaN there.

    Its landscape is known: among factors of width k critical are those whose covariance is :math:`\Sigma_0` cut to
    k or fewer of its eigenvectors, the loss is the sum of the eigenvalues that were left out, the least is that of the
    k largest, and all others are saddles, with a curvature of :math:`2(1-\lambda_{out}/\lambda_{in})` towards
    exchanging one for another. Where the rank falls curvatures grow without bound; with smoothing they do not:

    .. math:: L_\tau(W) = L\bigl([\,W,\ \sqrt\tau\,I\,]\bigr), \qquad \text{that is, of } \Sigma = WW^\top+\tau I

    whose least over width k is :math:`\sum_{i>k}(\sqrt{\lambda_i}-\sqrt\tau)^2` where
    :math:`\tau\le\lambda_k`.

    Args:
        factor: W, the model's; Σ has its unit squared.
        target: R, the data's: a Cholesky factor, a root, or centred rows as columns, over the root of their number.
        smoothing: τ, 0 or more, in the covariances' unit; 0 by default.

    Returns:
        L, in the covariances' unit.

    Raises:
        ValueError: no matrices, or of another dimension; a negative smoothing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> target = jnp.diag(jnp.array([3.0, 2.0, 1.0]))  # a covariance of 9, 4 and 1
        >>> model = jnp.zeros((3, 2)).at[0, 0].set(3.0)  # has found the first of them
        >>> value, gradient = jax.value_and_grad(optimize.bures_wasserstein_loss)(model, target)
        >>> float(value), float(jnp.abs(gradient).max())  # a saddle, of rank 1
        (5.0, 0.0)

    Cost: a singular value decomposition of rank by width, and of rank by width + dim with smoothing; a Hessian product
        as much again and some matrix products.

    References:
        - Bréchet, Papagiannouli, An and Montúfar, "Critical Points and Convergence Analysis of Generative Deep Linear
          Networks Trained with Bures-Wasserstein Loss", 2023, https://arxiv.org/abs/2303.03027, and the authors' code,
          https://github.com/brechetp/BW-linear-networks: the loss by the nuclear norm, its smoothing, the gradient and
          the least loss are the same. There the gradient without smoothing keeps :math:`UV^\top` where singular values
          are zero, that with smoothing takes the inverse of a matrix root, and τ is cut to the kth eigenvalue of
          :math:`\Sigma_0`. Second derivatives and the saddles' curvature were derived here.
    """
    w = check_shape(factor, (None, None), what="factor", fix="Pass a matrix, dim by width.")
    r = check_shape(target, (len(w), None), what="target", fix="Pass a matrix with as many rows as the factor.")
    check_not_negative(smoothing=smoothing)
    if not isinstance(smoothing, int | float) or smoothing:
        w = jnp.concatenate([w, jnp.sqrt(smoothing) * jnp.eye(len(w), dtype=w.dtype)], axis=1)
    return jnp.sum(w**2) + jnp.sum(r**2) - 2 * _nuclear(r.T @ w)


@jax.custom_jvp
def _nuclear(a: Float[Array, "rows columns"]) -> Float[Array, ""]:
    """The sum of singular values."""
    return jnp.sum(jnp.linalg.svd(a, compute_uv=False))


@_nuclear.defjvp
@exact
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a,), (change,) = primals, tangents
    return _nuclear(a), jnp.sum(_polar(a) * change)


@jax.custom_jvp
def _polar(a: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """UVᵀ over singular values above rounding."""
    u, s, v = _decomposed(a)
    return (u * (s > 0)[None]) @ v


@_polar.defjvp
@exact
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Of the part of a that has rank: divided by sums of two singular values and by single ones, not by differences."""
    (a,), (change,) = primals, tangents
    u, s, v = _decomposed(a)
    kept = (s > 0).astype(a.dtype)
    u, v = u * kept[None], v * kept[:, None]
    inner = u.T @ change @ v.T
    turn = divide(inner - inner.T, s[:, None] + s[None, :])
    once = divide(kept, s)
    left = (change @ v.T - u @ inner) * once[None]
    right = once[:, None] * (u.T @ change - inner @ v)
    return u @ v, u @ turn @ v + left @ v + u @ right


def _decomposed(a: Float[Array, "rows columns"]) -> tuple[Array, Array, Array]:
    """The thin decomposition, with zero for singular values that rounding may have left."""
    u, s, v = jnp.linalg.svd(a, full_matrices=False)
    return u, jnp.where(s > jnp.finfo(a.dtype).eps * max(a.shape) * s[:1], s, 0), v
