"""Certificates that no small deformation of an image changes what a ReLU network says of it."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack

from .._core import fault
from ._table import table

Layer = Callable[[Array], Array]
Affine = tuple[Float[Array, "outputs inputs"], Float[Array, " outputs"]]


class SpatialCertificate(eqx.Module):
    """What is proved of each image, up to the rounding of floating-point numbers.

    Attributes:
        certified: whether every other label's margin is positive for all deformations, [images].
        margin: the least proved margin of the label's logit over another's, [images].
        free_margin: the same by the pixels' bounds alone, without the deformation's smoothness, [images].
        plain_margin: the margin of the image itself, [images].
        lower: bounds of each pixel under the deformations, shaped like the images.
        upper: likewise.
        displacement: largest component of a pixel's displacement, in pixels.
    """

    certified: Bool[Array, " images"]
    margin: Float[Array, " images"]
    free_margin: Float[Array, " images"]
    plain_margin: Float[Array, " images"]
    lower: Float[Array, "images height width channels"]
    upper: Float[Array, "images height width channels"]
    displacement: float = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            Four lines.
        """
        return table(
            "Spatial robustness",
            [
                ("share certified", jnp.mean(self.certified.astype(self.margin.dtype)), "1"),
                ("share right undeformed", jnp.mean((self.plain_margin > 0).astype(self.margin.dtype)), "1"),
                ("proved margin, mean", jnp.mean(self.margin), "logit"),
                ("displacement, at most", self.displacement, "pixels"),
            ],
            [f"{self.margin.shape[0]} images"],
        )


def deform(
    image: Float[Array, "height width channels"], displacement: Float[Array, "height width 2"]
) -> Float[Array, "height width channels"]:
    """Read each pixel where a vector field points, by bilinear interpolation, the edge continued outwards.

    Args:
        image: the image.
        displacement: of each pixel, down and to the right, in pixels.

    Returns:
        The deformed image.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import deform
        >>> image = jnp.array([[[0.0], [1.0]]])
        >>> deform(image, jnp.full((1, 2, 2), 0.25))[..., 0].tolist()
        [[0.25, 1.0]]

    Cost:
        Four reads a pixel.
    """
    height, width, _ = image.shape
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


