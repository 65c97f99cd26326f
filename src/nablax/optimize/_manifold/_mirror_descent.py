"""Mirror descent: gradients move not the parameters but their image under a potential's gradient."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import check_callable, check_instance, check_like, fault, register_rule, required, wide_dtype
from .._leaves import over_leaves
from .._settings import check_rate, rate_at


class Potential(NamedTuple):
    r"""A strictly convex function φ of one part of the parameters, by its gradient and that's inverse.

    Attributes:
        gradient: ``gradient(w)``, ∇φ, shaped like w.
        inverse: ``inverse(dual, w)``, the point whose ∇φ is ``dual``; ``w`` is the present one, which tells branches
            apart where φ has several.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> cosh = optimize.Potential(jnp.sinh, lambda dual, w: jnp.arcsinh(dual))  # φ = Σ cosh w
        >>> optimizer = optimize.mirror_descent(0.1, cosh)

    Cost: none.
    """

    gradient: Callable[[Array], Array]
    inverse: Callable[[Array, Array], Array]


def p_norm(p: float) -> Potential:
    r"""The potential :math:`\phi(w) = \sum_i \lvert w_i\rvert^p/p`.

    .. math:: \nabla\phi(w) = \lvert w\rvert^{p-1}\operatorname{sign} w

    At 2 mirror descent is gradient descent; nearer to 1 large weights move more and small ones less, and solutions
    are sparser; above 2 the other way round.

    Args:
        p: above 1, no unit.

    Returns:
        The potential.

    Raises:
        ValueError: p is no finite number above 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> optimize.p_norm(3.0).gradient(jnp.array([-2.0, 1.0])).tolist()
        [-4.0, 1.0]

    Cost: two powers a parameter and step.

    References:
        Pogodin et al., "Synaptic Weight Distributions Depend on the Geometry of Plasticity", 2024,
        https://arxiv.org/abs/2305.19394.
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 1 < p < math.inf:
        raise fault(expected="a finite p above 1", got=repr(p), fix="negative_entropy() is the limit that keeps signs.")

    def power(x: Array, exponent: float) -> Array:
        return jnp.sign(x) * jnp.abs(x) ** exponent

    return Potential(lambda w: power(w, p - 1), lambda dual, w: power(dual, 1 / (p - 1)))


def negative_entropy() -> Potential:
    r"""The potential :math:`\phi(w) = \sum_i \lvert w_i\rvert\log\lvert w_i\rvert-\lvert w_i\rvert`: weights multiply.

    .. math:: w^+ = w\exp(-\eta\,g\operatorname{sign} w)

    Signs never change, and zero stays zero: exponentiated gradients, without normalisation.

    Returns:
        The potential.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> optimizer, w = optimize.mirror_descent(1.0, optimize.negative_entropy()), jnp.array([2.0, -2.0])
        >>> update, _ = optimizer.update(jnp.log(jnp.array([2.0, 2.0])), optimizer.init(w), w)
        >>> (w + update).tolist()
        [1.0, -4.0]

    Cost: a logarithm and an exponential a parameter and step.

    References:
        Pogodin et al., 2024, https://arxiv.org/abs/2305.19394, whose code takes Σ|w| log|w|, of a gradient 1 more: the
        steps are the same. Kivinen, Warmuth, "Exponentiated Gradient versus Gradient Descent for Linear Predictors",
        1997.
    """
    return Potential(
        lambda w: jnp.sign(w) * jnp.log(jnp.where(w == 0, 1, jnp.abs(w))),
        lambda dual, w: jnp.sign(w) * jnp.exp(jnp.sign(w) * dual),
    )


class MirrorDescentState(NamedTuple):
    """What mirror descent remembers.

    Attributes:
        step: number of steps made.
    """

    step: Int[Array, ""]


register_rule(MirrorDescentState, unreadable="mirror descent: its step depends on where the parameters are")


def mirror_descent(
    learning_rate: optax.ScalarOrSchedule, potential: Potential
) -> optax.GradientTransformationExtraArgs:
    r"""Mirror descent in the geometry of any potential.

    .. math:: \nabla\phi(w^+) = \nabla\phi(w) - \eta\,g

    It is gradient descent in the metric ∇²φ, of steps that need not be small. Where many solutions fit, the one
    reached from w₀ is the nearest in φ's Bregman divergence: :math:`\nabla\phi(w)-\nabla\phi(w_0)` stays in the span
    of the gradients. Updates are :math:`w^+ - w`: the rule goes last in a chain; momentum before it averages gradients.

    Args:
        learning_rate: η, a number or a schedule, in units of ∇φ over the gradient.
        potential: φ, such as `p_norm` or `negative_entropy`, or a `Potential` of your own; of each part alone.

    Returns:
        The optimiser; its state is a `MirrorDescentState`. It needs ``params``.

    Raises:
        ValueError: ``potential`` is none, a negative rate; at an update, ``params`` are missing.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> optimizer, w = optimize.mirror_descent(0.5, optimize.p_norm(3.0)), jnp.array([1.0])
        >>> update, _ = optimizer.update(jnp.array([-6.0]), optimizer.init(w), w)
        >>> (w + update).tolist()  # w² = 1 + 3
        [2.0]

    Cost: the potential's gradient and inverse; no memory.

    References:
        Nemirovski, Yudin, "Problem Complexity and Method Efficiency in Optimization", 1983; with these potentials,
        Pogodin et al., "Synaptic Weight Distributions Depend on the Geometry of Plasticity", 2024,
        https://arxiv.org/abs/2305.19394, and their code (https://github.com/romanpogodin/synaptic-weight-distr).
    """
    fix = "Pass optimize.p_norm(3.0), or optimize.Potential(gradient, inverse)."
    check_instance(potential, Potential, what="potential", fix=fix)
    check_callable(potential.gradient, what="the potential's gradient", fix=fix, takes=1)
    check_callable(potential.inverse, what="the potential's inverse", fix=fix, takes=2)
    check_rate(learning_rate)

    def init(params: PyTree) -> MirrorDescentState:
        return MirrorDescentState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: MirrorDescentState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MirrorDescentState]:
        params = required(params, "params", by="mirror_descent")
        check_like(params, updates, what="parameters that", fix="Pass the parameters that are trained.")
        rate = rate_at(learning_rate, state.step)

        def one(g: Array, w: Array) -> tuple[Array]:
            wide = w.astype(wide_dtype(w))
            arrived = potential.inverse(potential.gradient(wide) - rate * g.astype(wide.dtype), wide)
            return ((arrived - wide).astype(g.dtype),)

        (steps,) = over_leaves(one, 1, updates, params)
        return steps, MirrorDescentState(optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init, update)
