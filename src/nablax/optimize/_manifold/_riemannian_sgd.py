"""Gradient descent with momentum where parameters live on curved spaces."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import register_rule
from .._leaves import wide_zeros
from .._settings import check_decays, check_rate, is_zero, rate_at
from ._factors import spaces_of, walk


class RiemannianSgdState(NamedTuple):
    """What Riemannian gradient descent remembers.

    Attributes:
        step: number of steps made.
        trace: momentum, tangents at the present parameters; None without momentum.
    """

    step: Int[Array, ""]
    trace: PyTree


register_rule(RiemannianSgdState, unreadable="Riemannian SGD: its steps are geodesics, along which momentum turns")


def riemannian_sgd(
    learning_rate: optax.ScalarOrSchedule, spaces: PyTree = None, *, momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent along geodesics, its momentum carried with the parameters.

    .. math::
        m \leftarrow \mu m + \operatorname{grad} f(x), \qquad x^+ = \exp_x(-\eta\,m), \qquad
        m \leftarrow \Gamma_{x\to x^+} m

    Gradients come as JAX gives them, in the numbers that points are written in. Updates are :math:`x^+ - x`, so that
    ``optax.apply_updates`` lands on the space to one rounding; the next step projects first, so that roundings do not
    add up. Nothing may rescale them afterwards: the rule goes last in a chain. Flat parts go as ``optax.sgd``.

    Args:
        learning_rate: η, a number or a schedule, in units of squared distance over the loss.
        spaces: a space for each part of the parameters, a prefix of their tree; a part's last axes are a point, axes
            before count points. `Euclidean` and None (default) are flat.
        momentum: μ, 0 by default.
        nesterov: step along :math:`\operatorname{grad} f + \mu m`; False by default.

    Returns:
        The optimiser; its state is a `RiemannianSgdState`. It needs ``params``.

    Raises:
        ValueError: a negative rate, momentum outside [0, 1), spaces that are no prefix of the parameters, a part whose
            last axes are no points of its space; at an update, ``params`` are missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize, spaces
        >>> north = lambda x: -x[2]
        >>> optimizer, x = optimize.riemannian_sgd(0.5, spaces.Sphere(3)), jnp.array([1.0, 0.0, 0.0])
        >>> state = optimizer.init(x)
        >>> for _ in range(20):
        ...     update, state = optimizer.update(jax.grad(north)(x), state, x)
        ...     x = optax.apply_updates(x, update)
        >>> round(float(x[2]), 4), round(float(jnp.linalg.norm(x)), 4)
        (1.0, 1.0)

    Cost: a projection, a gradient and an exponential a point, a transport with momentum; one array of memory with it.

    References:
        - Bonnabel, "Stochastic Gradient Descent on Riemannian Manifolds", 2013, https://arxiv.org/abs/1111.5280.
        - Momentum carried by transport as in Bécigneul, Ganea, "Riemannian Adaptive Optimization Methods", 2019,
          https://arxiv.org/abs/1810.00760, and in https://github.com/geoopt/geoopt, whose memory begins with the flat
          gradient where this one begins with zero; its form (no damping, Nesterov's step) is ``optax.sgd``'s.
    """
    check_decays(momentum=momentum)
    check_rate(learning_rate)
    with_trace = not is_zero(momentum)

    def init(params: PyTree) -> RiemannianSgdState:
        spaces_of(spaces, params)
        return RiemannianSgdState(jnp.zeros((), jnp.int32), wide_zeros(params) if with_trace else None)

    def update(
        updates: PyTree, state: RiemannianSgdState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RiemannianSgdState]:
        rate = rate_at(learning_rate, state.step)

        def rule(gradient: Array, square: Array, carried: tuple, scalars: tuple) -> tuple[Array, tuple, tuple]:
            if not with_trace:
                return -rate * gradient, (), ()
            trace = gradient + momentum * carried[0]
            return -rate * (gradient + momentum * trace if nesterov else trace), (trace,), ()

        carried = (state.trace,) if with_trace else ()
        done = walk(rule, spaces, updates, params, carried, (), by="riemannian_sgd")
        trace = done.carried[0] if with_trace else None
        return done.update, RiemannianSgdState(optax.safe_increment(state.step), trace)

    return optax.GradientTransformationExtraArgs(init, update)
