"""A lower level solved to an accuracy, its linear system to a residual, and by how much hypergradients may be off."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import fault, norm
from ...estimate import Smoothness

_DENSE = 256  # up to so many unknowns or hyperparameters the mixed derivative's norm is found


class Levels(NamedTuple):
    """Two levels, of vectors.

    Attributes:
        upper: g, ``upper(x) -> scalar``.
        lower: h, ``lower(x, params) -> scalar``, strongly convex in x.
        smoothness: constants of both.
        curvature: the largest eigenvalue of h's Hessian in x, or above.
        limit: iterations of each solve at most.
    """

    upper: Callable[[Array], Array]
    lower: Callable[[Array, Array], Array]
    smoothness: Smoothness
    curvature: float | Float[Array, ""]
    limit: int

    def slope(self, x: Float[Array, " n"], params: Float[Array, " m"]) -> Float[Array, " n"]:
        """H's gradient in x."""
        return jax.grad(self.lower)(x, params)

    def solved(
        self, x: Float[Array, " n"], params: Float[Array, " m"], accuracy: Float[Array, ""]
    ) -> tuple[Float[Array, " n"], Float[Array, ""], Int[Array, ""]]:
        """By accelerated descent: x, how near it is to the minimum, and how many gradients it took."""
        convexity = self.smoothness.convexity
        root = jnp.sqrt(self.curvature / convexity)
        inertia = (root - 1) / (root + 1)

        def ahead(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            point, last, g, count = carry
            step = point - g / self.curvature
            point = step + inertia * (step - last)
            return point, step, self.slope(point, params), count + 1

        def far(carry: tuple[Array, ...]) -> Array:
            return (norm(carry[2]) > convexity * accuracy) & (carry[3] < self.limit)

        begin: tuple[Array, ...] = (x, x, self.slope(x, params), jnp.array(1))
        point, _, g, count = jax.lax.while_loop(far, ahead, begin)
        return point, norm(g) / convexity, count

    def system(
        self,
        x: Float[Array, " n"],
        params: Float[Array, " m"],
        pull: Float[Array, " n"],
        q: Float[Array, " n"],
        residual: Float[Array, ""],
    ) -> tuple[Float[Array, " n"], Float[Array, ""], Int[Array, ""]]:
        """Conjugate gradients from q: the solution, its residual's length, and how many products it took."""
        _, product = jax.linearize(lambda x: self.slope(x, params), x)

        def next_one(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            q, rest, along, square, count = carry
            image = product(along)
            size = square / (along @ image)
            q, rest = q + size * along, rest - size * image
            after = rest @ rest
            return q, rest, rest + after / square * along, after, count + 1

        def far(carry: tuple[Array, ...]) -> Array:
            return (jnp.sqrt(carry[3]) > residual) & (carry[4] < self.limit)

        rest = pull - product(q)
        begin: tuple[Array, ...] = (q, rest, rest, rest @ rest, jnp.array(1))
        q, _, _, _, count = jax.lax.while_loop(far, next_one, begin)
        return q, norm(pull - product(q)), count + 1  # the residual anew: the carried one drifts

    def bounded(
        self,
        x: Float[Array, " n"],
        params: Float[Array, " m"],
        accuracy: Float[Array, ""],
        q: Float[Array, " n"],
        residual: Float[Array, ""],
    ) -> tuple[Float[Array, " m"], Float[Array, ""]]:
        """The hypergradient, and the most that it may be off by."""
        constants = self.smoothness
        pull = jax.vjp(lambda params: self.slope(x, params), params)[1]
        size = _mixed_norm(pull, x, params) if constants.mixed_norm is None else constants.mixed_norm
        short = residual / constants.convexity
        length = norm(q) + short
        moved = (constants.upper + constants.hessian * length) / constants.convexity * accuracy
        off = size * short + (size + constants.mixed * accuracy) * moved + constants.mixed * length * accuracy
        return -pull(q)[0], jnp.asarray(off, x.dtype)


def _mixed_norm(
    pull: Callable[[Array], tuple[Array]], x: Float[Array, " n"], params: Float[Array, " m"]
) -> Float[Array, ""]:
    """The largest singular value of the mixed derivative, by its matrix over the shorter side."""
    if min(x.size, params.size) > _DENSE:
        raise fault(
            expected=f"mixed_norm, where there are more than {_DENSE} unknowns and hyperparameters",
            got="none",
            fix="Pass Smoothness(mixed_norm=...), a bound on the mixed derivative's largest singular value.",
        )
    if x.size <= params.size:
        matrix = jax.vmap(lambda row: pull(row)[0])(jnp.eye(x.size, dtype=x.dtype))
    else:
        push = jax.linear_transpose(lambda row: pull(row)[0], x)
        matrix = jax.vmap(lambda row: push(row)[0])(jnp.eye(params.size, dtype=params.dtype))
    return jnp.linalg.norm(matrix, 2)
