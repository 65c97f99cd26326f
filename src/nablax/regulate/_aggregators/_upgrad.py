"""UPGrad and its cheaper relative: projections on the cone of directions that hurt nobody."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..._core import divide, peak
from ._aggregator import of_gramian, of_weights, weighting
from ._arithmetic import with_unit_diagonal
from ._checks import check_preference
from ._complementarity import solve, solve_one
from ._state import Weights, outcome


def upgrad_weights(gramian: Float[Array, "K K"], preference: ArrayLike | None = None) -> Weights:
    r"""UPGrad's weights of a Gramian.

    A Gramian resolves no angle below the square root of its rounding: 5e-4 in single precision. `upgrad`, which has the
    gradients, does.

    Args:
        gramian: :math:`JJ^{\top}`, with the objectives' gradients as the rows of J, in any unit.
        preference: one factor for each objective, see `upgrad`; 1/K each by default.

    Returns:
        `Weights`: their residual is the worst, over the K projections, of :math:`\max_j|\min(v_j - u_j, (Gv)_j)|`
        for gradients of unit norm.

    Raises:
        ValueError: the Gramian is not square, or the preference none for its rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import upgrad_weights
        >>> grads = jnp.array([[1.0, 0.0], [-0.5, 1.0]])
        >>> weights = upgrad_weights(grads @ grads.T).weights
        >>> bool(jnp.all(grads @ (weights @ grads) >= 0)), bool(grads[0] @ grads.mean(0) >= 0)
        (True, True)

    Cost:
        About 2 K factorisations of a K/2 × K/2 matrix; up to 12 K of K × K where the gradients are linearly dependent.
    """
    return of_gramian(_upgrad, gramian, check_preference(preference, len(gramian))[0])


def upgrad(
    *, preference: ArrayLike | None = None, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Project every gradient on the dual cone of all of them, and average.

    .. math::
        d = \sum_i c_i\,\pi(g_i),\qquad \pi(g) = \arg\min_{p:\,Jp\ge0}\lVert p-g\rVert,\qquad c_i=\tfrac1K

    The step :math:`-d` hurts no objective to first order, and grows in proportion to each gradient's norm. The
    projections are found in weights, :math:`\min_v v^{\top}Gv` with :math:`v\ge e_i`, for gradients scaled to unit
    norm, so that neither their size nor their sizes' ratio matters. Linearly dependent gradients are allowed: v is then
    not unique but d is.

    The promise is held to on the vector: slopes along it are measured, and conflict that the solve's rounding has left
    is projected out. With :math:`r=\lVert d\rVert/\sum_iw_i\lVert g_i\rVert` no cosine with a gradient is then below
    :math:`-2\epsilon/r`; where r is itself below rounding the direction is zero and the state says ``stationary``.

    Args:
        preference: c, one factor for each objective, none negative; 1/K each by default. No preference makes the
            direction hurt an objective, not one of zero either.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation whose updates have leading axis K going in and none coming out.

    Raises:
        ValueError: leading axes disagree with one another, with ``objectives`` or with the preference's length;
            preferences are negative, not finite or all zero.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import regulate
        >>> optimizer = optax.chain(regulate.upgrad(), optax.adam(1e-3))
        >>> params = jnp.zeros(2)
        >>> grads = jnp.array([[1.0, 0.0], [-0.5, 1.0]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> updates.shape
        (2,)

    Cost:
        One Gramian, K² inner products of gradients; `upgrad_weights`; one weighted sum; K inner products to check it.

    References:
        - Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, https://arxiv.org/abs/2406.16232
          (the aggregator, its preference vector and its dual; scaling, solver and refinement are ours)
        - Júdice and Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
          complementarity problems", 1994, https://doi.org/10.1016/0305-0548(94)90106-6
        - Mehrotra, "On the implementation of a primal-dual interior point method", 1992,
          https://doi.org/10.1137/0802028
    """
    given, objectives = check_preference(preference, objectives)
    return of_weights(lambda *two: _upgrad(*two, given), objectives=objectives, throw=throw)


def dual_projection_weights(gramian: Float[Array, "K K"], preference: ArrayLike | None = None) -> Weights:
    r"""Weights of the mean gradient's projection on the dual cone.

    Args:
        gramian: :math:`JJ^{\top}`.
        preference: one factor for each objective, 1/K each by default; see `upgrad`.

    Returns:
        `Weights`, residual as for `upgrad_weights`.

    Raises:
        ValueError: the Gramian is not square, or the preference none for its rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import dual_projection_weights
        >>> dual_projection_weights(jnp.eye(2)).weights.tolist()
        [0.5, 0.5]

    Cost:
        One to twelve factorisations of a K × K matrix.
    """
    return of_gramian(_dual_projection, gramian, check_preference(preference, len(gramian))[0])


def dual_projection(
    *, preference: ArrayLike | None = None, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Project the mean gradient on the dual cone, :math:`d = \pi(\sum_i c_i g_i)` with :math:`c_i=1/K`; see `upgrad`.

    One solve in place of K. No objective is hurt, but the result does not grow in proportion to each gradient.

    Args:
        preference: c, one factor for each objective, none negative; 1/K each by default.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: leading axes disagree; the preference is none; see `upgrad`.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.dual_projection()
        >>> grads = jnp.array([[2.0, 0.0], [-1.0, 0.0]])
        >>> abs(aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]).round(4).tolist()
        [0.0, 0.0]

    Cost:
        One Gramian, one solve, one weighted sum, K inner products to check it.

    References:
        - Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", 2017,
          https://arxiv.org/abs/1706.08840 (projection of one gradient; of the mean as in Quinton and Rey, 2024)
    """
    given, objectives = check_preference(preference, objectives)
    return of_weights(lambda *two: _dual_projection(*two, given), objectives=objectives, throw=throw)


@weighting()
def _upgrad(cosines: Float[Array, "K K"], norms: Float[Array, " K"], preference: Array | None = None) -> Weights:
    # For unit rows and u = e_i the bound is 1 whatever the gradients' norms: v = c_i n_i / n_j z with z ≥ e_i.
    solution = solve(with_unit_diagonal(cosines), cosines)
    factors, unit = _factors(norms, preference)
    shares = norms / peak(norms)
    multiples = jnp.einsum("i,ij->j", factors * shares, solution.x) + factors * shares
    weights = jnp.where(norms > 0, divide(multiples, shares), factors) * unit
    return Weights(weights, jnp.max(solution.residual), outcome(jnp.all(solution.done)))


@weighting()
def _dual_projection(
    cosines: Float[Array, "K K"], norms: Float[Array, " K"], preference: Array | None = None
) -> Weights:
    # v ≥ c: in unit rows and units of the largest norm that is z ≥ c · shares, solved for x = z − c · shares.
    factors, unit = _factors(norms, preference)
    shares = norms / peak(norms)
    solution = solve_one(with_unit_diagonal(cosines), cosines @ (factors * shares))
    weights = jnp.where(norms > 0, divide(solution.x, shares) + factors, factors) * unit
    return Weights(weights, solution.residual, outcome(solution.done))


def _factors(norms: Float[Array, " K"], preference: Array | None) -> tuple[Float[Array, " K"], Array]:
    """Preferences over their largest, and that."""
    if preference is None:
        return jnp.ones_like(norms), jnp.asarray(1 / len(norms), norms.dtype)
    unit = peak(preference)
    return (preference / unit).astype(norms.dtype), unit.astype(norms.dtype)
