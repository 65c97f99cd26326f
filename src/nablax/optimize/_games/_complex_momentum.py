"""Momentum whose memory turns as it fades, as players do that circle one another."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._core import register_rule, wide_dtype
from .._leaves import like, over_leaves, wide_zeros
from .._settings import check_decays, check_not_negative, with_rate
from ._players import Ascends, by_player


class ComplexMomentumState(NamedTuple):
    """What complex momentum remembers.

    Attributes:
        real: real part of the memory, shaped like the parameters and in single precision at least.
        imaginary: its imaginary part.
    """

    real: PyTree
    imaginary: PyTree


register_rule(ComplexMomentumState, unreadable="complex momentum: its memory turns as well as fades")


def scale_by_complex_momentum(
    magnitude: float = 0.9, angle: float = jnp.pi / 8, *, ascends: Ascends | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Replace updates by the real part of their complex momentum, without a learning rate.

    .. math:: \mu_{t+1} = \beta\mu_t+g_t, \quad \beta = r e^{i\varphi}, \qquad u_t = \mathrm{Re}\,\mu_{t+1}
        = \sum_{k\ge0} r^k\cos(k\varphi)\,g_{t-k}

    A gradient of the past is taken as it came, then less so, and at last with the other sign.

    Args:
        magnitude: r in [0, 1), by which the memory fades a step; 0.9 by default.
        angle: φ, by which it turns a step, radians; π/8 by default. 0 is heavy ball, π its negative.
        ascends: who ascends the loss whose gradients come: a tree of booleans that the parameters' tree begins with, as
            ``(False, True)`` for a pair, or a function of the parameters that returns one. By default none does.

    Returns:
        The rule; its state is a `ComplexMomentumState`.

    Raises:
        ValueError: a magnitude outside [0, 1), a negative angle, or a tree of booleans that the parameters' does not
            begin with.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_complex_momentum(0.5, jnp.pi)
        >>> state = rule.init(jnp.zeros(()))
        >>> for _ in range(3):  # 1, 1 - ½, 1 - ½ + ¼
        ...     update, state = rule.update(jnp.array(1.0), state)
        >>> round(float(update), 4)
        0.75

    Cost: two arrays of memory.

    References:
        - Lorraine, Acuna, Vicol and Duvenaud, "Complex Momentum for Optimization in Games", 2021,
          https://arxiv.org/abs/2102.08431 (after the abstract, and the update as others write it, with a rate that is a
          real number), a chapter of Lorraine, "Scalable Nested Optimization for Deep Learning", 2024,
          https://arxiv.org/abs/2407.01526. The angle is theirs, after memory.
    """
    check_decays(magnitude=magnitude)
    check_not_negative(angle=angle)

    def init(params: PyTree) -> ComplexMomentumState:
        by_player(ascends, params, 0, 0)  # refuses what does not fit
        return ComplexMomentumState(wide_zeros(params), wide_zeros(params))

    def update(
        updates: PyTree, state: ComplexMomentumState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ComplexMomentumState]:
        cosine, sine = magnitude * jnp.cos(angle), magnitude * jnp.sin(angle)

        def one(g: Array, real: Array, imaginary: Array, sign: float) -> tuple[Array, Array, Array]:
            ahead = cosine * real - sine * imaginary + sign * g.astype(wide_dtype(g))
            real, imaginary = like((ahead, sine * real + cosine * imaginary), (real, imaginary))
            return real.astype(g.dtype), real, imaginary

        signs = by_player(ascends, updates, 1, -1)
        steps, real, imaginary = over_leaves(one, 3, updates, state.real, state.imaginary, signs)
        return steps, ComplexMomentumState(real, imaginary)

    return optax.GradientTransformationExtraArgs(init, update)


def complex_momentum(
    learning_rate: optax.ScalarOrSchedule = 1e-2,
    magnitude: float = 0.9,
    angle: float = jnp.pi / 8,
    *,
    ascends: Ascends | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum for games: a memory that turns as it fades, one gradient a step.

    .. math:: z_{t+1} = z_t-\eta\,\mathrm{Re}\,\mu_{t+1}, \qquad \mu_{t+1} = re^{i\varphi}\mu_t+F(z_t)

    with F each player's gradient of their own loss. Where players circle one another, all moving at once, momentum
    spirals out at every rate: on :math:`f=xy` at r = 0.9, η = 0.05 by 1.121 a step. A memory that turns by φ = π/8
    comes in, by 0.986, and still helps along where players only descend.

    Args:
        learning_rate: η, a number or a schedule; 1e-2 by default, ours.
        magnitude: r in [0, 1), 0.9 by default.
        angle: φ, radians a step; π/8 by default, where games are mixed; π/4 bears larger rates.
        ascends: as in `scale_by_complex_momentum`.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_complex_momentum`, or a negative rate.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> gradient = jax.grad(lambda z: z[0] * z[1])
        >>> optimizer = optimize.complex_momentum(0.05, ascends=(False, True))
        >>> def step(i, carry):
        ...     z, state = carry
        ...     update, state = optimizer.update(gradient(z), state)
        ...     return optax.apply_updates(z, update), state
        >>> z = (jnp.array(1.0), jnp.array(1.0))
        >>> z, _ = jax.lax.fori_loop(0, 1000, step, (z, optimizer.init(z)))
        >>> max(abs(float(x)) for x in z) < 1e-4
        True

    Cost: as `scale_by_complex_momentum`.

    References:
        - Lorraine et al., https://arxiv.org/abs/2102.08431.
    """
    return with_rate(scale_by_complex_momentum(magnitude, angle, ascends=ascends), learning_rate)
