"""AdaMomentum: Adam whose metric is of its momentum's squares, not of the gradient's."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import nonzero, register_rule, wide_dtype
from .._leaves import bias, like, over_leaves, wide_zeros
from .._settings import check_decays, check_not_negative, with_rate


class AdaMomentumState(NamedTuple):
    """What AdaMomentum remembers.

    Attributes:
        step: number of steps made.
        mu: average of gradients, shaped like the parameters.
        nu: average of the squares of ``mu``, with ε in it.
    """

    step: Int[Array, ""]
    mu: PyTree
    nu: PyTree


register_rule(AdaMomentumState, unreadable="AdaMomentum: what it divides by is made of its momentum")


def scale_by_adamomentum(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by AdaMomentum, without a learning rate.

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) m_t^2 + \epsilon, \qquad
        u_t = \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)}}

    ε is added within the average, at every step. The first step is :math:`1/(1-\beta_1)` long, ten times Adam's, since
    the average of squares holds that of a momentum that has hardly begun; and with noise much larger than the signal
    steps stay longer than Adam's, by up to :math:`\sqrt{(1+\beta_1)/(1-\beta_1)}`, 4.4 at 0.9. Warm the rate up.

    Args:
        b1: β₁, 0.9 by default.
        b2: β₂, 0.999 by default.
        eps: ε, in units of the squared gradient, 1e-16 by default, as the authors' class; 1e-8 in their CIFAR runs.

    Returns:
        The rule; its state is an `AdaMomentumState`.

    Raises:
        ValueError: a decay outside [0, 1) or a negative ε.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_adamomentum()
        >>> update, _ = rule.update(jnp.array([2.0]), rule.init(jnp.zeros(1)))
        >>> round(float(update[0]), 3)
        10.0

    Cost: two arrays of memory, as Adam.

    References:
        - Wang et al., "Rethinking Adam: A Twofold Exponential Moving Average Approach", 2021,
          https://arxiv.org/abs/2106.11514, and the authors' code (https://github.com/wyzjack/AdaM3). How much longer
          steps are than Adam's is derived here: the mean square of m is s² + σ²(1 − β₁)/(1 + β₁) for a signal s in
          noise σ.
    """
    check_decays(b1=b1, b2=b2)
    check_not_negative(eps=eps)

    def init(params: PyTree) -> AdaMomentumState:
        return AdaMomentumState(jnp.zeros((), jnp.int32), wide_zeros(params), wide_zeros(params))

    def update(
        updates: PyTree, state: AdaMomentumState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AdaMomentumState]:
        count = optax.safe_increment(state.step)

        def one(g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
            mu = like(b1 * mu + (1 - b1) * g.astype(wide_dtype(g)), mu)
            nu = like(b2 * nu + (1 - b2) * mu**2 + eps, nu)
            step = mu / bias(b1, count) / nonzero(jnp.sqrt(nu / bias(b2, count)))
            return step.astype(g.dtype), mu, nu

        steps, mu, nu = over_leaves(one, 3, updates, state.mu, state.nu)
        return steps, AdaMomentumState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def adamomentum(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    weight_decay: float = 0.0,
    mask: PyTree = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaMomentum: Adam whose metric is of its momentum's squares.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(u_t + \lambda\theta_t)

    with :math:`u` of `scale_by_adamomentum`, whose steps are longer than Adam's where gradients are noise: compare the
    two at rates tuned for each.

    Args:
        learning_rate: η, a number or a schedule; 1e-3 by default.
        b1: β₁, 0.9 by default.
        b2: β₂, 0.999 by default.
        eps: ε, in units of the squared gradient, 1e-16 by default.
        weight_decay: λ, decoupled; 0 by default.
        mask: which parameters decay, as in ``optax.adamw``; all by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_adamomentum`, or a negative decay of weights.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.adamomentum(0.01, eps=1e-8), jnp.array(0.5)
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)  # the gradient of x²/2
        >>> round(float(optax.apply_updates(x, update)), 4)
        0.4002

    Cost: as `scale_by_adamomentum`.

    References:
        - Wang et al., https://arxiv.org/abs/2106.11514, and https://github.com/wyzjack/AdaM3.
    """
    rule = scale_by_adamomentum(b1=b1, b2=b2, eps=eps)
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)
