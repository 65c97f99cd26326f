"""IMTL-G and ConFIG: a direction at the same angle to every gradient."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..._core import divide, peak
from ._aggregator import aggregator, of_gramian, weighting
from ._checks import check_preference
from ._state import Weights, outcome


def conflict_free_weights(gramian: Float[Array, "K K"], preference: ArrayLike | None = None) -> Weights:
    r"""ConFIG's weights of a Gramian; see `conflict_free`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.
        preference: the cosines' ratios, equal by default; see `conflict_free`.

    Returns:
        `Weights`. The residual is the largest difference between the cosines and the nearest multiple of the
        preference: rounding where the gradients are independent, more where no direction makes such angles.

    Raises:
        ValueError: the Gramian is not square, or the preference none for its rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import conflict_free_weights
        >>> [round(float(w), 4) for w in conflict_free_weights(jnp.diag(jnp.array([1.0, 9.0]))).weights]
        [2.0, 0.6667]

    Cost:
        One eigendecomposition of a K × K matrix.
    """
    return of_gramian(_conflict_free, gramian, check_preference(preference, len(gramian))[0])


def conflict_free(
    *, preference: ArrayLike | None = None, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""ConFIG: equal cosines to all gradients, as long as the sum of their projections.

    .. math::
        d = \Big(\sum_i\langle g_i, u\rangle\Big)u,\qquad u = \frac{\hat J^{+}c}{\lVert\hat J^{+}c\rVert},\qquad c_i=1

    with :math:`\hat J` the gradients scaled to unit norm. Found from the Gramian's cosines, so that the long matrix
    is neither factorised nor copied. No objective is hurt where the gradients are linearly independent; where they
    are not, the residual tells by how much the angles differ, and conflict may remain. Vanished gradients count as
    absent.

    Args:
        preference: c, to which the cosines are proportional, none negative; equal by default.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree; the preference is none; see `upgrad`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.conflict_free()
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 3.0]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [2.0, 2.0]

    Cost:
        One Gramian, one eigendecomposition of a K × K matrix, one weighted sum.

    References:
        - Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", 2024,
          https://arxiv.org/abs/2408.11104 (the definition; the form in cosines is ours)
    """
    given, objectives = check_preference(preference, objectives)
    return aggregator(lambda *two: _conflict_free(*two, given), objectives=objectives, throw=throw)


def imtl_g_weights(gramian: Float[Array, "K K"]) -> Weights:
    r"""IMTL-G's weights of a Gramian; see `imtl_g`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.

    Returns:
        `Weights`, which sum to one; residual as for `conflict_free_weights`.

    Raises:
        ValueError: the Gramian is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import imtl_g_weights
        >>> [round(float(w), 4) for w in imtl_g_weights(jnp.diag(jnp.array([1.0, 9.0]))).weights]
        [0.75, 0.25]

    Cost:
        One eigendecomposition of a K × K matrix.
    """
    return of_gramian(_imtl_g, gramian)


def imtl_g(*, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""IMTL-G: equal projections on all gradients' directions, with weights that sum to one.

    .. math::
        d = J^{\top}w,\qquad w \propto G^{+}n,\quad \sum_i w_i = 1,\quad n_i=\lVert g_i\rVert

    Weights may be negative, and where their sum nears zero d grows beyond bound and may turn round: the method has no
    safeguard, and none is added. Where the sum vanishes to rounding there is no solution: that is a failure, with
    weights of zero and an infinite residual.

    Args:
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.imtl_g()
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 3.0]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [0.75, 0.75]

    Cost:
        One Gramian, one eigendecomposition of a K × K matrix, one weighted sum.

    References:
        - Liu et al., "Towards Impartial Multi-task Learning", 2021, https://openreview.net/forum?id=IMPnRXEWpvr
          (with the pseudo-inverse of Quinton and Rey, 2024, https://arxiv.org/abs/2406.16232)
    """
    return aggregator(_imtl_g, objectives=objectives, throw=throw)


def _balanced(
    cosines: Float[Array, "K K"], norms: Float[Array, " K"], preference: Array | None = None
) -> tuple[Array, Array, Array]:
    """``C⁺c``, the cosines ``C C⁺c`` over their direction's length, and by how much they miss a multiple of ``c``."""
    values, vectors = jnp.linalg.eigh(cosines)
    floor = 8 * len(norms) * jnp.finfo(cosines.dtype).eps
    powers = jnp.where(values > floor, 1 / jnp.where(values > floor, values, 1), 0)
    factors = jnp.ones_like(norms) if preference is None else (preference / peak(preference)).astype(norms.dtype)
    wanted = jnp.where(norms > 0, factors, 0)
    multiples = vectors @ (powers * (vectors.T @ wanted))
    reached = cosines @ multiples
    length = jnp.sqrt(jnp.maximum(multiples @ reached, jnp.finfo(cosines.dtype).tiny))
    nearest = divide(reached @ wanted, wanted @ wanted) * wanted
    spread = jnp.max(jnp.where(norms > 0, jnp.abs(reached - nearest), 0)) / length
    return multiples, reached / length, jnp.where(jnp.any(norms > 0), spread, 0)


@weighting()
def _conflict_free(cosines: Float[Array, "K K"], norms: Float[Array, " K"], preference: Array | None = None) -> Weights:
    # Ĵ⁺c = Ĵᵀ(ĴĴᵀ)⁺c = Ĵᵀ C⁺c, so that only C is decomposed; ‖Ĵ⁺c‖² = (C⁺c)ᵀ C (C⁺c).
    multiples, angles, spread = _balanced(cosines, norms, preference)
    length = jnp.sqrt(jnp.maximum(multiples @ cosines @ multiples, jnp.finfo(norms.dtype).tiny))
    return Weights(divide(multiples / length * (norms @ angles), norms), spread)


@weighting()
def _imtl_g(cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> Weights:
    # G⁺n = (C⁺1) / n where C is regular; the common factor, which the sum takes out, is the smallest norm.
    multiples, _, spread = _balanced(cosines, norms)
    present = jnp.where(norms > 0, norms, jnp.inf)
    weights = divide(multiples * jnp.min(present), norms)
    total, size = jnp.sum(weights), jnp.sum(jnp.abs(weights))
    valid = jnp.abs(total) > 8 * jnp.finfo(norms.dtype).eps * size
    weights = jnp.where(valid, weights / jnp.where(valid, total, 1), 0)
    done = valid | ~jnp.any(norms > 0)
    return Weights(weights, jnp.where(done, spread, jnp.inf), outcome(done))
