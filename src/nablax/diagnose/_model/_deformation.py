"""Images deformed by small vector fields, and what their pixels can become."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_shape


def deform(
    image: Float[Array, "height width channels"], displacement: Float[Array, "height width 2"]
) -> Float[Array, "height width channels"]:
    """Read each pixel where a vector field points, by bilinear interpolation, the edge continued outwards.

    Args:
        image: the image.
        displacement: of each pixel, down and to the right, in pixels.

    Returns:
        The deformed image.

    Raises:
        ValueError: the image has not three axes, or there is not one displacement of two numbers for each pixel.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import deform
        >>> image = jnp.array([[[0.0], [1.0]]])
        >>> deform(image, jnp.full((1, 2, 2), 0.25))[..., 0].tolist()
        [[0.25, 1.0]]

    Cost:
        Four reads a pixel.
    """
    image = check_shape(image, (None, None, None), what="an image", fix="Give a grey one an axis: image[..., None].")
    height, width, _ = image.shape
    displacement = check_shape(
        displacement, (height, width, 2), what="a displacement", fix="Give each pixel two numbers, down and right."
    )
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    down, down_share = _between_pixels(rows + displacement[..., 0], height)
    right, right_share = _between_pixels(columns + displacement[..., 1], width)
    top, bottom = (
        image[row, right[0]] * (1 - right_share) + image[row, right[1]] * right_share for row in (down[0], down[1])
    )
    return top * (1 - down_share) + bottom * down_share


def _between_pixels(at: Float[Array, "height width"], size: int) -> tuple[tuple[Array, Array], Array]:
    """The pixels before and after a place along an axis, and the share of the second."""
    at = jnp.clip(at, 0, size - 1)
    before = jnp.floor(at)
    index = before.astype(jnp.int32)
    return (index, jnp.minimum(index + 1, size - 1)), (at - before)[..., None]


def _grid(displacement: float) -> Float[np.ndarray, "corners 2"]:
    """Corners of the pieces of a pixel's square: where the interpolation bends within reach, and the ends."""
    whole = np.arange(-np.floor(displacement), np.floor(displacement) + 1)
    offsets = np.unique(np.concatenate([[-displacement], whole, [displacement]]))
    return np.stack(np.meshgrid(offsets, offsets, indexing="ij"), -1).reshape(-1, 2)


def corner_values(
    images: Float[Array, "images height width channels"], displacement: float
) -> Float[Array, "corners ..."]:
    """The pixels' values at the corners of all pieces of their squares."""
    grid = jnp.asarray(_grid(displacement), images.dtype)

    def moved(offset: Float[Array, "2"]) -> Array:
        return jax.vmap(lambda image: deform(image, jnp.broadcast_to(offset, (*image.shape[:2], 2))))(images)

    return jax.lax.map(moved, grid)


def bounding_planes(values: Float[Array, "corners ..."], displacement: float) -> tuple[tuple[Array, Array], ...]:
    """Planes under and over each pixel's value: slopes [..., 2] and offsets, parallel, by least squares."""
    grid = _grid(displacement)
    fit = jnp.asarray(np.linalg.pinv(np.concatenate([grid, np.ones((len(grid), 1))], 1))[:2], values.dtype)
    slopes = jnp.einsum("ak,k...->...a", fit, values)
    rest = values - jnp.einsum("ka,...a->k...", jnp.asarray(grid, values.dtype), slopes)
    return (slopes, jnp.min(rest, 0)), (slopes, jnp.max(rest, 0))
