"""SPIDER: a gradient that is carried along by differences on small batches, and renewed on a large one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import check_count, register_rule, required, wide_dtype
from .._answers import looking
from .._leaves import like, wide_zeros
from .._settings import check_not_negative, with_rate
from ._beta_normalised import over_power


class SpiderState(NamedTuple):
    """What SPIDER remembers.

    Attributes:
        step: number of steps made; where it is a multiple of ``every``, a large batch's gradient is due.
        carried: the estimate v of the gradient, shaped like the parameters.
        previous: the last parameters.
    """

    step: Int[Array, ""]
    carried: PyTree
    previous: PyTree


register_rule(SpiderState, unreadable="SPIDER: its step is of length one, along a gradient that is carried along")


def scale_by_spider(every: int = 5, *, beta: float = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Carry a gradient along by its change on the present batch, and divide it by its norm; without a learning rate.

    .. math::
        v_t = \begin{cases} g_t & t \text{ a multiple of } q\\
        v_{t-1} + \nabla f_t(\theta_t) - \nabla f_t(\theta_{t-1}) & \text{else}\end{cases}\qquad
        u_t = \frac{v_t}{\lVert v_t\rVert^\beta}

    Both gradients of a difference are of one batch, so that it is as small as the step and so is its noise. The loop
    gives a large batch (or all rows) at steps 0, q, 2q… and small ones between.

    Args:
        every: q, how many steps one large batch serves; 5 by default, as in the authors' phase retrieval. 1 is
            normalised descent.
        beta: β, the power of the norm; 1 by default, steps of one length. 0 leaves the norm alone.

    Returns:
        The rule; its state is a `SpiderState`. It needs ``params`` and ``grad_fn``, and all of the parameters: no mask
        around it.

    Raises:
        ValueError: ``every`` below 1 or a negative β; at an update, ``params`` or ``grad_fn`` are missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule, params = optimize.scale_by_spider(), jnp.array([3.0, 4.0])
        >>> grad_fn = lambda at: (jnp.sum(at**2) / 2, at)
        >>> update, _ = rule.update(params, rule.init(params), params, grad_fn=grad_fn)
        >>> [round(float(x), 3) for x in update]
        [0.6, 0.8]

    Cost: two arrays of memory; a second gradient at steps between large batches, and none at those.

    References:
        - Fang et al., "SPIDER: Near-Optimal Non-Convex Optimization via Stochastic Path Integrated Differential
          Estimator", 2018, https://arxiv.org/abs/1807.01695; for generalised smoothness Chen et al., 2023,
          https://arxiv.org/abs/2303.02854, and their code, which is followed.
    """
    check_count(every, what="every")
    check_not_negative(beta=beta)

    def init(params: PyTree) -> SpiderState:
        previous = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return SpiderState(jnp.zeros((), jnp.int32), wide_zeros(params), previous)

    def update(
        updates: PyTree,
        state: SpiderState,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], tuple[Array, PyTree]] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, SpiderState]:
        params = required(params, "params", by="spider")
        look = looking(required(grad_fn, "grad_fn", by="spider"), updates)
        wide = jax.tree.map(lambda g: g.astype(wide_dtype(g)), updates)

        def renewed() -> PyTree:
            return like(wide, state.carried)

        def moved() -> PyTree:
            _, before = look(state.previous)
            return like(jax.tree.map(lambda v, g, old: v + (g - old), state.carried, wide, before), state.carried)

        carried = jax.lax.cond(state.step % every == 0, renewed, moved)
        steps, _ = over_power(carried, beta)
        steps = jax.tree.map(lambda step, g: step.astype(g.dtype), steps, updates)
        previous = like(jax.tree.map(jnp.asarray, params), state.previous)
        return steps, SpiderState(optax.safe_increment(state.step), carried, previous)

    return optax.GradientTransformationExtraArgs(init, update)


def spider(
    learning_rate: optax.ScalarOrSchedule = 0.01, *, every: int = 5, beta: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""SPIDER: steps of one length along a gradient that small batches carry and large ones renew.

    .. math:: \theta_{t+1} = \theta_t - \eta\,u_t

    with :math:`u` of `scale_by_spider`.

    Args:
        learning_rate: η, a length in units of the parameters where β is 1; a number or a schedule, 0.01 by default,
            the authors' for phase retrieval.
        every: q, steps from one large batch to the next; 5 by default.
        beta: β, 1 by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_spider`, or a negative rate.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.spider(0.5), jnp.array([3.0, 4.0])
        >>> update, _ = optimizer.update(x, optimizer.init(x), x, grad_fn=lambda at: (jnp.sum(at**2) / 2, at))
        >>> [round(float(number), 3) for number in optax.apply_updates(x, update)]
        [2.7, 3.6]

    Cost: as `scale_by_spider`.

    References:
        - Fang et al., https://arxiv.org/abs/1807.01695; Chen et al., https://arxiv.org/abs/2303.02854.
    """
    return with_rate(scale_by_spider(every, beta=beta), learning_rate)