def spatial_certificate(
    layers: Sequence[Layer],
    images: Float[Array, "images height width channels"],
    labels: Int[Array, " images"],
    *,
    displacement: float,
    smoothness: float | None = None,
) -> SpatialCertificate:
    r"""Prove that a network keeps an image's label under every vector field that moves no pixel further than δ.

    .. math::
        I_u(p) = I(p + u_p), \quad \lVert u_p\rVert_\infty \le \delta, \quad
        \lVert u_p - u_q\rVert_\infty \le \gamma \text{ for neighbours}

    with bilinear interpolation. The interpolated image is bilinear between the pixels' rows and columns, so that its
    extremes over a pixel's square, and those of its distance from a plane, lie at the corners and crossings: the
    pixels' bounds are exact, and two planes in the displacement enclose each. The bounds go through the network by
    back substitution (a triangle's lower side for each undecided ReLU). Where γ is given, the planes are put in the
    place of the pixels, and what is left is a linear program over all fields that are that smooth.

    A margin that is not proved is not disproved. The bounds of the hidden units do not use γ.

    Args:
        layers: affine maps, the first of an image [height, width, channels], the last to the logits; a ReLU stands
            between each and the next. Dense or convolutional, each is turned into its matrix. That they are affine
            is the caller's promise, without which nothing is proved.
        images: the images.
        labels: the labels whose margin is proved.
        displacement: δ, in pixels.
        smoothness: γ, in pixels. Default: neighbours move freely.

    Returns:
        A :class:`SpatialCertificate`.

    Raises:
        ValueError: a layer is seen not to be affine, at a random point or on the way of the images and their lower
            and upper bounds through the network; δ is not positive, or γ is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import spatial_certificate
        >>> layers = [lambda x: jnp.stack([x.sum(), 1.0 - x.sum()])]
        >>> images = jnp.full((1, 2, 2, 1), 0.5)  # flat: no deformation changes it
        >>> record = spatial_certificate(layers, images, jnp.array([0]), displacement=0.3)
        >>> bool(record.certified[0]), float(record.margin[0])
        (True, 3.0)

    Cost:
        For n hidden units, n² products of rows with matrices, for each image; with γ two linear programs in the
        pixels' displacements for each image and other label.

    References:
        - Ruoss, Baader, Balunović and Vechev, "Efficient Certification of Spatial Robustness", 2021,
          https://arxiv.org/abs/2009.09318 (bounds by interpolation regions, linear relaxations and the program for
          smooth fields; here in the maximum norm only, with planes by least squares instead of the tightest)
        - Zhang, Weng, Chen, Hsieh and Daniel, "Efficient Neural Network Robustness Certification with General
          Activation Functions", 2018, https://arxiv.org/abs/1811.00866
    """
    if not displacement > 0 or (smoothness is not None and smoothness < 0):
        raise fault(
            expected="a positive displacement and a smoothness of zero or more",
            got=f"displacement={displacement}, smoothness={smoothness}",
            mend="Give both in pixels.",
        )
    found = _analyse(tuple(layers), images, labels, displacement, smoothness is not None)
    _check(found["defects"])
    free = np.asarray(found["free"])
    proved = free
    if smoothness is not None:
        work = _least_work(np.asarray(found["slopes"], np.float64), displacement, smoothness)
        # Both are proofs; neither is always the better.
        proved = np.maximum(free, np.asarray(found["offsets"]) + work).astype(free.dtype)
    margin, free_margin, plain = (_least(x, np.asarray(labels)) for x in (proved, free, np.asarray(found["plain"])))
    return SpatialCertificate(
        jnp.asarray(margin > 0),
        jnp.asarray(margin),
        jnp.asarray(free_margin),
        jnp.asarray(plain),
        found["lower"],
        found["upper"],
        displacement,
    )


@eqx.filter_jit
def _analyse(layers: tuple[Layer, ...], images: Array, labels: Array, displacement: float, planes: bool) -> dict:
    """All but the linear programs, in one program of its own."""
    affine = _matrices(layers, images.shape[1:], images.dtype)
    values = _corners(images, displacement)
    lower, upper = jnp.min(values, 0), jnp.max(values, 0)
    defects = _defects(layers, affine, jnp.concatenate([images, lower, upper]))
    flat = [x.reshape(len(images), -1) for x in (lower, upper)]
    rows, constants, free = _box(affine, flat[0], flat[1], labels)
    exact = _forward(affine, images.reshape(len(images), -1))
    plain = jnp.take_along_axis(exact, labels[:, None], axis=1) - exact
    result = {"lower": lower, "upper": upper, "free": free, "plain": plain, "defects": defects}
    if planes:
        (low, low_offset), (high, high_offset) = _planes(values, displacement)
        under, over = (
            x.reshape(*rows.shape[:2], *images.shape[1:]) for x in (jnp.maximum(rows, 0), jnp.minimum(rows, 0))
        )
        result["slopes"] = jnp.einsum("nkhwc,nhwca->nkhwa", under, low) + jnp.einsum("nkhwc,nhwca->nkhwa", over, high)
        offsets = constants + jnp.einsum("nkhwc,nhwc->nk", under, low_offset)
        result["offsets"] = offsets + jnp.einsum("nkhwc,nhwc->nk", over, high_offset)
    return result


