"""diffGrad: Adam with a friction that grows as a gradient stops changing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import register_rule, wide_dtype
from .._leaves import bias, like, over_leaves, wide_zeros
from .._settings import check_decays, check_positive, with_rate


class DiffGradState(NamedTuple):
    """What diffGrad remembers.

    Attributes:
        step: number of steps made.
        mu: average of gradients, shaped like the parameters.
        nu: average of squared gradients.
        previous: the last gradient.
    """

    step: Int[Array, ""]
    mu: PyTree
    nu: PyTree
    previous: PyTree


register_rule(DiffGradState, unreadable="diffGrad: its rates depend on how far the gradient has changed")


def scale_by_diffgrad(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by diffGrad, without a learning rate.

    .. math::
        \xi_t = \frac1{1+e^{-|g_{t-1}-g_t|}}, \qquad
        u_t = \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t}\;\xi_t\,\frac{m_t}{\sqrt{v_t}+\epsilon}

    with Adam's averages :math:`m` of gradients and :math:`v` of their squares; :math:`\xi` lies in [½, 1), takes no
    part in the averages, and is ½ where a gradient stays what it was: Adam at half the rate. The last gradient is zero
    at first. The change is measured in units of the gradient, so that the loss's scale matters.

    Args:
        b1: β₁, 0.9 by default.
        b2: β₂, 0.999 by default.
        eps: ε beside the root that is not corrected, in units of the gradient, 1e-8 by default.

    Returns:
        The rule; its state is a `DiffGradState`.

    Raises:
        ValueError: a decay outside [0, 1) or an ε not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_diffgrad()
        >>> state = rule.init(jnp.zeros(1))
        >>> for _ in range(2):  # the same gradient twice
        ...     update, state = rule.update(jnp.array([100.0]), state)
        >>> round(float(update[0]), 4)
        0.5

    Cost: three arrays of memory, Adam's two and the last gradient.

    References:
        - Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks", 2019,
          https://arxiv.org/abs/1909.11015, and the second version of the authors' code
          (https://github.com/shivram1987/diffGrad). The first kept the last gradient by reference, which made every
          change zero.
    """
    check_decays(b1=b1, b2=b2)
    check_positive(eps=eps)

    def init(params: PyTree) -> DiffGradState:
        previous = jax.tree.map(jnp.zeros_like, params)
        return DiffGradState(jnp.zeros((), jnp.int32), wide_zeros(params), wide_zeros(params), previous)

    def update(
        updates: PyTree, state: DiffGradState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, DiffGradState]:
        count = optax.safe_increment(state.step)
        correction = jnp.sqrt(bias(b2, count)) / bias(b1, count)

        def one(g: Array, mu: Array, nu: Array, last: Array) -> tuple[Array, Array, Array, Array]:
            wide = g.astype(wide_dtype(g))
            mu, nu = like((b1 * mu + (1 - b1) * wide, b2 * nu + (1 - b2) * wide**2), (mu, nu))
            friction = jax.nn.sigmoid(jnp.abs(last.astype(wide.dtype) - wide))
            step = correction * friction * mu / (jnp.sqrt(nu) + eps)
            return step.astype(g.dtype), mu, nu, g.astype(last.dtype)

        steps, *rest = over_leaves(one, 4, updates, state.mu, state.nu, state.previous)
        return steps, DiffGradState(count, *rest)

    return optax.GradientTransformationExtraArgs(init, update)


def diffgrad(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: PyTree = None,
) -> optax.GradientTransformationExtraArgs:
    r"""diffGrad: Adam with a friction that grows as a gradient stops changing.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(u_t + \lambda\theta_t)

    with :math:`u` of `scale_by_diffgrad`. Where gradients change little from step to step, the rate is in effect half
    of Adam's: compare the two at rates tuned for each.

    Args:
        learning_rate: η, a number or a schedule; 1e-3 by default.
        b1: β₁, 0.9 by default.
        b2: β₂, 0.999 by default.
        eps: ε, in units of the gradient, 1e-8 by default.
        weight_decay: λ, decoupled; 0 by default. The authors' code adds it to the gradient.
        mask: which parameters decay, as in ``optax.adamw``; all by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_diffgrad`, or a negative decay of weights.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.diffgrad(0.1), jnp.array(0.5)
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)  # the gradient of x²/2
        >>> round(float(optax.apply_updates(x, update)), 4)
        0.4378

    Cost: as `scale_by_diffgrad`.

    References:
        - Dubey et al., https://arxiv.org/abs/1909.11015, and https://github.com/shivram1987/diffGrad.
    """
    rule = scale_by_diffgrad(b1=b1, b2=b2, eps=eps)
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)
