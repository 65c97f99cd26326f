"""How far along a direction cross-entropy's Taylor series can be trusted: the nearest complex zero of the softmax."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import AbstractRecord, check_like, fault, nonzero, push_forward, split, tangent_of

# Newton's steps for the point where the leading class stops leading: monotone and quadratic from the first on.
NEWTON_STEPS = 12


class SoftmaxRadius(AbstractRecord):
    r"""Convergence radius of each row's cross-entropy along a direction, in multiples of that direction.

    Attributes:
        radius: lower bound on the distance of the nearest complex zero, one a row; exact for two classes.
            Infinite where the direction moves all logits alike.
        simple: the weaker bound :math:`\pi/(\max a-\min a)`, one a row, which does not look at the logits
            themselves.
    """

    radius: Float[Array, "..."]
    simple: Float[Array, "..."]

    def smallest(self) -> Float[Array, ""]:
        """Radius of the mean over rows, whose series converges no further than its worst row's."""
        return jnp.min(self.radius)


def softmax_radius(logits: Callable[..., Array]) -> Callable[..., SoftmaxRadius]:
    r"""Bound the convergence radius of cross-entropy along a direction by the zeros of its partition function.

    With logits taken as linear along the direction, :math:`z_k + \tau a_k`, the loss of a row has its logarithmic
    singularities where

    .. math::
        F(\tau) = \sum_k e^{z_k+\tau a_k} = 0,\quad \tau = x + iy
        \quad\Longrightarrow\quad
        |y| \ge \frac{\pi}{\max a-\min a},\quad
        \max_k p_k(x) \le \tfrac12,

    the first because terms whose phases lie within less than half a turn cannot cancel, the second because no
    term can outweigh the rest together. The radius is the distance of the nearest point that allows both. The
    log-odds of the leading class are concave in x, so the second condition is two roots of a concave function;
    with two classes both conditions are equalities and the radius is exact:
    :math:`\sqrt{\delta^2+\pi^2}/|\Delta|`, :math:`\delta` and :math:`\Delta` the differences of the two logits
    and of their derivatives.

    Args:
        logits: ``logits(params, *args) -> [..., classes]``.

    Returns:
        ``function(params, direction, *args) -> SoftmaxRadius``; ``direction`` is shaped like the inexact leaves
        of ``params``, other leaves are None or ignored. Steps :math:`\tau < ` radius lie where the series of the
        linearised loss converges; that the logits bend is not in the bound.

    Raises:
        ValueError: fewer than two classes, or ``direction`` does not have the inexact leaves of ``params`` in
            their shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import softmax_radius
        >>> record = softmax_radius(lambda weights, x: weights * x)(jnp.zeros(2), jnp.array([1.0, -1.0]), 1.0)
        >>> round(float(record.smallest()), 4)  # δ = 0 and Δ = 2: π / 2
        1.5708

    Cost:
        One JVP, and about a dozen softmaxes of its size.

    References:
        - Sao, "Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy", 2026,
          https://arxiv.org/abs/2603.13552, and its code, https://github.com/piyush314/ghosts-of-softmax (followed: the
          bound π/(max a − min a) by a JVP along a unit direction, the least over rows, and the binary case; that no
          class may hold more than half, and with it the tighter bound for more classes, is derived here)
    """

    def function(params: PyTree, direction: PyTree, *args: Any) -> SoftmaxRadius:
        moving, still = split(params)
        tangent, _ = tangent_of(moving, direction)
        check_like(tangent, moving, what="a direction that", fix="Give it one number for each parameter.")
        tangent = jax.tree.map(lambda leaf, d: jnp.asarray(d, leaf.dtype), moving, tangent)
        values, slopes = push_forward(lambda m: logits(eqx.combine(m, still), *args), moving, tangent)
        if values.ndim == 0 or values.shape[-1] < 2:
            raise fault(
                expected="logits with at least two classes on the last axis",
                got=f"shape {values.shape}",
                fix="For one logit a row return it beside a zero.",
            )
        return _radius(values, slopes)

    return function


def _radius(z: Float[Array, "... classes"], a: Float[Array, "... classes"]) -> SoftmaxRadius:
    spread = jnp.max(a, axis=-1) - jnp.min(a, axis=-1)
    still = spread == 0
    # In units of 1/spread every quantity below is of the order of the logits, at any size of the direction.
    a = (a - jnp.min(a, axis=-1, keepdims=True)) / nonzero(spread)[..., None]
    along = jnp.minimum(_end_of_lead(z, a), _end_of_lead(z, -a))
    # Divided before squaring: neither part leaves the range alone.
    radius = jnp.hypot(along, jnp.pi) / nonzero(spread)
    simple = jnp.pi / nonzero(spread)
    return SoftmaxRadius(jnp.where(still, jnp.inf, radius), jnp.where(still, jnp.inf, simple))


def _end_of_lead(z: Float[Array, "... classes"], a: Float[Array, "... classes"]) -> Float[Array, "..."]:
    """Smallest x ≥ 0 at which the class that leads at 0 has at most half the probability; infinite if none."""
    leader = jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1], dtype=bool)
    own_z = jnp.sum(jnp.where(leader, z, 0), axis=-1)
    own_a = jnp.sum(jnp.where(leader, a, 0), axis=-1)
    gap, speed = own_z[..., None] - z, a - own_a[..., None]

    def log_odds(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        terms = jnp.where(leader, -jnp.inf, speed * x[..., None] - gap)
        share = jax.nn.softmax(terms, axis=-1)
        return -jax.nn.logsumexp(terms, axis=-1), -jnp.sum(jnp.where(leader, 0, share * speed), axis=-1)

    start, _ = log_odds(jnp.zeros_like(own_z))
    # Where the first of the others overtakes: there the log-odds are at most zero. The leader itself is left out by
    # name, since its own speed may round to something else than zero.
    faster = (speed > 0) & ~leader
    overtaken = jnp.where(faster, gap / jnp.where(faster, speed, 1), jnp.inf)
    x = jnp.min(overtaken, axis=-1)
    never = jnp.isinf(x)
    x = jnp.where(never, 0, x)

    def newton(_: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
        value, slope = log_odds(x)
        return jnp.where(slope < 0, jnp.maximum(x - value / jnp.where(slope < 0, slope, -1), 0), x)

    x = jax.lax.fori_loop(0, NEWTON_STEPS, newton, x)
    # Newton's iterates lie beyond the root of a concave function, its chord from 0 before it: the bound stays one.
    end, _ = log_odds(x)
    chord = x * start / jnp.where(start - end > 0, start - end, 1)
    found = jnp.where(start <= 0, 0, jnp.minimum(chord, x))
    return jnp.where(never & (start > 0), jnp.inf, found)
