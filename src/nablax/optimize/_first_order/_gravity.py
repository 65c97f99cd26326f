"""Gravity: momentum of gradients that are bent back where they are largest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import Key, check_key, fault, register_rule, wide_dtype
from .._leaves import like, over_leaves, wide_zeros
from .._settings import check_decays, check_not_negative, check_positive, is_zero, rate_at, with_rate


class GravityState(NamedTuple):
    """What Gravity remembers.

    Attributes:
        step: number of steps made.
        velocity: average of bent gradients, shaped like the parameters.
    """

    step: Int[Array, ""]
    velocity: PyTree


register_rule(GravityState, unreadable="Gravity: its step is no linear function of the gradient")


def scale_by_gravity(
    spread: float = 0.1, *, beta: float = 0.9, key: Key | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by Gravity, without a learning rate.

    .. math::
        \zeta = \frac{g}{1+(g\max|g|)^2}, \qquad \hat\beta_t = \frac{\beta t+1}{t+2}, \qquad
        V_t = \hat\beta_t V_{t-1} + (1-\hat\beta_t)\zeta_t, \quad t = 0, 1, \dots

    and the update is :math:`V`. The maximum is over one tensor. :math:`|\zeta|` is largest where
    :math:`|g| = 1/\max|g|`, and never above half of that: where gradients are large, the largest move least; where all
    are well below 1, they pass as they are. The gradient's unit, and so the loss's, is part of the rule.

    Args:
        spread: standard deviation of the velocity at first, in units of the gradient; 0.1 by default, the authors' α
            over their rate. 0 starts at rest.
        beta: β, what the average's decay tends to, 0.9 by default.
        key: of the random start; needed unless ``spread`` is 0.

    Returns:
        The rule; its state is a `GravityState`.

    Raises:
        ValueError: β outside [0, 1), a negative spread, or no key for a random start.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_gravity(0.0)
        >>> update, _ = rule.update(jnp.array([10.0, 0.1]), rule.init(jnp.zeros(2)))
        >>> [round(float(u), 4) for u in update]  # the gradient a hundred times larger moves a fiftieth as far
        [0.0005, 0.025]

    Cost: one array of memory, one maximum of a tensor.

    References:
        - Bahrami and Pouriyan Zadeh, "Gravity Optimizer: a Kinematic Approach on Optimization in Deep Learning", 2021,
          https://arxiv.org/abs/2101.09192, and the authors' code for TensorFlow
          (https://github.com/dariush-bahrami/gravity.optimizer), which counts from 0; their form for PyTorch counts
          from 1. The code divides by 1/max|g|, which is infinite at a gradient of zero; the product is the same
          elsewhere.
    """
    check_decays(beta=beta)
    check_not_negative(spread=spread)
    rest = is_zero(spread)
    if not rest:
        if key is None:
            raise fault(
                expected="a key for the random start", got="none", fix="Pass key=jax.random.key(0), or start at rest."
            )
        check_key(key)
    seed: Any = key

    def init(params: PyTree) -> GravityState:
        velocity = wide_zeros(params)
        if not rest:
            numbers = iter(range(len(jax.tree.leaves(velocity))))

            def drawn(leaf: Array) -> Array:
                return like(
                    spread * jax.random.normal(jax.random.fold_in(seed, next(numbers)), leaf.shape, leaf.dtype), leaf
                )

            velocity = jax.tree.map(drawn, velocity)
        return GravityState(jnp.zeros((), jnp.int32), velocity)

    def update(
        updates: PyTree, state: GravityState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, GravityState]:
        decay = (beta * state.step + 1) / (state.step + 2)

        def one(g: Array, velocity: Array) -> tuple[Array, Array]:
            wide = g.astype(wide_dtype(g))
            bent = wide / (1 + (wide * jnp.max(jnp.abs(wide), initial=0)) ** 2)
            velocity = like(decay * velocity + (1 - decay) * bent, velocity)
            return velocity.astype(g.dtype), velocity

        steps, velocity = over_leaves(one, 2, updates, state.velocity)
        return steps, GravityState(optax.safe_increment(state.step), velocity)

    return optax.GradientTransformationExtraArgs(init, update)


def gravity(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    alpha: float = 0.01,
    beta: float = 0.9,
    key: Key | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gravity: momentum of gradients that are bent back where they are largest.

    .. math:: \theta_{t+1} = \theta_t - \eta V_t, \qquad V_{-1}\sim\mathcal N\big(0, (\alpha/\eta)^2\big)

    with :math:`V` of `scale_by_gravity`.

    Args:
        learning_rate: η, a number or a schedule, whose first value the start is drawn by; 0.1 by default, the
            authors'. Networks with inputs of order 1 may bear twenty times as much. A schedule that begins at zero
            needs α = 0.
        alpha: α, how far the first steps wander, in units of the parameters; 0.01 by default.
        beta: β, 0.9 by default.
        key: of the random start; needed unless α is 0.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_gravity`; or the first rate is not above zero, where α is.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> optimizer, x = optimize.gravity(alpha=0.0), jnp.array(0.5)
        >>> update, _ = optimizer.update(x, optimizer.init(x), x)  # the gradient of x²/2
        >>> round(float(optax.apply_updates(x, update)), 6)
        0.476471

    Cost: as `scale_by_gravity`.

    References:
        - Bahrami and Pouriyan Zadeh, https://arxiv.org/abs/2101.09192, and
          https://github.com/dariush-bahrami/gravity.optimizer.
    """
    check_not_negative(alpha=alpha)
    if is_zero(alpha):
        spread = 0.0
    else:
        first = rate_at(learning_rate, 0)
        check_positive(learning_rate=first)
        spread = alpha / first
    return with_rate(scale_by_gravity(spread, beta=beta, key=key), learning_rate)