def box_margins(
    layers: Sequence[Layer],
    lower: Float[Array, "images height width channels"],
    upper: Float[Array, "images height width channels"],
    labels: Int[Array, " images"],
) -> Float[Array, " images"]:
    """Prove a margin of the label's logit over the others for every image between two.

    The back substitution of :func:`spatial_certificate` alone, for other sets of images: a ball in the maximum norm,
    a change of brightness.

    Args:
        layers: affine maps with a ReLU between each and the next; that they are affine is the caller's promise.
        lower: images whose pixels are nowhere above those to be certified.
        upper: images whose pixels are nowhere below.
        labels: the labels whose margin is proved.

    Returns:
        The least margin that is proved, [images]; positive where no image in the box is given another label.

    Raises:
        ValueError: a layer is seen not to be affine, at a random point or on the way of ``lower`` and ``upper``
            through the network.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import box_margins
        >>> layers = [lambda x: jnp.stack([x.sum(), -x.sum()])]
        >>> box_margins(layers, jnp.full((1, 1, 1, 1), 0.5), jnp.ones((1, 1, 1, 1)), jnp.array([0])).tolist()
        [1.0]

    Cost:
        For n hidden units, n² products of rows with matrices, for each image.

    References:
        - Zhang, Weng, Chen, Hsieh and Daniel, "Efficient Neural Network Robustness Certification with General
          Activation Functions", 2018, https://arxiv.org/abs/1811.00866
    """
    margins, defects = _between(tuple(layers), lower, upper, labels)
    _check(defects)
    return jnp.asarray(_least(np.asarray(margins), np.asarray(labels)))


@eqx.filter_jit
def _between(layers: tuple[Layer, ...], lower: Array, upper: Array, labels: Array) -> tuple[Array, Array]:
    affine = _matrices(layers, lower.shape[1:], lower.dtype)
    defects = _defects(layers, affine, jnp.concatenate([lower, upper]))
    return _box(affine, lower.reshape(len(lower), -1), upper.reshape(len(upper), -1), labels)[2], defects


def _least(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    others = np.arange(margins.shape[1])[None] != labels[:, None]
    return np.min(np.where(others, margins, np.inf), axis=1)


def _check(defects: Float[Array, " layers"]) -> None:
    wrong = np.flatnonzero(~(np.asarray(defects) < 1e-3))
    if len(wrong):
        raise fault(
            expected="affine layers, the ReLU between them left out",
            got=f"a layer {wrong[0]} that is not",
            mend="Split it where it bends.",
        )


def _box(
    affine: list[Affine], lower: Float[Array, "images inputs"], upper: Float[Array, "images inputs"], labels: Array
) -> tuple[Array, Array, Array]:
    rows, constants = jax.vmap(_substitute, (None, 0, 0, 0))(affine, lower, upper, labels)
    least = jnp.einsum("nkp,np->nk", jnp.maximum(rows, 0), lower)
    return rows, constants, constants + least + jnp.einsum("nkp,np->nk", jnp.minimum(rows, 0), upper)


def _matrices(layers: Sequence[Layer], shape: tuple[int, ...], dtype: np.dtype) -> list[Affine]:
    """Each layer as matrix and vector, by its value and derivative at zero."""
    affine = []
    for layer in layers:
        origin = jnp.zeros(shape, dtype)
        shift, matrix = layer(origin), jax.jacfwd(layer)(origin)
        affine.append((matrix.reshape(shift.size, -1), shift.reshape(-1)))
        shape = shift.shape
    return affine


def _defects(
    layers: Sequence[Layer], affine: list[Affine], points: Float[Array, "points height width channels"]
) -> Float[Array, " layers"]:
    """How far each layer is from its matrix, at random and where the points lead; relative to each output's terms."""
    defects = []
    for number, (layer, (matrix, shift)) in enumerate(zip(layers, affine, strict=True)):
        probe = jax.random.normal(jax.random.key(number), (1, *points.shape[1:]), points.dtype)
        inputs = jnp.concatenate([probe, points])
        outputs, flat = jax.vmap(layer)(inputs), inputs.reshape(len(inputs), -1)
        gap = jnp.abs(outputs.reshape(len(inputs), -1) - _forward([(matrix, shift)], flat))
        size = _forward([(jnp.abs(matrix), jnp.abs(shift))], jnp.abs(flat))
        defects.append(jnp.max(gap / jnp.where(size > 0, size, 1)))
        points = jax.nn.relu(outputs[1:])
    return jnp.stack(defects)


def _forward(affine: list[Affine], xs: Float[Array, "images inputs"]) -> Float[Array, "images outputs"]:
    for number, (matrix, shift) in enumerate(affine):
        xs = (jax.nn.relu(xs) if number else xs) @ matrix.T + shift[None]
    return xs


def _offsets(displacement: float) -> np.ndarray:
    """Where along an axis the interpolation bends within reach, and the ends."""
    whole = np.arange(-np.floor(displacement), np.floor(displacement) + 1)
    return np.unique(np.concatenate([[-displacement], whole, [displacement]]))


def _corners(images: Float[Array, "images height width channels"], displacement: float) -> Float[Array, "corners ..."]:
    """The pixels' values at the corners of all pieces of their squares."""
    offsets = _offsets(displacement)
    grid = jnp.asarray(np.stack(np.meshgrid(offsets, offsets, indexing="ij"), -1).reshape(-1, 2), images.dtype)

    def moved(offset: Float[Array, "2"]) -> Array:
        return jax.vmap(lambda image: deform(image, jnp.broadcast_to(offset, (*image.shape[:2], 2))))(images)

    return jax.lax.map(moved, grid)


def _planes(values: Float[Array, "corners ..."], displacement: float) -> tuple[tuple[Array, Array], ...]:
    """Planes under and over each pixel's value: slopes [..., 2] and offsets, parallel, by least squares."""
    offsets = _offsets(displacement)
    grid = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), -1).reshape(-1, 2)
    fit = jnp.asarray(np.linalg.pinv(np.concatenate([grid, np.ones((len(grid), 1))], 1))[:2], values.dtype)
    slopes = jnp.einsum("ak,k...->...a", fit, values)
    rest = values - jnp.einsum("ka,...a->k...", jnp.asarray(grid, values.dtype), slopes)
    return (slopes, jnp.min(rest, 0)), (slopes, jnp.max(rest, 0))


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


