"""A step of fitting a metric P = QᵀQ, Q a diagonal and a matrix of low rank."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, exact, nonzero, norm


class LowRankFit(NamedTuple):
    """A metric P = QᵀQ with Q = (I + UVᵀ) diag d, in the course of being fitted.

    Attributes:
        u: U, a column for each rank.
        v: V.
        diagonal: d.
        bounds: running estimates of how strongly the criterion bends in U, V and d.
    """

    u: Float[Array, "dim rank"]
    v: Float[Array, "dim rank"]
    diagonal: Float[Array, " dim"]
    bounds: Float[Array, "3"]


def low_rank_begun(diagonal: Float[Array, " dim"], rank: int, key: Key) -> LowRankFit:
    """Q near a diagonal: U and V drawn, and short."""
    u, v = jax.random.normal(key, (2, diagonal.size, rank), diagonal.dtype)
    u, v = (0.1**0.5 * x / norm(x) for x in (u, v))
    return LowRankFit(u, v, diagonal, jnp.zeros(3, diagonal.dtype))


@exact
def low_rank_times(fit: LowRankFit, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """P = QᵀQ times a vector."""
    return fit.diagonal * _plus(fit.v, fit.u, low_rank_root(fit, vector))


@exact
def low_rank_root(fit: LowRankFit, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Q times a vector."""
    return _plus(fit.u, fit.v, fit.diagonal * vector)


@exact
def low_rank_inverse(fit: LowRankFit, vector: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Q⁻ᵀ times a vector, by the small matrix I + UᵀV."""
    small = jnp.eye(fit.u.shape[1], dtype=fit.u.dtype) + fit.u.T @ fit.v
    scaled = vector / fit.diagonal
    return scaled - fit.v @ jnp.linalg.solve(small, fit.u.T @ scaled)


def damped(h: Array, damping: Any, noise: Array) -> Array:
    """What is fitted to, with noise of a size of its own and of what rounding leaves."""
    return h + (damping + jnp.finfo(h.dtype).eps * jnp.abs(h)) * noise


def _plus(u: Array, v: Array, vector: Array) -> Array:
    """(I + UVᵀ) times a vector."""
    return vector + u @ (v.T @ vector)


@exact
def _balanced(fit: LowRankFit) -> LowRankFit:
    """The same UVᵀ with U and V of one length, and their Gram matrices a little more alike."""
    u, v = fit.u, fit.v
    gram_u, gram_v = u.T @ u, v.T @ v
    ratio = (jnp.trace(gram_u) / nonzero(jnp.trace(gram_v))) ** 0.25
    ratio = nonzero(ratio)
    gram_u, gram_v = gram_u / ratio**2, gram_v * ratio**2
    error = 0.1 * (gram_u - gram_v) / nonzero(jnp.trace(gram_u) + jnp.trace(gram_v))
    half = error @ error / 2  # the two factors below are inverse to each other but for a fourth power of the error
    eye = jnp.eye(len(error), dtype=u.dtype)
    return fit._replace(u=u / ratio @ (eye - error + half), v=v * ratio @ (eye + error + half))


@exact
def low_rank_fitted(fit: LowRankFit, probe: Array, h: Array, coin: Array, *, rate: float, decay: float) -> LowRankFit:
    """Take one relative step down the criterion, of d and by the coin of U or of V.

    Args:
        fit: what there is.
        probe: v.
        h: the curvature's product with it, or a gradient.
        coin: U, not V.
        rate: of the step, no unit, at most 1.
        decay: of the bounds.
    """
    fit = _balanced(fit)
    u, v, d = fit.u, fit.v, fit.diagonal
    a = _plus(u, v, d * h)  # Qh
    metric_h = d * _plus(v, u, a)
    small = jnp.eye(u.shape[1], dtype=u.dtype) + v.T @ u
    b = low_rank_inverse(fit, probe)
    inverse_probe = (b - u @ jnp.linalg.solve(small, v.T @ b)) / d
    bound_u, bound_v, bound_d = fit.bounds

    def grown(bound: Array, size: Array) -> Array:
        return jnp.maximum(decay * bound + (1 - decay) * size, size)

    one, other = metric_h * h, probe * inverse_probe
    bound_d = grown(bound_d, jnp.max(jnp.abs(one)) + jnp.max(jnp.abs(other)))
    d = d - rate / nonzero(bound_d) * (one - other) * d

    def move_u(_: None) -> tuple[Array, Array, Array, Array]:
        av, bv = a @ v, b @ v
        bound = grown(bound_u, norm(a) * norm(v @ av) + norm(b) * norm(v @ bv))
        change = jnp.outer(a, av @ small) - jnp.outer(b, bv @ small)
        return u - rate / nonzero(bound) * change, v, bound, bound_v

    def move_v(_: None) -> tuple[Array, Array, Array, Array]:
        au, bu = a @ u, b @ u
        bound = grown(bound_v, norm(a) * norm(u @ au) + norm(b) * norm(u @ bu))
        change = jnp.outer(a + v @ au, au) - jnp.outer(b + v @ bu, bu)
        return u, v - rate / nonzero(bound) * change, bound_u, bound

    u, v, bound_u, bound_v = jax.lax.cond(coin, move_u, move_v, None)
    return LowRankFit(u, v, d, jnp.stack([bound_u, bound_v, bound_d]).astype(fit.bounds.dtype))
