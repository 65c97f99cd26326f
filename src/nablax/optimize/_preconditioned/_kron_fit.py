"""A step of fitting a metric P = QᵀQ, Q a Kronecker product of matrices or diagonals, one for each axis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, exact, nonzero, norm, peak
from ._kronecker import along, gram

# A matrix, or the diagonal of one.
Factor = Float[Array, "side side"] | Float[Array, " side"]


class KronFit(NamedTuple):
    """A metric in the course of being fitted.

    Attributes:
        factors: Q's factors, one for each axis.
        bounds: running estimates of how strongly the criterion bends in each, one number an axis.
    """

    factors: tuple[Factor, ...]
    bounds: tuple[Float[Array, ""], ...]


def squeezed(leaf: Array) -> Array:
    """A leaf without its axes of length 1; a number has one such axis."""
    return leaf.reshape([side for side in leaf.shape if side != 1] or [1])


def begun(leaf: Array, scale: Array, *, max_size: int, max_skew: float) -> KronFit:
    """Q as a multiple of the identity: a matrix for each axis that is not too long, a diagonal for the others."""
    scale = jnp.asarray(scale) ** (1 / leaf.ndim)

    def factor(side: int) -> Array:
        dense = 1 < side <= max_size and side**2 <= max_skew * leaf.size
        return scale * (jnp.eye(side, dtype=leaf.dtype) if dense else jnp.ones(side, leaf.dtype))

    return KronFit(tuple(map(factor, leaf.shape)), tuple(jnp.zeros((), leaf.dtype) for _ in leaf.shape))


@exact
def metric_times(factors: tuple[Factor, ...], tensor: Array) -> Array:
    """P = QᵀQ times a tensor."""
    for axis, q in enumerate(factors):
        if q.ndim == 1:
            tensor = tensor * _shaped(q**2, tensor.ndim, axis)
        else:
            tensor = along(along(tensor, q, axis), q.T, axis)
    return tensor


@exact
def fitted(
    fit: KronFit, tensor: Array, probe: Array | None, key: Key, *, rate: float, decay: float, damping: float
) -> KronFit:
    r"""Take one relative step down the criterion.

    It is :math:`E[h^{\top}Ph+v^{\top}P^{-1}v]`, the step :math:`dQ = Q^{1/2}\mathcal E Q^{3/2}`.

    Args:
        fit: what there is.
        tensor: h, a gradient, or the curvature's product with the probe.
        probe: v; None for whitening, whose v is noise of its own that is averaged over.
        key: of the noise that damps h, of the norms' start, and of the balance.
        rate: of the step, no unit, below 1.
        decay: of the bounds.
        damping: of h, in its unit.
    """
    noise_key, balance_key, *keys = jax.random.split(key, 2 + 2 * tensor.ndim)
    amount = damping + jnp.finfo(tensor.dtype).eps * jnp.abs(tensor)
    pulled = metric_times(fit.factors, tensor + amount * jax.random.normal(noise_key, tensor.shape, tensor.dtype))
    factors, bounds = [], []
    for axis, (q, bound) in enumerate(zip(fit.factors, fit.bounds)):
        dense = q.ndim == 2
        one = gram(pulled, axis) if dense else _squares(pulled, axis)
        if probe is None:
            share = tensor.size / max(1, q.shape[0])
            size = (_norm(one, keys[2 * axis]) if dense else jnp.max(one, initial=0)) + share
            change = one - share * jnp.eye(len(q), dtype=q.dtype) if dense else one - share
        else:
            other = gram(probe, axis) if dense else _squares(probe, axis)
            size = _norm(one + other, keys[2 * axis]) if dense else jnp.max(one + other, initial=0)
            change = one - other
        bound = jnp.maximum(decay * bound + (1 - decay) * size, size).astype(bound.dtype)
        change = change / nonzero(bound)
        q = q - rate * (change @ q if dense else change * q)
        factors.append((_symmetrised(q, keys[2 * axis + 1]) if dense else q).astype(fit.factors[axis].dtype))
        bounds.append(bound)
    # Only the product of the scales matters, so that they could run off to both ends of the number range.
    balance = jax.random.uniform(balance_key) < 0.01
    return KronFit(tuple(jnp.where(balance, a, b) for a, b in zip(_balanced(factors), factors)), tuple(bounds))


def _shaped(diagonal: Float[Array, " side"], axes: int, axis: int) -> Array:
    return diagonal.reshape([-1 if i == axis else 1 for i in range(axes)])


def _squares(tensor: Array, axis: int) -> Float[Array, " side"]:
    return jnp.sum(tensor**2, axis=[i for i in range(tensor.ndim) if i != axis])


def _balanced(factors: list[Factor]) -> list[Factor]:
    sizes = jnp.stack([jnp.max(jnp.abs(q), initial=0) for q in factors])
    mean = jnp.exp(jnp.mean(jnp.log(nonzero(sizes))))
    return [(q * (mean / nonzero(size))).astype(q.dtype) for q, size in zip(factors, sizes)]


def _norm(matrix: Float[Array, "side side"], key: Key) -> Float[Array, ""]:
    """A lower bound of the spectral norm of a symmetric or skew matrix, from 32 vectors about its largest row."""
    unit = peak(matrix)
    matrix = matrix / unit
    row = matrix[jnp.argmax(jnp.sum(matrix**2, axis=1))][None]
    start = jax.random.normal(key, (32, len(matrix)), matrix.dtype)
    vectors = row + jnp.sign(jnp.sum(row * start, axis=1, keepdims=True)) * start
    for _ in range(2):
        vectors = vectors @ matrix
        vectors = vectors / nonzero(norm(vectors, 1, keepdims=True)) @ matrix
    return unit * jnp.max(norm(vectors, 1))


def _symmetrised(q: Float[Array, "side side"], key: Key) -> Float[Array, "side side"]:
    """Q turned a little towards being symmetric and positive: a second-order rotation that leaves QᵀQ as it is."""
    skew = q.T - q
    skew = skew / nonzero(_norm(skew, key))
    once = skew @ q
    twice = skew @ once
    first, second = jnp.trace(once), jnp.trace(twice)  # how fast tr Q rises along the rotation, and how that falls
    angle = jnp.where(second < 0, jnp.minimum(-first / nonzero(second), 1 / 8), 1 / 8)
    return q + angle * (once + angle / 2 * twice)
