"""Adagrad where parameters live on curved spaces: one adapted rate a point."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import nonzero, register_rule
from .._settings import check_not_negative, check_rate, rate_at
from ._factors import scalar_zeros, walk


class RiemannianAdagradState(NamedTuple):
    """What Riemannian Adagrad remembers.

    Attributes:
        step: number of steps made.
        sum_of_squares: of gradients' lengths, one number a point, one an element where flat.
    """

    step: Int[Array, ""]
    sum_of_squares: PyTree


register_rule(RiemannianAdagradState, unreadable="Riemannian Adagrad: its steps are geodesics")


def riemannian_adagrad(
    learning_rate: optax.ScalarOrSchedule,
    spaces: PyTree = None,
    *,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
) -> optax.GradientTransformationExtraArgs:
    r"""Adagrad along geodesics, with one adapted rate a point.

    .. math::
        s \leftarrow s + \lVert\operatorname{grad} f(x)\rVert_x^2, \qquad
        x^+ = \exp_x\Big(-\frac{\eta}{\sqrt{s+\epsilon}}\operatorname{grad} f(x)\Big)

    What holds of `riemannian_adam`'s spaces, updates and place in a chain holds of this. Flat parts go as
    ``optax.adagrad``.

    Args:
        learning_rate: η, the distance that the first step goes where gradients are large; a number or a schedule.
        spaces: a space for each part of the parameters, a prefix of their tree; a part's last axes are a point, axes
            before count points. `Euclidean` and None (default) are flat.
        initial_accumulator_value: s at first, in units of the squared gradient, 0.1 by default, as Optax; the paper's
            is 0.
        eps: ε, in the same unit, 1e-7 by default, as Optax; the paper has none.

    Returns:
        The optimiser; its state is a `RiemannianAdagradState`. It needs ``params``.

    Raises:
        ValueError: a negative number, spaces that are no prefix of the parameters, a part whose last axes are no
            points of its space; at an update, ``params`` are missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize, spaces
        >>> optimizer, y = optimize.riemannian_adagrad(0.5, spaces.PositiveDefinite(1)), jnp.array([[8.0]])
        >>> state = optimizer.init(y)
        >>> for _ in range(100):
        ...     slope = jax.grad(lambda y: jnp.log(y[0, 0]) ** 2)(y)  # least at 1
        ...     update, state = optimizer.update(slope, state, y)
        ...     y = optax.apply_updates(y, update)
        >>> round(float(y[0, 0]), 3)
        1.0

    Cost: a projection, a gradient and an exponential a point; memory of one number a point.

    References:
        Bécigneul, Ganea, "Riemannian Adaptive Optimization Methods", 2019, https://arxiv.org/abs/1810.00760 (after the
        text, equation 8, but for the start and ε, which are those of ``optax.adagrad``). The authors found it
        consistently behind their RAMSGrad, which is `riemannian_adam` with ``amsgrad``.
    """
    check_not_negative(initial_accumulator_value=initial_accumulator_value, eps=eps)
    check_rate(learning_rate)

    def init(params: PyTree) -> RiemannianAdagradState:
        return RiemannianAdagradState(jnp.zeros((), jnp.int32), scalar_zeros(spaces, params, initial_accumulator_value))

    def update(
        updates: PyTree, state: RiemannianAdagradState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RiemannianAdagradState]:
        rate = rate_at(learning_rate, state.step)

        def rule(gradient: Array, square: Array, carried: tuple, scalars: tuple) -> tuple[Array, tuple, tuple]:
            total = square + scalars[0]
            scale = jnp.where(total > 0, jax.lax.rsqrt(nonzero(total + eps)), 0)
            return -rate * (scale * gradient), (), (total,)

        done = walk(rule, spaces, updates, params, (), (state.sum_of_squares,), by="riemannian_adagrad")
        return done.update, RiemannianAdagradState(optax.safe_increment(state.step), done.scalars[0])

    return optax.GradientTransformationExtraArgs(init, update)
