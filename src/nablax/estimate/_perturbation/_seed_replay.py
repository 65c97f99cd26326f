"""A gradient that is a seed and a number: directions are drawn again where they are needed, and never stored."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_count, check_rate, split, wide_dtype
from .._frame import Objective, estimator
from ._directions import draw_leaf
from ._finite_differences import central_difference
from ._just_in_time import just_in_time, zero_after


class SeededGradient(eqx.Module):
    r"""The estimate :math:`\hat g = \frac1m\sum_i s_i v_i`, its Gaussian directions by the keys that draw them.

    Attributes:
        keys: ``[m]``, one a direction.
        slopes: ``[m]``, the loss's differences along them, unit of the loss over that of the parameters.
    """

    keys: Key
    slopes: Float[Array, " m"]

    def apply(self, params: PyTree, scale: float | Float[Array, ""]) -> PyTree:
        """The parameters moved by so many times the gradient, leaf by leaf: ``apply(params, -learning_rate)`` descends.

        Args:
            params: those that the gradient was taken at, or others of their shapes; leaves that are not inexact arrays
                are kept.
            scale: units of parameters per gradient.

        Returns:
            The moved parameters, in their own dtypes.
        """
        trained, held = split(params)
        leaves, structure = jax.tree.flatten(trained)
        moved: list[Array] = []
        for number, leaf in enumerate(leaves):
            # One leaf after the other, so that at any time there is one leaf's direction.
            total = self._sum(number + zero_after(moved[-1] if moved else None), leaf)
            moved.append(leaf + (scale / len(self.slopes) * total).astype(leaf.dtype))
        return eqx.combine(jax.tree.unflatten(structure, moved), held)

    def tree(self, params: PyTree) -> PyTree:
        """The gradient as a tree like the parameters, for an optimiser that needs one; its memory is theirs."""
        trained, _ = split(params)
        return self.apply(jax.tree.map(jnp.zeros_like, trained), 1.0)

    def _sum(self, number: Array, leaf: Array) -> Array:
        def add(total: Array, one: tuple[Key, Array]) -> tuple[Array, None]:
            key, slope = one
            return total + slope * draw_leaf("gaussian", key, number, leaf), None

        return jax.lax.scan(add, jnp.zeros(leaf.shape, wide_dtype(leaf)), (self.keys, self.slopes))[0]


def seed_replay(
    loss: Callable[..., Any], *, has_aux: bool = False, step: float = 1e-3, probes: int = 1
) -> Callable[..., tuple[Any, SeededGradient]]:
    r"""Estimate the gradient from two values of the loss, and keep only the seed of the direction.

    .. math:: s_i = \frac{L(\theta+h v_i)-L(\theta-h v_i)}{2h},\qquad v_i\sim N(0, I)

    Directions are drawn from their keys for each of the two moves and again for the update; what is kept between is m
    keys and m numbers. Parameters are not moved in place and back, as the authors have it, which would leave them
    changed by rounding.

    Args:
        loss: ``loss(params, *args) -> scalar``, any function.
        has_aux: whether it returns ``(scalar, aux)``.
        step: h, in units of the parameters. Default 1e-3, the authors'.
        probes: m, 1 by default, as the authors have it.

    Returns:
        ``(params, *args, key=key) -> (value, gradient)``; ``gradient`` is a `SeededGradient`, no tree: it moves
        parameters by ``gradient.apply(params, -learning_rate)``.

    Raises:
        ValueError: as for `nablax.estimate.spsa`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> loss = lambda w: jnp.sum((w - 1.0) ** 2)
        >>> estimator = estimate.seed_replay(loss)
        >>> def step(w, key):
        ...     value, gradient = estimator(w, key=key)
        ...     return gradient.apply(w, -0.05), value
        >>> w, values = jax.lax.scan(step, jnp.zeros(4), jax.random.split(jax.random.key(0), 200))
        >>> bool(values[-1] < 1e-3 * values[0])
        True

    Cost:
        2m + 1 forward passes; memory of a forward pass and of the largest leaf's direction beside the parameters, where
        the compiler fuses the move into the layer that uses it.

    References:
        - Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", 2023,
          https://arxiv.org/abs/2305.17333
    """
    check_count(probes, what="probes")
    check_rate(step, what="step")

    def estimate(objective: Objective, params: PyTree, key: Key) -> tuple[Array, PyTree, PyTree]:
        value, aux = objective(params)
        keys = jax.random.split(key, probes)

        leaves = jax.tree.leaves(params)

        @canonical_convolutions
        def slope(key: Key) -> Array:
            def value_at(move: Array) -> Array:
                def leaf(number: int, zero: Array) -> Array:
                    direction = draw_leaf("gaussian", key, number + zero, leaves[number])
                    return (leaves[number] + move * direction).astype(leaves[number].dtype)

                return just_in_time(lambda params: objective(params)[0], leaf, params)

            return central_difference(value_at, step)

        return value, aux, SeededGradient(keys, jax.lax.map(slope, keys))

    return estimator(loss, estimate, has_aux=has_aux, by="seed_replay")


__all__ = ["SeededGradient", "seed_replay"]
