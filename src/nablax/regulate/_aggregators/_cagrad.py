"""CAGrad: the best worst case near the mean gradient."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import divide, fault, peak
from ._aggregator import aggregator, of_gramian, weighting
from ._complementarity import solve_one, tolerance
from ._state import Weights, outcome

_STEPS = 60


def cagrad_weights(gramian: Float[Array, "K K"], radius: float = 0.5) -> Weights:
    r"""CAGrad's weights of a Gramian; see `cagrad`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.
        radius: of the ball round the mean gradient, as a share of its norm.

    Returns:
        `Weights`: the residual is the larger of the quadratic programme's and of the share by which the ball's radius
        is missed.

    Raises:
        ValueError: the Gramian is not square, or the radius not in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import cagrad_weights
        >>> cagrad_weights(jnp.eye(2), 0.0).weights.tolist()
        [0.5, 0.5]

    Cost:
        About ten quadratic programmes in K unknowns.
    """
    return of_gramian(_cagrad, gramian, _valid(radius))


def cagrad(
    radius: float = 0.5, *, objectives: int | None = None, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Raise the worst objective's improvement as far as a ball round the mean gradient allows.

    .. math::
        d = \arg\max_d\ \min_i\,\langle g_i, d\rangle\quad\text{with}\quad
        \lVert d-g_0\rVert\le c\,\lVert g_0\rVert,\qquad g_0=\tfrac1K\sum_i g_i

    For c < 1 the iteration converges to a stationary point of the mean loss. Conflict is reduced, not excluded. Where
    several directions are best (the gradients' hull holds zero and no conflict need remain) the one nearest
    :math:`g_0` is taken. An objective whose gradient vanishes has no say.

    Args:
        radius: c, in [0, 1), 0.5 by default; 0 gives the mean.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: the radius is not in [0, 1); leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.cagrad(0.5)
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> [round(float(d), 4) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [0.75, 0.75]

    Cost:
        One Gramian, `cagrad_weights`, one weighted sum.

    References:
        - Liu, Liu, Jin, Stone and Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", 2021,
          https://arxiv.org/abs/2110.14048 (the problem; solved here as a root in one unknown over projections of
          :math:`g_0` on :math:`\{d: Jd\ge\tau\}`, which is ours)
    """
    radius = _valid(radius)
    return aggregator(lambda cosines, norms: _cagrad(cosines, norms, radius), objectives=objectives, throw=throw)


def _valid(radius: float) -> float:
    if not 0 <= radius < 1:
        raise fault(expected="a radius in [0, 1)", got=str(radius), fix="From 1 on the mean loss need not converge.")
    return radius


@weighting("radius")
def _cagrad(cosines: Float[Array, "K K"], norms: Float[Array, " K"], radius: float) -> Weights:
    # d(τ), the point nearest g₀ with <g_i, d> ≥ τ, moves away from g₀ as τ grows; wanted is the τ where it has gone
    # c‖g₀‖ far. Such a τ need not exist, so κ = τ + tᵀx runs in its place, for which the problem always has a
    # solution: 0 ≤ x ⟂ (C + ttᵀ)x + b − κt ≥ 0, d = g₀ + Jᵀ(x / norms), t = smallest norm / norms.
    shares = norms / peak(norms)
    dtype, count = norms.dtype, len(norms)
    present = norms > 0
    smallest = jnp.min(jnp.where(present, shares, 1))
    ratios = divide(smallest, shares)
    pull = cosines @ shares / count
    length = jnp.sqrt(jnp.maximum(pull @ shares / count, 0))
    scale = jnp.where(length > 0, length, 1)
    pull = pull / scale  # in units of ‖g₀‖
    matrix = cosines + ratios[:, None] * ratios[None, :] + jnp.diag(jnp.where(present, 0, 1).astype(dtype))
    limit = tolerance(dtype)

    def excess(level: Array) -> tuple[Array, Array, Array, Array]:
        solution = solve_one(matrix, jnp.where(present, pull - level * ratios, 0))
        x = solution.x
        distance = jnp.sqrt(jnp.maximum(x @ cosines @ x, 0))
        return distance - radius, x, solution.residual, solution.done

    def widen(carry: tuple) -> tuple:
        high, _, _, _, _, steps = carry
        high = jnp.where(steps == 0, jnp.abs(start) + 4, 8 * high)
        return (high, *excess(high), steps + 1)

    start = jnp.min(jnp.where(present, pull / jnp.where(present, ratios, 1), jnp.inf))
    start = jnp.where(jnp.isfinite(start), start, 0)
    nothing = (jnp.zeros(count, dtype), jnp.zeros((), dtype), jnp.asarray(True))
    # Where the ball is not reached at this level, the worst case can be raised no further.
    far = jnp.asarray(1 / limit**0.5, dtype)
    high, above, x, residual, done, _ = jax.lax.while_loop(
        lambda carry: (carry[1] < 0) & (carry[0] < far * (1 + jnp.abs(start))),
        widen,
        (start, jnp.asarray(-radius, dtype), *nothing, jnp.asarray(0)),
    )
    reached = above >= 0

    def illinois(carry: tuple) -> tuple:
        low, high, below, above, side, x, residual, done, _, steps = carry
        middle = (low * above - high * below) / (above - below)
        inside = (middle > jnp.minimum(low, high)) & (middle < jnp.maximum(low, high))
        middle = jnp.where(inside & (steps % 8 != 7), middle, (low + high) / 2)
        value, x, residual, done = excess(middle)
        left = value < 0
        # The end that stays twice in a row counts for half, so that both ends move.
        below_next = jnp.where(left, value, jnp.where(side == 1, below / 2, below))
        above_next = jnp.where(left, jnp.where(side == -1, above / 2, above), value)
        return (
            jnp.where(left, middle, low),
            jnp.where(left, high, middle),
            below_next,
            above_next,
            jnp.where(left, -1, 1),
            x,
            residual,
            done,
            value,
            steps + 1,
        )

    goal = float(jnp.finfo(dtype).eps) * 8
    open_ = (start, high, jnp.asarray(-radius, dtype), above, jnp.asarray(0), x, residual, done, above, jnp.asarray(0))
    last = jax.lax.while_loop(lambda carry: reached & (jnp.abs(carry[8]) > goal) & (carry[9] < _STEPS), illinois, open_)
    x, residual, done, value = last[5], last[6], last[7], last[8]
    missed = jnp.where(reached, jnp.abs(value), 0)
    weights = 1 / count + divide(x, shares) * scale
    usable = (length > 0) & (radius > 0)
    weights = jnp.where(usable, weights, jnp.full(count, 1 / count, dtype))
    residual = jnp.where(usable, jnp.maximum(residual, missed), 0)
    # Where the mean is far shorter than the gradients, its length is lost in the Gramian's rounding, and no solver can
    # meet the radius better than that.
    rounding = 8 * float(jnp.finfo(dtype).eps) * (1 + jnp.sum(x)) ** 2
    return Weights(weights, residual, outcome(~usable | (done & (missed <= limit + rounding))))
