"""NAG-GS: Nesterov's accelerated flow, stepped half implicitly."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_like, register_rule, required, wide_dtype
from .._leaves import like, over_leaves
from .._settings import check_not_negative, check_positive, check_rate, rate_at


class NagGsState(NamedTuple):
    """What NAG-GS remembers.

    Attributes:
        step: number of steps made.
        gamma: the time scale γ, no unit.
        v: the second point, shaped like the parameters and in single precision at least.
    """

    step: Int[Array, ""]
    gamma: Float[Array, ""]
    v: PyTree


register_rule(NagGsState, unreadable="NAG-GS: it moves towards a second point, of which its state keeps a copy")


def nag_gs(
    learning_rate: optax.ScalarOrSchedule = 0.05, *, mu: float = 1.0, gamma: float = 1.5
) -> optax.GradientTransformationExtraArgs:
    r"""NAG-GS: Nesterov's accelerated flow, stepped half implicitly.

    .. math::
        x^+ = (1-a)x + a v, \quad a = \tfrac{\alpha}{1+\alpha}, \qquad \gamma^+ = (1-a)\gamma + a\mu

    .. math::
        v^+ = (1-b)v + b\,x^+ - \tfrac b\mu\nabla f(x^+), \quad b = \tfrac{\alpha\mu}{\alpha\mu+\gamma^+}

    The parameters are the points :math:`x^+` at which gradients are taken. An update ends one step (v by the gradient
    that came) and begins the next (x towards v): at first v is the start, so that the first update moves nothing, and
    whatever scales gradients before it scales :math:`b/\mu`. For μ the strong convexity of f this is accelerated
    descent. With μ at least half of f's largest curvature any rate is stable: as it grows, the rule becomes descent at
    the rate 1/μ.

    Args:
        learning_rate: α, a step of time, no unit; a number or a schedule, 0.05 by default.
        mu: μ, curvature that is counted on, in units of the loss's second derivative; above 0, 1 by default.
        gamma: γ at first, in the same unit, 1.5 by default; it tends to μ.

    Returns:
        The optimiser; its state is a `NagGsState`. It needs ``params`` and goes last in a chain.

    Raises:
        ValueError: α or γ negative, or μ not above 0; at an update, ``params`` are missing.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.nag_gs(0.1), jnp.array(0.5)
        >>> state = optimizer.init(x)
        >>> for _ in range(2):
        ...     update, state = optimizer.update(x, state, x)  # the gradient of x²/2
        ...     x = optax.apply_updates(x, update)
        >>> round(float(x), 6)
        0.497076

    Cost: one array of memory.

    References:
        - Leplat et al., "NAG-GS: Semi-Implicit, Accelerated and Robust Stochastic Optimizer", 2022,
          https://arxiv.org/abs/2209.14937, and the authors' code for JAX (https://github.com/skolai/nag-gs), whose
          defaults these are. Their form for PyTorch moves v before x, uses the old γ, and starts from α 0.01, γ 1.
    """
    check_positive(mu=mu)
    check_not_negative(gamma=gamma)
    check_rate(learning_rate)

    def init(params: PyTree) -> NagGsState:
        start = jax.tree.map(lambda leaf: jnp.array(leaf, wide_dtype(leaf), copy=True), params)
        return NagGsState(jnp.zeros((), jnp.int32), jnp.asarray(gamma, wide_dtype(params)), start)

    def update(updates: PyTree, state: NagGsState, params: PyTree = None, **extra: Any) -> tuple[PyTree, NagGsState]:
        params = required(params, "params", by="nag_gs")
        check_like(params, updates, what="parameters that", fix="Pass the parameters that are trained.")
        alpha = rate_at(learning_rate, state.step)
        towards, share = alpha * mu / (alpha * mu + state.gamma), alpha / (1 + alpha)

        def one(g: Array, v: Array, x: Array) -> tuple[Array, Array]:
            wide, point = g.astype(v.dtype), x.astype(v.dtype)
            moved = v + towards * (point - v) - towards / mu * wide
            v = like(jnp.where(state.step == 0, v, moved), v)
            return (share * (v - point)).astype(g.dtype), v

        steps, v = over_leaves(one, 2, updates, state.v, params)
        scale = like(state.gamma + share * (mu - state.gamma), state.gamma)
        return steps, NagGsState(optax.safe_increment(state.step), scale, v)

    return optax.GradientTransformationExtraArgs(init, update)
