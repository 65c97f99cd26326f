"""IMTL-G and ConFIG: a direction at the same angle to every gradient."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import divide
from ._aggregator import aggregator, of_gramian, weighting
from ._state import Weights, outcome


def conflict_free_weights(gramian: Float[Array, "K K"]) -> Weights:
    r"""ConFIG's weights of a Gramian; see `conflict_free`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.

    Returns:
        `Weights`. The residual is the largest difference between the cosines and their mean: rounding where the
        gradients are independent, more where no direction makes equal angles.

    Raises:
        ValueError: the Gramian is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import conflict_free_weights
        >>> [round(float(w), 4) for w in conflict_free_weights(jnp.diag(jnp.array([1.0, 9.0]))).weights]
        [2.0, 0.6667]

    Cost:
        One eigendecomposition of a K × K matrix.
    """
    return of_gramian(_conflict_free, gramian)


def conflict_free(*, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""ConFIG: equal cosines to all gradients, as long as the sum of their projections.

    .. math::
        d = \Big(\sum_i\langle g_i, u\rangle\Big)u,\qquad u = \frac{\hat J^{+}1}{\lVert\hat J^{+}1\rVert}

    with :math:`\hat J` the gradients scaled to unit norm. Found from the Gramian's cosines, so that the long matrix
    is neither factorised nor copied. No objective is hurt where the gradients are linearly independent; where they
    are not, the residual tells by how much the angles differ, and conflict may remain. Vanished gradients count as
    absent.

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
    return aggregator(_conflict_free, objectives=objectives, throw=throw)


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


def _balanced(cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> tuple[Array, Array, Array]:
    """``C⁺1``, the cosines' common size ``C C⁺1``, and by how much they differ."""
    values, vectors = jnp.linalg.eigh(cosines)
    floor = 8 * len(norms) * jnp.finfo(cosines.dtype).eps
    powers = jnp.where(values > floor, 1 / jnp.where(values > floor, values, 1), 0)
    present = (norms > 0).astype(norms.dtype)
    multiples = vectors @ (powers * (vectors.T @ present))
    reached = cosines @ multiples
    length = jnp.sqrt(jnp.maximum(multiples @ reached, jnp.finfo(cosines.dtype).tiny))
    middle = jnp.sum(reached) / jnp.maximum(jnp.sum(present), 1)
    spread = jnp.max(jnp.where(norms > 0, jnp.abs(reached - middle), 0)) / length
    return multiples, reached / length, jnp.where(jnp.any(norms > 0), spread, 0)


@weighting()
def _conflict_free(cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> Weights:
    # Ĵ⁺1 = Ĵᵀ(ĴĴᵀ)⁺1 = Ĵᵀ C⁺1, so that only C is decomposed; ‖Ĵ⁺1‖² = (C⁺1)ᵀ C (C⁺1).
    multiples, angles, spread = _balanced(cosines, norms)
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
