"""The groups of matrices that a metric's root may be of, each with the step by which it is fitted."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._core import Key
from ._kron_fit import KronFit, begun, fitted, metric_times
from ._kronecker import along
from ._low_rank_fit import (
    LowRankFit,
    damped,
    low_rank_begun,
    low_rank_fitted,
    low_rank_inverse,
    low_rank_root,
    low_rank_times,
)
from ._matrix_fit import MatrixFit, matrix_begun, matrix_fitted, matrix_halves

Group = Literal["dense", "general linear", "triangular", "diagonal", "low rank", "kronecker"]
_DECAY = 0.9  # of the bounds, the author's


class GroupSteps(NamedTuple):
    """What a group's metric begins as, how it moves, and what it does to a tensor."""

    begin: Callable  # (tensor, scale, rank, key) -> fit
    step: Callable  # (fit, h, v, key, *, rate, damping) -> fit
    times: Callable  # (fit, tensor) -> P tensor
    halves: Callable  # (fit, h, v) -> Qh and Q⁻ᵀv, whose squares are the criterion
    shape: Callable  # fit -> of the tensor


def _matrix(*, triangular: bool) -> GroupSteps:
    def step(fit: MatrixFit, h: Array, v: Array, key: Key, *, rate: Any, damping: Any) -> MatrixFit:
        h = damped(h, damping, jax.random.normal(key, h.shape, h.dtype))
        return matrix_fitted(fit, v, h, triangular=triangular, rate=rate, decay=_DECAY)

    return GroupSteps(
        begin=lambda v, scale, rank, key: matrix_begun(v, scale),
        step=step,
        times=lambda fit, x: fit.q.T @ (fit.q @ x),
        halves=functools.partial(matrix_halves, triangular=triangular),
        shape=lambda fit: fit.q.shape[:1],
    )


def _factors(*, dense: bool) -> GroupSteps:
    def begin(v: Array, scale: Array, rank: int, key: Key) -> KronFit:
        return begun(v, scale, max_size=v.size if dense else 1, max_skew=float("inf"))

    def step(fit: KronFit, h: Array, v: Array, key: Key, *, rate: Any, damping: Any) -> KronFit:
        return fitted(fit, h, v, key, rate=rate, decay=_DECAY, damping=damping)

    def halves(fit: KronFit, h: Array, v: Array) -> tuple[Array, Array]:
        for axis, q in enumerate(fit.factors):
            if q.ndim == 1:  # of a tensor with one axis
                h, v = h * q, v / q
            else:
                h, v = along(h, q, axis), along(v, jnp.linalg.inv(q).T, axis)
        return h, v

    def shape(fit: KronFit) -> tuple[int, ...]:
        return tuple(len(q) for q in fit.factors)

    return GroupSteps(begin, step, lambda fit, x: metric_times(fit.factors, x), halves, shape)


def _low_rank() -> GroupSteps:
    def begin(v: Array, scale: Array, rank: int, key: Key) -> LowRankFit:
        return low_rank_begun(scale * jnp.ones_like(v), rank, key)

    def step(fit: LowRankFit, h: Array, v: Array, key: Key, *, rate: Any, damping: Any) -> LowRankFit:
        noise_key, coin_key = jax.random.split(key)
        h = damped(h, damping, jax.random.normal(noise_key, h.shape, h.dtype))
        return low_rank_fitted(fit, v, h, jax.random.bernoulli(coin_key), rate=rate, decay=_DECAY)

    def halves(fit: LowRankFit, h: Array, v: Array) -> tuple[Array, Array]:
        return low_rank_root(fit, h), low_rank_inverse(fit, v)

    return GroupSteps(begin, step, low_rank_times, halves, lambda fit: fit.diagonal.shape)


GROUPS: dict[str, GroupSteps] = {
    "dense": _factors(dense=True),
    "general linear": _matrix(triangular=False),
    "triangular": _matrix(triangular=True),
    "diagonal": _factors(dense=False),
    "low rank": _low_rank(),
    "kronecker": _factors(dense=True),
}
