"""The quadratic programme of the aggregators: block pivoting, an interior point where that cycles. Private."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Block pivoting ends in two to six exchanges when it ends at all; singular matrices may make it cycle.
_EXCHANGES = 12
_INTERIOR_STEPS = 80
# Factorising the passive block alone pays from here on; its size is rounded up to an eighth of the whole.
_LARGE, _PIECES = 64, 8


class Solution(NamedTuple):
    """Of one or several complementarity problems; ``residual`` is :math:`max_j |min(x_j, y_j)|`."""

    x: Float[Array, "*batch K"]
    residual: Float[Array, "*batch"]
    done: Bool[Array, "*batch"]


def tolerance(dtype: jnp.dtype) -> float:
    """Residual, for unit rows, at which a solve counts as done: 4e-11 in double, 2e-5 in single precision."""
    return float(jnp.finfo(dtype).eps ** (2 / 3))


def solve(matrix: Float[Array, "K K"], offsets: Float[Array, "n K"]) -> Solution:
    r"""Solve ``0 ≤ x ⟂ Cx + q ≥ 0`` for several q, which is :math:`\min_{x\ge0} \tfrac12x^{\top}Cx + q^{\top}x`.

    The diagonal of C should be near 1 and q near 1 in size. Passive sets come from a few accelerated projected
    gradient steps for all q at once; block principal pivoting then usually needs one or two factorisations. Where it
    has not ended, as with singular C, Mehrotra's predictor-corrector takes over, and neither's word is taken: the
    residual is that of C as given, and ``done`` compares it with `tolerance`.
    """
    passive = _guess(matrix, offsets)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda problem: _solve_one(matrix, *problem), (offsets, passive))
    return jax.vmap(lambda q, guess: _solve_one(matrix, q, guess))(offsets, passive)


def solve_one(matrix: Float[Array, "K K"], offset: Float[Array, " K"]) -> Solution:
    """Solve for one q; see `solve`."""
    return _solve_one(matrix, offset, offset < 0)


def _solve_one(matrix: Float[Array, "K K"], offset: Float[Array, " K"], passive: Bool[Array, " K"]) -> Solution:
    limit = tolerance(matrix.dtype)
    x = _pivot(matrix, offset, passive)
    residual = _residual(matrix, offset, x)
    inner = _interior(matrix, offset, residual, limit)
    inner_residual = _residual(matrix, offset, inner)
    better = inner_residual < residual
    x, residual = jnp.where(better, inner, x), jnp.where(better, inner_residual, residual)
    # Rounding grows with x, and no solver goes below it.
    done = residual <= limit * jnp.maximum(1, jnp.max(x))
    return Solution(x, residual, done)


def _residual(matrix: Array, offset: Array, x: Array) -> Float[Array, ""]:
    residual = jnp.max(jnp.abs(jnp.minimum(x, offset + matrix @ x)))
    return jnp.where(jnp.isnan(residual), jnp.inf, residual)


def _guess(matrix: Float[Array, "K K"], offsets: Float[Array, "n K"], steps: int = 8) -> Bool[Array, "n K"]:
    direction = jnp.ones(matrix.shape[0], matrix.dtype)
    for _ in range(4):
        direction = matrix @ direction
        direction = direction / jnp.maximum(jnp.linalg.norm(direction), jnp.finfo(matrix.dtype).tiny)
    largest = jnp.maximum(1.05 * direction @ matrix @ direction, 1)

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, ahead = carry
        following = jnp.maximum(ahead - (offsets + ahead @ matrix) / largest, 0)
        return following, following + i / (i + 3) * (following - x)

    start = jnp.zeros_like(offsets)
    x, _ = jax.lax.fori_loop(0, steps, step, (start, start))
    return x > (offsets + x @ matrix) / largest


def _solve_triangular(factor: Array, right: Array) -> Array:
    half = jax.lax.linalg.triangular_solve(factor, right[:, None], left_side=True, lower=True)
    return jax.lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)[:, 0]


def _ridge(matrix: Array) -> float:
    return 32 * float(jnp.finfo(matrix.dtype).eps)


def _restricted(matrix: Array, offset: Array, passive: Array) -> Array:
    """``x`` with ``(Cx + q) = 0`` where passive and ``x = 0`` elsewhere, under a ridge of rounding size."""
    block = jnp.where(passive[:, None] & passive[None, :], matrix, 0)
    block = block + jnp.diag(jnp.where(passive, jnp.asarray(_ridge(matrix), matrix.dtype), 1))
    factor = jax.lax.linalg.cholesky(block, symmetrize_input=False)
    return _solve_triangular(factor, jnp.where(passive, -offset, 0))


def _compact(size: int) -> Callable[[Array, Array, Array], Array]:
    def restricted(matrix: Array, offset: Array, passive: Array) -> Array:
        index = jnp.argsort(~passive, stable=True)[:size]
        x = _restricted(matrix[index][:, index], offset[index], passive[index])
        return jnp.zeros_like(offset).at[index].set(x)

    return restricted


def _pivot(matrix: Array, offset: Array, passive: Array) -> Array:
    """Exchange every index that violates its sign until none does."""
    count = matrix.shape[0]
    sizes = [count * piece // _PIECES for piece in range(1, _PIECES)] if count >= _LARGE else []
    branches = [*map(_compact, sizes), _restricted]
    slack = float(jnp.finfo(matrix.dtype).eps ** 0.75)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        passive, _, steps, _ = carry
        branch = jnp.sum(jnp.sum(passive) > jnp.asarray(sizes, jnp.int32), dtype=jnp.int32)
        x = jax.lax.switch(branch, branches, matrix, offset, passive)
        wrong = jnp.where(passive, x, offset + matrix @ x + _ridge(matrix) * x) < -slack
        return passive ^ wrong, x, steps + 1, ~jnp.any(wrong)

    def going(carry: tuple[Array, Array, Array, Array]) -> Array:
        return ~carry[3] & (carry[2] < _EXCHANGES)

    start = (passive, jnp.zeros_like(offset), jnp.asarray(0), jnp.asarray(False))
    return jnp.maximum(jax.lax.while_loop(going, step, start)[1], 0)


def _interior(matrix: Array, offset: Array, residual: Array, limit: float) -> Array:
    """Mehrotra's predictor-corrector, which takes no step where ``residual`` is below the limit already."""
    ridge = _ridge(matrix)

    def longest(x: Array, y: Array, dx: Array, dy: Array) -> Array:
        shrink = jnp.maximum(jnp.max(-dx / x), jnp.max(-dy / y))
        return jnp.minimum(1, 0.995 / jnp.maximum(shrink, 1e-30))

    def step(carry: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        x, y, best, steps, lowest = carry
        infeasible = y - matrix @ x - offset
        gap = jnp.mean(x * y)
        factor = jax.lax.linalg.cholesky(matrix + jnp.diag(y / x + ridge), symmetrize_input=False)
        dx = _solve_triangular(factor, infeasible - y)
        dy = -y - y / x * dx
        length = longest(x, y, dx, dy)
        centring = (jnp.mean((x + length * dx) * (y + length * dy)) / gap) ** 3
        aim = (centring * gap - dx * dy) / x
        dx = _solve_triangular(factor, infeasible - y + aim)
        dy = aim - y - y / x * dx
        length = longest(x, y, dx, dy)
        x, y = x + length * dx, y + length * dy
        residual = _residual(matrix, offset, x)
        improved = residual < lowest
        # After a breakdown nothing can follow; what was reached before it stays.
        steps = jnp.where(jnp.all(jnp.isfinite(x)), steps + 1, _INTERIOR_STEPS)
        return x, y, jnp.where(improved, x, best), steps, jnp.where(improved, residual, lowest)

    def going(carry: tuple[Array, Array, Array, Array, Array]) -> Array:
        return (carry[4] > limit * jnp.maximum(1, jnp.max(carry[2]))) & (carry[3] < _INTERIOR_STEPS)

    ones = jnp.ones_like(offset)
    start = jnp.where(residual > limit, jnp.inf, 0).astype(offset.dtype)
    return jax.lax.while_loop(going, step, (ones, ones, jnp.zeros_like(offset), jnp.asarray(0), start))[2]
