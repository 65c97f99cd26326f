"""A tensor along its axes: the Gram matrix of one, matrices applied to each, and which have a matrix at all."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import exact

# A matrix for each axis, or None for one that is left as it is.
Factors = tuple[Float[Array, "side side"] | None, ...]


@exact
def gram(tensor: Float[Array, "..."], axis: int) -> Float[Array, "side side"]:
    """Inner products of the tensor's slices across one axis; of a matrix G along the first, :math:`GG^T`."""
    rest = [i for i in range(tensor.ndim) if i != axis]
    return jnp.tensordot(tensor, tensor, axes=(rest, rest))


@exact
def along(tensor: Float[Array, "..."], matrix: Float[Array, "out side"], axis: int) -> Float[Array, "..."]:
    """The tensor with one axis multiplied from the left; of a matrix G along the first, MG, along the second, GMᵀ."""
    if axis == tensor.ndim - 1:  # where a product has its axis already, and nothing is to be moved
        return jnp.tensordot(tensor, matrix, axes=(axis, 1))
    return jnp.moveaxis(jnp.tensordot(matrix, tensor, axes=(1, axis)), 0, axis)


def along_all(tensor: Float[Array, "..."], factors: Factors, *, transposed: bool = False) -> Float[Array, "..."]:
    """The tensor with each axis multiplied by its factor, or that factor's transpose, where it has one."""
    for axis, factor in enumerate(factors):
        if factor is not None:
            tensor = along(tensor, factor.T if transposed else factor, axis)
    return tensor


def per_axis(shape: Sequence[int], has: Sequence[bool], make: Callable[[int], Array]) -> Factors:
    """What ``make`` says of each axis's length, None for those that have nothing."""
    return tuple(make(side) if held else None for side, held in zip(shape, has))


def averaged(grams: Factors, tensor: Float[Array, "..."], old: float, new: float) -> Factors:
    """Gram matrices with the tensor's own added in, each with its weight."""
    return tuple(
        None if held is None else (old * held + new * gram(tensor, axis)).astype(held.dtype)
        for axis, held in enumerate(grams)
    )
