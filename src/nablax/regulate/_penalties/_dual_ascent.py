"""Constrained learning: descend the Lagrangian, ascend its multipliers."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import fault, required, wide_dtype
from .._aggregators._arithmetic import combine
from .._aggregators._checks import leading_axis


class DualAscentState(NamedTuple):
    """The multipliers, and what drives them.

    Attributes:
        multipliers: one for each constraint, not negative; the next step's.
        violation: by how much the last values exceeded the levels, negative for slack, in units of the constraints.
    """

    multipliers: Float[Array, " constraints"]
    violation: Float[Array, " constraints"]


def dual_ascent(
    rate: float | Float[Array, ""], levels: Float[Array, " constraints"]
) -> optax.GradientTransformationExtraArgs:
    r"""Weigh a loss and its constraints by multipliers that grow with the violation.

    .. math::
        g = \nabla L_0 + \sum_{i=1}^{m}\lambda_i\nabla L_i,\qquad
        \lambda_i \leftarrow \max\big(0,\; \lambda_i + \eta\,(L_i - c_i)\big)

    which seeks the saddle point of the Lagrangian of "minimise :math:`L_0` subject to :math:`L_i\le c_i`".

    The direction is not the gradients' alone: with the values it keeps a memory of its own, and near the solution it is
    small by cancellation, not by a promise. So there is no ``stationary`` here, and a check-up says that it does not
    know the rule behind it.

    Args:
        rate: η of the multipliers, in their unit per unit of violation. Slower than the parameters' own, as a rule.
        levels: c, one for each constraint, in the constraints' units.

    Returns:
        The aggregator. Gradients come in with a leading axis 1 + m, the objective's first;
        ``update(grads, state, params, values=[1 + m])`` needs the losses that these are gradients of, as
        `multi_value_and_grad` returns them. Its state is a `DualAscentState`; multipliers start from zero.

    Raises:
        ValueError: the losses are missing at an update, or the number of gradients or losses is not 1 + m.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.dual_ascent(0.5, jnp.array([1.0]))
        >>> state = aggregator.init(jnp.zeros(2))
        >>> grads, values = jnp.eye(2), jnp.array([0.0, 3.0])  # the constraint is at 3, and may be at 1
        >>> _, state = aggregator.update(grads, state, values=values)
        >>> aggregator.update(grads, state, values=values)[0].tolist()
        [1.0, 1.0]

    Cost:
        One weighted sum of the gradients.

    References:
        - Elenter, Chamon and Ribeiro, "Near-Optimal Solutions of Constrained Learning Problems", 2024,
          https://arxiv.org/abs/2403.11844 (after the abstract: dual ascent, judged by its last iterate; one step of
          descent between the ascents, in place of minimising the Lagrangian afresh, is ours)
    """
    bounds = jnp.atleast_1d(jnp.asarray(levels))
    expected = 1 + bounds.shape[0]

    def init(params: PyTree) -> DualAscentState:
        zeros = jnp.zeros(bounds.shape, wide_dtype(params))
        return DualAscentState(zeros, zeros)

    def update(
        grads: PyTree,
        state: DualAscentState,
        params: PyTree = None,
        *,
        values: Float[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, DualAscentState]:
        count = leading_axis(grads, params)
        values = required(values, "values", by="dual_ascent")
        if jnp.shape(values) != (expected,) or count != expected:
            raise fault(
                expected=f"{expected} gradients and values=[{expected}], the objective's first",
                got=f"{count} gradients, values of shape {jnp.shape(values)}",
                fix="Pass what multi_value_and_grad returns.",
            )
        multipliers = state.multipliers
        weights = jnp.concatenate([jnp.ones(1, multipliers.dtype), multipliers])
        violation = (jnp.asarray(values)[1:] - bounds).astype(multipliers.dtype)
        ascended = jnp.maximum(multipliers + rate * violation, 0).astype(multipliers.dtype)
        return combine(grads, weights), DualAscentState(ascended, violation)

    return optax.GradientTransformationExtraArgs(init, update)
