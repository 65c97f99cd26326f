"""MGDA: the shortest convex combination of the gradients."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import divide
from ._aggregator import of_gramian, of_weights, weighting
from ._complementarity import solve_one
from ._state import Weights, outcome


def mgda_weights(gramian: Float[Array, "K K"]) -> Weights:
    r"""MGDA's weights of a Gramian: :math:`\min_w w^{\top}Gw` over :math:`w\ge0`, :math:`\sum w=1`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.

    Returns:
        `Weights`, which sum to one.

    Raises:
        ValueError: the Gramian is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import mgda_weights
        >>> [round(float(w), 4) for w in mgda_weights(jnp.diag(jnp.array([1.0, 4.0]))).weights]
        [0.8, 0.2]

    Cost:
        One to twelve factorisations of a K × K matrix.
    """
    return of_gramian(_mgda, gramian)


def mgda(*, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Take the shortest vector in the convex hull of the gradients.

    .. math::
        d = J^{\top}w,\qquad w = \arg\min_{w\ge0,\ \sum w=1}\lVert J^{\top}w\rVert^2
        \quad\Rightarrow\quad \langle g_i, d\rangle \ge \lVert d\rVert^2

    No objective is hurt, and d vanishes exactly where no direction helps all. Small gradients dominate: an objective
    that has converged stops the others, and d does not grow in proportion to each gradient's norm.

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
        >>> aggregator = regulate.mgda()
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [0.5, 0.5]

    Cost:
        One Gramian, `mgda_weights`, one weighted sum.

    References:
        - Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", 2012,
          https://doi.org/10.1016/j.crma.2012.03.014
        - Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", 2018,
          https://arxiv.org/abs/1810.04650 (there by Frank and Wolfe's iteration; here solved to rounding)
    """
    return of_weights(_mgda, objectives=objectives, throw=throw)


@weighting()
def _mgda(cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> Weights:
    # min ‖Jᵀv‖² + (1ᵀv − 1)² over v ≥ 0 has the solution's direction, and is a complementarity problem. In unit rows
    # v = x / norms, and 1ᵀv in units of the smallest norm is tᵀx.
    vanished = norms == 0
    smallest = jnp.min(norms)
    ratios = jnp.where(jnp.any(vanished), vanished.astype(norms.dtype), divide(smallest, norms))
    solution = solve_one(cosines + ratios[:, None] * ratios[None, :], -ratios)
    weights = ratios * solution.x
    residual = solution.residual / jnp.maximum(1, jnp.max(solution.x))
    return Weights(weights / jnp.sum(weights), residual, outcome(solution.done))
