"""Gradient sliding without restarts: few gradients of what is smooth, many cheap ones of what is not."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_callable, check_count, checked_loss, exact, keyed
from .._settings import check_positive
from ._sliding import GradientSliding, Inner, Setting, slid

_NONSMOOTH = "Write nonsmooth(params) -> number, or nonsmooth(params, *, key) for one of a batch drawn with the key."


@eqx.filter_jit
@canonical_convolutions
@exact
def gradient_sliding(
    smooth: Callable[[PyTree], Array],
    nonsmooth: Callable[..., Array],
    start: PyTree,
    *,
    curvature: float | Float[Array, ""],
    convexity: float | Float[Array, ""],
    steps: int,
    inner_steps: int = 10,
    simple: Callable[[PyTree], Array] | None = None,
    proximal: Callable[[PyTree, Array], PyTree] | None = None,
    key: Key | None = None,
    throw: bool = True,
) -> GradientSliding:
    r"""Minimise f + h + χ with log 1/ε gradients of the smooth f and 1/ε subgradients of h, ε not known beforehand.

    .. math::
        y = (1-\gamma)\bar x_{k-1}+\gamma x_{k-1}, \qquad
        \bar x_k = (1-\gamma)\bar x_{k-1}+\gamma\tilde u_{T_k}, \qquad x_k = u_{T_k}

    .. math::
        u_t = \arg\min_u\ \langle\nabla f(y)+h'(u_{t-1}),u\rangle+\chi(u)
        +\frac\beta2\lVert u-x_{k-1}\rVert^2+\frac{\lambda t}4\lVert u-u_{t-1}\rVert^2

    with :math:`u_0=x_{k-1}`, :math:`\tilde u` the average of the :math:`u_t` with weights t + 1, and

    .. math::
        \beta = L\gamma, \quad \lambda = \beta+\mu, \quad \gamma(1+P_1)\lambda = \mu, \quad
        P_k = \frac2{T_k(T_k+3)}, \quad T_k = \lceil T_1(1-\tfrac\gamma2)^{1-k}\rceil

    With f L-smooth, h M-Lipschitz and χ μ-convex each round leaves 1 - γ, about 1 - √(μ/L), of

    .. math:: V_k = \Psi(\bar x_k)-\Psi^\star+\frac{\gamma(1+P_k)\lambda}2\lVert x_k-x^\star\rVert^2

    and adds at most :math:`4\gamma M^2/(\lambda(T_k+3))`. The rounds' lengths grow half as fast as that falls, so that
    the sum of what was added falls with them: no restart, and no accuracy that is to be known.

    Args:
        smooth: f, convex, ``smooth(params) -> number``.
        nonsmooth: h, convex, ``nonsmooth(params) -> number``, or with ``key``, of a batch drawn at each call; JAX's
            gradient of it is a subgradient.
        start: parameters, a tree of floating-point arrays, at which χ is finite.
        curvature: L, the largest eigenvalue of f's Hessian, or above.
        convexity: μ of χ, above 0. What f has of it may be taken from f and put into χ.
        steps: rounds, gradients of f.
        inner_steps: T₁, subgradients of the first round; 10 by default, ours.
        simple: χ, ``simple(params) -> number``, with ``proximal``; μ/2 times the squared norm by default.
        proximal: ``proximal(params, rate) -> params``, the least of ``simple(u) + ‖u - params‖² / (2 rate)``.
        key: of the batches, where h takes one.
        throw: raise where a value is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`GradientSliding`.

    Raises:
        ValueError: functions that are none or return something else, settings out of range, one of ``simple`` and
            ``proximal`` without the other, or no key where h needs one.
        RuntimeError: a value was not finite; raised when it is run.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> smooth = lambda x: 50 * jnp.sum((x - 1) ** 2)
        >>> found = optimize.gradient_sliding(
        ...     smooth, lambda x: 20 * jnp.sum(jnp.abs(x)), jnp.zeros(2), curvature=100.0, convexity=1.0, steps=80
        ... )
        >>> [round(float(x), 2) for x in found.params]  # (100 - 20) / (100 + 1)
        [0.79, 0.79]

    Cost: a round: one gradient of f, ``T_k`` subgradients of h and proximal steps, and a value of all three; memory of
        a few parameters.

    References:
        - Wu, Xu and Zhang, "Restart-Free (Accelerated) Gradient Sliding Methods for Strongly Convex Composite
          Optimization", 2026, https://arxiv.org/abs/2602.04161, after the abstract: the constants above, and their
          bound, are derived here.
        - the scheme, and weights and proximal terms of its inner steps: Lan, "Gradient sliding for composite
          optimization", 2016, https://arxiv.org/abs/1406.0919.
    """
    check_callable(nonsmooth, what="nonsmooth", fix=_NONSMOOTH)
    inner_steps = check_count(inner_steps, what="inner_steps")
    check_positive(curvature=curvature, convexity=convexity)
    h = checked_loss(lambda x, key: keyed(nonsmooth, x, key=key, what="the batches of nonsmooth"), fix=_NONSMOOTH)
    share = 2 / (inner_steps * (inner_steps + 3))

    def rounds(at: Setting) -> Inner:
        tree, prox, dtype, gamma, beta, mu = at.tree, at.prox, at.gamma.dtype, at.gamma, at.beta, at.convexity

        def inner(x: Array, pull: Array, k: Array, key: Key | None) -> tuple[Array, Array, Array]:
            length = jnp.ceil(inner_steps * (1 - gamma / 2) ** -k.astype(dtype)).astype(jnp.int32)

            def step(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
                u, average = carry
                now = None if key is None else jax.random.fold_in(key, t)
                slope = pull + jax.grad(lambda u: h(tree(u), now))(u)
                turn = t.astype(dtype)
                near = (beta + mu) * turn / 2
                whole = beta + near
                u = prox((beta * x + near * u - slope) / whole, 1 / whole)
                part = 2 * (turn + 1) / (turn * (turn + 3))
                return u, average + part * (u - average)

            u, average = jax.lax.fori_loop(1, length + 1, step, (x, x))
            return u, average, length

        return inner

    constants = curvature, convexity, share
    return slid(smooth, h, start, constants, steps, rounds, simple, proximal, key, throw)
