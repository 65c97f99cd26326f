"""Accelerated gradient sliding without restarts, where what is not smooth is a maximum that can be smoothed."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_callable, checked_loss, exact
from .._settings import check_positive
from ._sliding import GradientSliding, Inner, Setting, slid

_NONSMOOTH = "Write nonsmooth(params) -> number."
_SMOOTHED = "Write smoothed(params, width) -> number."
_SHARE = 0.5  # what an accelerated round leaves of the distance, at most, over the round's own curvature


@eqx.filter_jit
@canonical_convolutions
@exact
def accelerated_gradient_sliding(
    smooth: Callable[[PyTree], Array],
    nonsmooth: Callable[[PyTree], Array],
    smoothed: Callable[[PyTree, Array], Array],
    start: PyTree,
    *,
    curvature: float | Float[Array, ""],
    convexity: float | Float[Array, ""],
    coupling: float | Float[Array, ""],
    steps: int,
    width: float | Float[Array, ""] | None = None,
    simple: Callable[[PyTree], Array] | None = None,
    proximal: Callable[[PyTree, Array], PyTree] | None = None,
    throw: bool = True,
) -> GradientSliding:
    r"""Minimise f + h + χ with log 1/ε gradients of f and 1/√ε of h, which is a maximum that can be smoothed.

    .. math::
        h(x) = \max_{v\in V}\langle Kx,v\rangle-j(v), \qquad
        h_\eta(x) = \max_{v\in V}\langle Kx,v\rangle-j(v)-\frac\eta2\lVert v\rVert^2, \qquad
        \eta_k = \eta_1(1-\tfrac\gamma2)^{k-1}

    The rounds are those of `gradient_sliding`, each by an accelerated method on :math:`h_{\eta_k}` in place of
    subgradients, until what it leaves of the distance, P, is ½. Rounds add no error then, but
    :math:`(\eta_{k-1}-\eta_k)D^2/2`, with D the largest norm in V: how far h was smoothed falls by itself too.

    Args:
        smooth: f, convex.
        nonsmooth: h itself, ``nonsmooth(params) -> number``, by which values are reported; it is not differentiated.
        smoothed: ``smoothed(params, width) -> number``, h with a width η, as Huber's function is of the absolute value.
        start: parameters, a tree of floating-point arrays, at which χ is finite.
        curvature: L, the largest eigenvalue of f's Hessian, or above.
        convexity: μ of χ, above 0.
        coupling: the square of K's norm, or above: ``smoothed`` has a curvature of it over the width.
        steps: rounds, gradients of f.
        width: η₁; ``coupling / curvature`` by default, ours, with which ``smoothed`` is as curved as f at first.
        simple: χ, with ``proximal``; μ/2 times the squared norm by default.
        proximal: ``proximal(params, rate) -> params``, the least of ``simple(u) + ‖u - params‖² / (2 rate)``.
        throw: raise where a value is not finite (default), or only report it in ``result``.

    Returns:
        A :class:`GradientSliding`.

    Raises:
        ValueError: functions that are none or return something else, settings out of range, or one of ``simple`` and
            ``proximal`` without the other.
        RuntimeError: a value was not finite; raised when it is run.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> def smoothed(x, width):  # 20 |x| is the largest v x with |v| up to 20
        ...     slope = jnp.clip(x / width, -20, 20)
        ...     return jnp.sum(slope * x - width * slope**2 / 2)
        >>> found = optimize.accelerated_gradient_sliding(
        ...     lambda x: 50 * jnp.sum((x - 1) ** 2), lambda x: 20 * jnp.sum(jnp.abs(x)), smoothed, jnp.zeros(2),
        ...     curvature=100.0, convexity=1.0, coupling=1.0, steps=80,
        ... )
        >>> [round(float(x), 2) for x in found.params]
        [0.79, 0.79]

    Cost: a round: one gradient of f, some :math:`3\sqrt{\lVert K\rVert^2/(\eta_k\lambda)}` of h smoothed and proximal
        steps, and a value of all three; memory of a few parameters.

    References:
        - Wu, Xu and Zhang, "Restart-Free (Accelerated) Gradient Sliding Methods for Strongly Convex Composite
          Optimization", 2026, https://arxiv.org/abs/2602.04161, after the abstract: the constants and the inner method,
          an accelerated one by estimate sequences, are ours. Without noise here.
        - Lan and Ouyang, "Accelerated gradient sliding for structured convex optimization", 2016,
          https://arxiv.org/abs/1609.04905, after the abstract.
    """
    check_callable(nonsmooth, what="nonsmooth", fix=_NONSMOOTH)
    check_callable(smoothed, what="smoothed", fix=_SMOOTHED, takes=2)
    check_positive(curvature=curvature, convexity=convexity, coupling=coupling)
    first = coupling / curvature if width is None else width
    check_positive(width=first)
    h, hull = (
        checked_loss(nonsmooth, fix=_NONSMOOTH),
        checked_loss(smoothed, fix=_SMOOTHED),
    )

    def rounds(at: Setting) -> Inner:
        tree, prox, dtype, gamma, beta, mu = at.tree, at.prox, at.gamma.dtype, at.gamma, at.beta, at.convexity
        least = 1 / (_SHARE * (beta + mu))  # of the sum of weights, with which a round ends
        squared, begun = jnp.asarray(coupling, dtype), jnp.asarray(first, dtype)

        def inner(x: Array, pull: Array, k: Array, key: Key | None) -> tuple[Array, Array, Array]:
            eta = begun * (1 - gamma / 2) ** k.astype(dtype)
            curved = squared / eta

            def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
                """One of an estimate sequence: its quadratic's least is v, below which what it estimates is not."""
                u, v, summed, total, count = carry
                # The weight a with which a² curved = (A + a)(1 + λA).
                grown = (1 + (beta + mu) * total) / curved
                weight = (grown + jnp.sqrt(grown**2 + 4 * grown * total)) / 2
                following = total + weight
                point = u + weight / following * (v - u)
                summed = summed + weight * (pull + jax.grad(lambda u: hull(tree(u), eta))(point))
                stiff = 1 + following * beta
                v = prox(x - summed / stiff, following / stiff)
                return u + weight / following * (v - u), v, summed, following, count + 1

            begin: tuple[Array, ...] = (x, x, jnp.zeros_like(x), jnp.zeros((), dtype), jnp.array(0, jnp.int32))
            u, v, _, _, count = jax.lax.while_loop(lambda carry: carry[3] < least, step, begin)
            return v, u, count

        return inner

    constants = curvature, convexity, _SHARE
    return slid(smooth, lambda x, _: h(x), start, constants, steps, rounds, simple, proximal, None, throw)
