"""A step held under what the curvature along it allows, measured every few steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_count, check_like, check_optimizer, divide, fault, register_rule, required, wide_dtype

# Networks are killed in their first steps, when the loss bends most: each of these is measured.
_FIRST = 20
# Slopes are averaged over some ten steps, for one batch's says little of the run's.
_DECAY = 0.9
# By so much may the scale grow from one measurement to the next; where the curvature is not finite it falls by ten.
_RECOVERY, _RETREAT = 1.1, 0.1


class SafeRateState(NamedTuple):
    r"""What was measured of the last step that was looked at, and what became of it.

    Attributes:
        inner: the wrapped optimiser's state.
        scale: what its update was multiplied by, from 0 to 1: the share of the learning rate that was used. One means
            that nothing was changed.
        ratio: :math:`u^{\top}Hu/(-g^{\top}u)` of the optimiser's own step, no unit: at 1 the loss would fall most, at 2
            it would be back where it was, beyond it would rise. Zero where the loss does not bend upwards or the step
            went uphill.
        slope: average of :math:`-g^{\top}u` over the last ten steps or so, in units of the loss.
        step: number of steps made.
    """

    inner: Any
    scale: Float[Array, ""]
    ratio: Float[Array, ""]
    slope: Float[Array, ""]
    step: Int[Array, ""]


register_rule(SafeRateState, unreadable="safe_rate: it holds its rate anew by the curvature along each step")


def safe_rate(
    optimizer: optax.GradientTransformation, *, every: int = 10, limit: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""Hold an optimiser's steps under the rate that the curvature along them allows.

    .. math::
        L(\theta+su)\approx L+s\,g^{\top}u+\tfrac{s^2}2u^{\top}Hu,\qquad
        s = \min\Big(1,\ c\,\frac{-g^{\top}u}{u^{\top}Hu}\Big)

    u is what the optimiser would do, its learning rate, momentum and metric included; at :math:`c=1`, s goes no
    further than where the loss on the batch is lowest along u, and from 2 on it would rise. The slope is the batch's or
    its average over steps, whichever is larger. The scale is measured at each of the first twenty steps, in which
    networks are killed, and then every few; in between it is kept, and it grows by a tenth a measurement at most. A
    step that is short enough is passed on as it came. One that goes uphill, as momentum and noise make some do, says
    nothing.

    It is greedy: it looks one step ahead, at one batch. Far above the largest rate that works this is what saves a run,
    whatever the rate; close below it a run that would have borne longer steps, and gained by them later, is slowed
    (plain gradient descent of a convolutional net at its best rate by a third of a nat in 200 steps). It is for rates
    that are not known, not for those that have been tuned. Of the loss that is differentiated alone it
    knows: weight decay within the optimiser is part of u but not of H. A check-up takes it as it is, held; how near the
    edge the rate within is, it says of the optimiser within, with ``opt_state=state.inner``.

    Args:
        optimizer: any Optax transformation whose update is added to the parameters, the learning rate in it; chains
            that begin with an aggregator too.
        every: steps from one measurement to the next, 10 by default.
        limit: c, 1 by default, in (0, 2): less is more careful.

    Returns:
        A gradient transformation with a `SafeRateState`. ``update(grads, state, params, product_fn=...)`` needs
        products with the Hessian of the batch's loss, which `nablax.follow.fit` and `nablax.follow.train_step` give.

    Raises:
        ValueError: ``optimizer`` is none, ``every`` is below 1, or the limit is not between 0 and 2; at an update,
            ``product_fn`` is missing, or ``grad`` where the gradients are a stack.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import regulate
        >>> curvature = jnp.array([1.0, 10.0])  # gradient descent is stable below a rate of 0.2
        >>> optimizer = regulate.safe_rate(optax.sgd(100.0))
        >>> x = jnp.array([1.0, 1.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(200):
        ...     update, state = optimizer.update(curvature * x, state, x, product_fn=lambda v: curvature * v)
        ...     x = optax.apply_updates(x, update)
        >>> bool(jnp.all(jnp.abs(x) < 1e-6)), 0 < float(state.scale) * 100 < 1.01
        (True, True)

    Cost:
        One Hessian product, about two gradients, at a measurement: 1/every of them a step; three inner products.

    References:
        - Ours. That rates beyond the curvature along a step are what breaks training is from Cohen et al., "Gradient
          Descent on Neural Networks Typically Occurs at the Edge of Stability", 2021, https://arxiv.org/abs/2103.00065;
          the step length is Cauchy's.
    """
    transform = check_optimizer(optimizer)
    every = check_count(every, what="every")
    if not 0 < limit < 2:
        raise fault(
            expected="a limit between 0 and 2", got=repr(limit), fix="At 2 the loss along a step stays what it was."
        )

    def init(params: PyTree) -> SafeRateState:
        one = jnp.ones((), wide_dtype(params))
        return SafeRateState(transform.init(params), one, 0 * one, 0 * one, jnp.zeros((), jnp.int32))

    def update(
        grads: PyTree,
        state: SafeRateState,
        params: PyTree = None,
        *,
        product_fn: Callable[[PyTree], PyTree] | None = None,
        grad: PyTree = None,
        **extra: Any,
    ) -> tuple[PyTree, SafeRateState]:
        product = required(product_fn, "product_fn", by="safe_rate")
        updates, inner = transform.update(grads, state.inner, params, product_fn=product, grad=grad, **extra)
        slope = grads if grad is None else grad
        check_like(slope, updates, what="a gradient that", fix="Pass grad=, the mean of the stack; follow.fit does.")

        dtype = state.scale.dtype
        now = -_dot(slope, updates).astype(dtype)
        average = jnp.where(state.step == 0, now, _DECAY * state.slope + (1 - _DECAY) * now)

        def measured(_: None) -> tuple[Array, Array]:
            bent = product(updates)
            check_like(bent, updates, what="a product that", fix="Pass product_fn(vector) -> product, like vector.")
            up = _dot(updates, bent).astype(dtype)
            down = jnp.where(state.step < _FIRST, now, jnp.maximum(now, average))
            ratio = jnp.where((down > 0) & (up > 0), divide(up, down), 0)
            before = jnp.where(down > 0, jnp.minimum(1, _RECOVERY * state.scale), state.scale)
            before = jnp.where(state.step == 0, 1, before)
            held = jnp.minimum(before, divide(limit, ratio, 1))
            known = jnp.isfinite(up) & jnp.isfinite(now)
            return jnp.where(known, held, _RETREAT * state.scale), jnp.where(known, ratio, jnp.inf)

        due = (state.step < _FIRST) | (state.step % every == 0)
        scale, ratio = jax.lax.cond(due, measured, lambda _: (state.scale, state.ratio), None)
        updates = jax.tree.map(lambda leaf: (scale * leaf.astype(dtype)).astype(leaf.dtype), updates)
        average = jnp.where(jnp.isfinite(average), average, state.slope)
        return updates, SafeRateState(inner, scale, ratio, average, state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _dot(one: PyTree, other: PyTree) -> Float[Array, ""]:
    dtype = wide_dtype((one, other))
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum((jnp.sum(a.astype(dtype) * b.astype(dtype)) for a, b in pairs), jnp.zeros((), dtype))