def _least_work(slopes: np.ndarray, displacement: float, smoothness: float) -> np.ndarray:
    """Least of slopes · field over fields within reach whose neighbours differ by no more than ``smoothness``."""
    height, width = slopes.shape[2:4]
    index = np.arange(height * width).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([index[1:].ravel(), index[:-1].ravel()], 1),
            np.stack([index[:, 1:].ravel(), index[:, :-1].ravel()], 1),
        ]
    )
    lines = np.arange(len(pairs))
    entries = np.concatenate([np.ones(len(pairs)), -np.ones(len(pairs))])
    half = coo_array((entries, (np.tile(lines, 2), pairs.T.ravel())), (len(pairs), height * width)).tocsr()
    both = vstack([half, -half]).tocsr()
    result = np.zeros(slopes.shape[:2])
    for image, other in np.ndindex(*slopes.shape[:2]):
        # Down and to the right are two programs: no constraint joins them.
        for axis in range(2):
            cost = slopes[image, other, ..., axis].ravel()
            if not np.any(cost):
                continue
            # The dual gives a proof whatever the solver's tolerance: take its multipliers and bound the rest exactly.
            program = linprog(
                cost,
                A_ub=both,
                b_ub=np.full(2 * len(pairs), smoothness),
                bounds=(-displacement, displacement),
                method="highs",
            )
            free = -displacement * np.sum(np.abs(cost))
            if program.status == 0:
                weights = np.maximum(-program.ineqlin.marginals, 0)
                rest = cost + half.T @ (weights[: len(pairs)] - weights[len(pairs) :])
                free = max(free, -smoothness * weights.sum() - displacement * np.sum(np.abs(rest)))
            result[image, other] += free
    return result


__all__ = ["SpatialCertificate", "box_margins", "deform", "spatial_certificate"]
