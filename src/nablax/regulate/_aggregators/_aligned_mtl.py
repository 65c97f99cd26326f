"""Aligned-MTL: the gradients' principal components brought to one length."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..._core import peak
from ._aggregator import aggregator, of_gramian, weighting
from ._checks import check_preference
from ._state import Weights


def aligned_mtl_weights(gramian: Float[Array, "K K"], preference: ArrayLike | None = None) -> Weights:
    r"""Aligned-MTL's weights of a Gramian; see `aligned_mtl`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.
        preference: one factor for each objective, 1/K each by default.

    Returns:
        `Weights`; the residual is the largest entry of :math:`BGB-\sigma^2\Pi` over :math:`\sigma^2`, with
        :math:`\Pi` the projection on the rows' span.

    Raises:
        ValueError: the Gramian is not square, or the preference none for its rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import aligned_mtl_weights
        >>> [round(float(w), 4) for w in aligned_mtl_weights(jnp.diag(jnp.array([1.0, 9.0]))).weights]
        [0.5, 0.1667]

    Cost:
        One eigendecomposition of a K × K matrix.
    """
    return of_gramian(_aligned_mtl, gramian, check_preference(preference, len(gramian))[0])


def aligned_mtl(
    *, preference: ArrayLike | None = None, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the gradients by the orthogonal ones nearest to them, and average.

    .. math::
        d = J^{\top}B\,c,\qquad B = \sigma\,G^{-1/2},\quad \sigma^2=\lambda_{\min}(G),\quad c_i=\tfrac1K

    Every principal component of the gradients gets the smallest one's length. Components below the rounding of the
    largest, :math:`\lambda\le8K\epsilon\lambda_{\max}`, count as absent; so in single precision does a gradient a
    thousand times shorter than another. No objective is promised not to be hurt.

    Args:
        preference: c, one factor for each aligned gradient, none negative; 1/K each by default.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree; the preference is none; see `upgrad`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.aligned_mtl()
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 3.0]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [0.5, 0.5]

    Cost:
        One Gramian, one eigendecomposition of a K × K matrix, one weighted sum.

    References:
        - Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task Learning", 2023,
          https://arxiv.org/abs/2305.19000
    """
    given, objectives = check_preference(preference, objectives)
    return aggregator(lambda *two: _aligned_mtl(*two, given), objectives=objectives, throw=throw)


@weighting()
def _aligned_mtl(cosines: Float[Array, "K K"], norms: Float[Array, " K"], preference: Array | None = None) -> Weights:
    equal = jnp.full(len(norms), 1 / len(norms), norms.dtype)
    factors = equal if preference is None else preference.astype(norms.dtype)
    shares = norms / peak(norms)
    gramian = cosines * shares[:, None] * shares[None, :]
    values, vectors = jnp.linalg.eigh(gramian)
    kept = values > 8 * len(norms) * jnp.finfo(values.dtype).eps * jnp.max(values)
    smallest = jnp.min(jnp.where(kept, values, jnp.inf))
    # B = σ G^(-1/2) on the rows' span, by the eigenvalues of G in place of the singular values of J: lengths are σ/√λ.
    lengths = jnp.where(kept, jnp.sqrt(smallest / jnp.where(kept, values, 1)), 0)
    transform = (vectors * lengths[None, :]) @ vectors.T
    # What the definition asks of the balanced Gramian B G B: σ² on the span.
    span = (vectors * kept[None, :]) @ vectors.T
    balanced = vectors.T @ gramian @ vectors * lengths[:, None] * lengths[None, :]
    missed = jnp.max(jnp.abs(vectors @ (balanced / smallest) @ vectors.T - span))
    some = jnp.any(kept)
    weights = jnp.where(some, transform @ factors, factors)
    return Weights(weights, jnp.where(some, missed, 0))
