"""Momentum as dynamics: the field along whose flow a method with momentum steps, and the term that tells two apart."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._core import check_callable, check_like, check_number, push_forward

Phase = tuple[PyTree, PyTree]


def momentum_field(
    gradient: Callable[[PyTree], PyTree],
    *,
    rate: float | Array,
    momentum: float | Array,
    lookahead: float | Array = 0.0,
) -> Callable[[Array, Phase, PyTree], Phase]:
    r"""Make the high-resolution equation of a method with momentum a field, for `flow` to follow.

    $$
    \xi^+ = \xi+\beta(\xi-\xi_-)-\alpha\nabla f\bigl(\xi+\gamma(\xi-\xi_-)\bigr)
    $$

    is heavy ball at γ = 0, Nesterov's method at γ = β, and triple momentum at what
    `nablax.optimize.triple_momentum_coefficients` says. With a step being $h=\sqrt\alpha$ of time it goes along

    $$
    \ddot x+\frac{2(1-\beta)}{(1+\beta)h}\,\dot x
    +\frac2{1+\beta}\bigl(\nabla f(x)+\gamma h\,\nabla^2f(x)\,\dot x\bigr)=0
    $$

    to an error of the order of $h^2=\alpha$. To the order of h the Hessian's term is nothing, and heavy ball and
    Nesterov's method are one equation; it is that term that damps motion across a valley. A method at rest at
    $\xi_0=\xi_{-1}$ begins with the velocity $-\frac h{1+\beta}\nabla f(\xi_0)$.

    Args:
        gradient: ``gradient(x) -> grads``, shaped like x, such as ``jax.grad(loss)``.
        rate: α, above 0, time squared.
        momentum: β, from 0 to below 1.
        lookahead: γ, in moves of the method, 0 by default.

    Returns:
        ``field(t, (x, v), args) -> (dx, dv)``, of position and velocity; ``args`` are not looked at.

    Raises:
        ValueError: ``gradient`` cannot be called, or a number is none or outside; where it is followed, a gradient or a
            velocity is not shaped like its position.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.follow import flow, momentum_field
        >>> curvature = jnp.array([1.0, 100.0])
        >>> ball = dict(rate=0.01, momentum=0.8182)
        >>> start = (jnp.ones(2), jnp.zeros(2))
        >>> def end(**given):
        ...     field = momentum_field(lambda x: curvature * x, **ball, **given)
        ...     return jnp.abs(flow(field, start, 0.0, 3.0).ys[0][1])
        >>> bool(end(lookahead=0.8182) < end() / 20)  # the steep direction has come to rest
        True

    Cost: a product with the Hessian and a gradient at the same point, three to four passes.

    References:
        - Shi, Du, Jordan and Su, "Understanding the Acceleration Phenomenon via High-Resolution Differential
          Equations", 2018, https://arxiv.org/abs/1810.08907, for heavy ball and Nesterov's method (there the Hessian's
          factor is $\sqrt s$, here $(1-\sqrt{\mu s})\sqrt s$: the same to the order kept, and as the method has it);
          the form for any three numbers is derived here in the same way.
        - Parimi et al., "On the Dynamics of Acceleration in First order Gradient Methods", 2025,
          https://arxiv.org/abs/2509.18346, which comes to such equations from passivity (after the abstract).
    """
    check_callable(gradient, what="gradient", fix="Pass gradient(x) -> grads, such as jax.grad(loss).", takes=1)
    check_number(rate, what="rate", above=0, fix="It is the method's rate, the square of a step of time.")
    check_number(momentum, what="momentum", least=0, below=1, fix="0.9 keeps nine tenths of the last move.")
    check_number(lookahead, what="lookahead", fix="0 is heavy ball, momentum itself Nesterov's method.")
    step = jnp.sqrt(rate)
    friction, pull = 2 * (1 - momentum) / ((1 + momentum) * step), 2 / (1 + momentum)

    def field(t: Array, phase: Phase, args: PyTree) -> Phase:
        x, v = phase
        check_like(v, x, what="a velocity that", fix="Follow the pair (x, v).")
        slope, bend = push_forward(gradient, x, v)
        check_like(slope, x, what="a gradient that", fix="Return one number for each of the position's.")

        def push(v: Array, g: Array, b: Array) -> Array:
            return (-friction * v - pull * (g + lookahead * step * b)).astype(jnp.result_type(v))

        return v, jax.tree.map(push, v, slope, bend)

    return field
