"""Bounds of a ReLU network's margins over a box of inputs, by linear relaxation substituted backwards."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import nonzero

Layer = Callable[[Array], Array]
Affine = tuple[Float[Array, "outputs inputs"], Float[Array, " outputs"]]


def box_bounds(
    affine: list[Affine], lower: Float[Array, "images inputs"], upper: Float[Array, "images inputs"], labels: Array
) -> tuple[Array, Array, Array]:
    """Linear lower bounds of each margin by the inputs, as rows and constants, and their least value over the box."""
    rows, constants = jax.vmap(_substitute, (None, 0, 0, 0))(affine, lower, upper, labels)
    least = jnp.einsum("nkp,np->nk", jnp.maximum(rows, 0), lower)
    return rows, constants, constants + least + jnp.einsum("nkp,np->nk", jnp.minimum(rows, 0), upper)


def affine_maps(layers: Sequence[Layer], shape: tuple[int, ...], dtype: np.dtype) -> list[Affine]:
    """Each layer as matrix and vector, by its value and derivative at zero."""
    affine = []
    for layer in layers:
        origin = jnp.zeros(shape, dtype)
        shift, matrix = layer(origin), jax.jacfwd(layer)(origin)
        affine.append((matrix.reshape(shift.size, -1), shift.reshape(-1)))
        shape = shift.shape
    return affine


def bends(
    layers: Sequence[Layer], affine: list[Affine], points: Float[Array, "points height width channels"]
) -> Float[Array, " layers"]:
    """How far each layer is from its matrix, at random and where the points lead; relative to each output's terms."""
    defects = []
    for number, (layer, (matrix, shift)) in enumerate(zip(layers, affine, strict=True)):
        probe = jax.random.normal(jax.random.key(number), (1, *points.shape[1:]), points.dtype)
        inputs = jnp.concatenate([probe, points])
        outputs, flat = jax.vmap(layer)(inputs), inputs.reshape(len(inputs), -1)
        gap = jnp.abs(outputs.reshape(len(inputs), -1) - forward([(matrix, shift)], flat))
        size = forward([(jnp.abs(matrix), jnp.abs(shift))], jnp.abs(flat))
        defects.append(jnp.max(gap / nonzero(size)))
        points = jax.nn.relu(outputs[1:])
    return jnp.stack(defects)


def forward(affine: list[Affine], xs: Float[Array, "images inputs"]) -> Float[Array, "images outputs"]:
    for number, (matrix, shift) in enumerate(affine):
        xs = (jax.nn.relu(xs) if number else xs) @ matrix.T + shift[None]
    return xs


def _substitute(
    affine: list[Affine], lower: Float[Array, " inputs"], upper: Float[Array, " inputs"], label: Int[Array, ""]
) -> tuple[Float[Array, "outputs inputs"], Float[Array, " outputs"]]:
    """Rows and constants with margin ≥ rows · x + constants for inputs between the bounds."""

    def back(rows: Array, constants: Array, depth: int, hidden: list) -> tuple[Array, Array]:
        """From a lower bound by the outputs of affine layer ``depth`` to one by the inputs."""
        for number in range(depth, -1, -1):
            matrix, shift = affine[number]
            rows, constants = rows @ matrix, constants + rows @ shift
            if number:
                low, high = hidden[number - 1]
                crossing = (low < 0) & (high > 0)
                above = jnp.where(crossing, high / jnp.where(crossing, high - low, 1), (low >= 0).astype(low.dtype))
                # Under an undecided ReLU the nearer of its two arms.
                below = jnp.where(crossing, (high > -low).astype(low.dtype), above)
                constants = constants - jnp.minimum(rows, 0) @ jnp.where(crossing, above * low, 0)
                rows = jnp.maximum(rows, 0) * below[None] + jnp.minimum(rows, 0) * above[None]
        return rows, constants

    hidden: list[tuple[Array, Array]] = []
    for depth, (matrix, _) in enumerate(affine[:-1]):
        unit = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        bounds = []
        for sign in (1, -1):
            rows, constants = back(sign * unit, jnp.zeros(len(unit), unit.dtype), depth, hidden)
            bounds.append(sign * (constants + jnp.maximum(rows, 0) @ lower + jnp.minimum(rows, 0) @ upper))
        hidden.append((bounds[0], bounds[1]))
    outputs = affine[-1][0].shape[0]
    unit = jnp.eye(outputs, dtype=lower.dtype)
    margins = unit[label][None] - unit
    return back(margins, jnp.zeros(outputs, lower.dtype), len(affine) - 1, hidden)
