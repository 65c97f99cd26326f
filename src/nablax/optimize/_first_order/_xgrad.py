"""XGrad: gradients taken where an optimiser's last step, made again, would lead."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ..._core import check_optimizer, fault, register_rule, required, wide_dtype
from .._leaves import like, over_leaves, wide_zeros
from .._settings import check_not_negative


class XGradState(NamedTuple):
    """What the prediction remembers.

    Attributes:
        inner: the wrapped optimiser's state.
        ahead: how far the parameters at hand are ahead of the weights proper, shaped like them.
    """

    inner: Any
    ahead: PyTree


register_rule(XGradState, unreadable="XGrad: gradients are taken ahead of the weights, by a step of its own")


def xgrad(optimizer: optax.GradientTransformation, steps: float = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Have an optimiser see the gradients at the weights to which its last update, repeated, would lead.

    .. math::
        \hat w_t = w_t + s\,u_{t-1}, \qquad u_t = \mathrm{update}\big(\nabla f(\hat w_t), w_t\big), \qquad
        w_{t+1} = w_t + u_t

    The parameters that the loop holds are the predicted :math:`\hat w`, so that no second gradient is needed: what
    comes out moves them from one prediction to the next, :math:`u_t + s(u_t - u_{t-1})`. The weights proper, which are
    to be evaluated and kept, are those of `xgrad_eval_params`. At first there is nothing to predict by. Around heavy
    ball with s its momentum this is Nesterov's method. `follow.fit` gives back, validates and stops early by what the
    loop holds, the prediction: where the weights proper matter, take `follow.train_step` and keep the state.

    Args:
        optimizer: any Optax transformation whose update is added to the parameters, the learning rate in it. Decoupled
            decay in it is part of what is predicted, and sees the weights proper. One that takes further gradients
            itself (``mars(exact=True)``, ``oasis``) has no place here: it would compare gradients at the prediction
            with gradients at the weights proper.
        steps: s, how many repetitions of the last update to look ahead; 1 by default, the authors' are 1, 2 and 3. 0 is
            the optimiser itself.

    Returns:
        The optimiser; its state is an `XGradState`. It needs ``params``. Extra arguments are passed on.

    Raises:
        ValueError: ``optimizer`` is none, or s is negative; at an update, ``params`` are missing.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.xgrad(optax.sgd(0.1, momentum=0.9)), jnp.array(0.5)
        >>> state = optimizer.init(x)
        >>> for _ in range(3):
        ...     update, state = optimizer.update(x, state, x)  # the gradient of x²/2, at the prediction
        ...     x = optax.apply_updates(x, update)
        >>> round(float(optimize.xgrad_eval_params(state, x)), 4)
        0.2605

    Cost: one array of memory more than the optimiser's.

    References:
        - Guan et al., "XGrad: Boosting Gradient-Based Optimizers With Weight Prediction", 2023,
          https://arxiv.org/abs/2305.18240, and the authors' code (https://github.com/guanleics/XGrad). There the
          weights are moved to the prediction and back at each step, by the rate of the coming step and without the
          decay; here the last update is taken as it was made. Holding the predictions as parameters, as Optax's
          schedule-free rules do, is ours.
    """
    transform = check_optimizer(optimizer)
    check_not_negative(steps=steps)

    def init(params: PyTree) -> XGradState:
        return XGradState(transform.init(params), wide_zeros(params))

    def update(updates: PyTree, state: XGradState, params: PyTree = None, **extra: Any) -> tuple[PyTree, XGradState]:
        params = required(params, "params", by="xgrad")
        made, inner = transform.update(updates, state.inner, xgrad_eval_params(state, params), **extra)

        def one(step: Any, ahead: Any) -> tuple[Any, Any]:
            wide = step.astype(wide_dtype(step))
            further = like(steps * wide, ahead)
            return (wide + (further - ahead)).astype(step.dtype), further

        moved, ahead = over_leaves(one, 2, made, state.ahead)
        return moved, XGradState(inner, ahead)

    return optax.GradientTransformationExtraArgs(init, update)


def xgrad_eval_params(state: Any, params: PyTree) -> PyTree:
    r"""The weights proper of a run with `xgrad`: what to evaluate and to keep.

    .. math:: w = \hat w - s\,u_{t-1}

    Args:
        state: an `XGradState`, or that of a chain or wrapper with one in it.
        params: the parameters that the loop holds.

    Returns:
        Parameters, shaped and typed like ``params``.

    Raises:
        ValueError: there is no such state, or there are several.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.xgrad(optax.sgd(0.1)), jnp.array(1.0)
        >>> update, state = optimizer.update(x, optimizer.init(x), x)
        >>> round(float(x + update), 6), round(float(optimize.xgrad_eval_params(state, x + update)), 6)
        (0.8, 0.9)

    Cost: one subtraction a parameter.

    References:
        - As `xgrad`.
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, XGradState))
    found = [node for node in nodes if isinstance(node, XGradState)]
    if len(found) != 1:
        raise fault(
            expected="a state with one XGradState in it", got=f"{len(found)}", fix="Pass the optimiser's state."
        )

    def back(ahead: Any, leaf: Any) -> Any:
        if isinstance(ahead, optax.MaskedNode):
            return leaf  # another rule's parameters, which are not ahead
        return (leaf.astype(ahead.dtype) - ahead).astype(jnp.result_type(leaf))

    return jax.tree.map(back, found[0].ahead, params, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
