"""A guard after the optimiser: the step that is taken hurts no objective."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from ..._core import check_like, divide, exact, fault, wide_dtype
from ._arithmetic import combine, cosines_and_norms, slopes_along, with_unit_diagonal
from ._checks import checked, leading_axis
from ._complementarity import solve_one
from ._state import Weights, outcome


class GuardState(NamedTuple):
    r"""What the guard did at the last step.

    Attributes:
        conflict: :math:`\max_i\langle g_i, u\rangle/(\lVert g_i\rVert\lVert u\rVert)` of the update as the optimiser
            made it: positive where it would have hurt an objective, no unit.
        kept: the guarded update's norm over the optimiser's; 1 where nothing was changed.
        residual: of the projection's optimality conditions, for a unit update and unit gradients.
        result: of the solve.
    """

    conflict: Float[Array, ""]
    kept: Float[Array, ""]
    residual: Float[Array, ""]
    result: optx.RESULTS


def guard(*, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Project the final update on the directions that raise no loss to first order.

    .. math::
        u' = \arg\min_{d:\,Jd\le0}\lVert d-u\rVert,\qquad\text{J the K gradients}

    Momentum, preconditioning and weight decay come after the aggregator and may undo what it promised: a step that
    Adam makes of a conflict-free direction can raise a loss. The guard is the last link of the chain and restores
    the promise for the step that is really taken. An update without conflict passes unchanged, bit by bit; at a
    point where no direction helps all, little or nothing of the update is left, which ``state.kept`` shows.

    It has to see the K gradients, with their leading axis: pass them once more, as ``gradients``.

        optimizer = optax.chain(regulate.upgrad(), optax.adam(1e-3), regulate.guard())
        values, grads = regulate.multi_value_and_grad(losses)(params, batch)
        updates, state = optimizer.update(grads, state, params, gradients=grads)
        params = optax.apply_updates(params, updates)

    The link's own state is the last of ``state``: ``state[-1].conflict`` says what would have happened without it.

    Args:
        throw: whether a solve that misses its tolerance raises; its residual and result are in the state anyway.

    Returns:
        A gradient transformation whose ``update`` takes ``gradients``, leading axis K, beside the updates.

    Raises:
        ValueError: ``gradients`` are missing, their leaves disagree, or each is not shaped like the updates.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import regulate
        >>> link = regulate.guard()
        >>> grads = jnp.array([[1.0, 0.0], [-0.5, 1.0]])
        >>> update, state = link.update(jnp.array([1.0, -1.0]), link.init(jnp.zeros(2)), gradients=grads)
        >>> update.round(4).tolist(), round(float(state.conflict), 2)
        ([0.0, -1.0], 0.71)

    Cost:
        One Gramian, K inner products, one quadratic programme in K unknowns, one weighted sum.

    References:
        - Ours. The projection is that of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning",
          2017, https://arxiv.org/abs/1706.08840, applied to the update in place of the gradient.
    """

    def init(params: optax.Params) -> GuardState:
        zero = jnp.zeros((), wide_dtype(params))
        return GuardState(zero, zero + 1, zero, outcome(jnp.asarray(True)))

    @exact
    def update(
        updates: optax.Updates,
        state: GuardState,
        params: optax.Params | None = None,
        *,
        gradients: PyTree = None,
        **extra: Any,
    ) -> tuple[optax.Updates, GuardState]:
        del params, extra
        if gradients is None:
            raise fault(
                expected="the K gradients as an extra argument",
                got="none",
                fix="Call optimizer.update(grads, state, params, gradients=grads).",
            )
        leading_axis(gradients)
        one = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), gradients)
        check_like(updates, one, what="an update that", fix="Pass the gradients that the updates were made of.")
        cosines, norms = cosines_and_norms(gradients)
        slopes, size = slopes_along(gradients, updates, norms)
        solution = solve_one(with_unit_diagonal(cosines), -slopes)
        # d = u − ‖u‖ Σ x_i g_i/‖g_i‖; where no x is positive the update is handed on as it came.
        taken = combine(gradients, divide(solution.x, norms))
        free = jnp.all(solution.x == 0)
        guarded = jax.tree.map(
            lambda u, t: jnp.where(free, u, u - (size * t.astype(size.dtype)).astype(u.dtype)), updates, taken
        )
        square = 1 - 2 * solution.x @ slopes + solution.x @ cosines @ solution.x
        kept = jnp.where(free, 1, jnp.sqrt(jnp.maximum(square, 0)))
        result = outcome(solution.done)
        guarded = checked(guarded, Weights(solution.x, solution.residual, result), throw)
        dtype = state.kept.dtype
        worst = jnp.max(jnp.where(norms > 0, slopes, -1))
        return guarded, GuardState(worst.astype(dtype), kept.astype(dtype), solution.residual.astype(dtype), result)

    return optax.GradientTransformationExtraArgs(init, update)
