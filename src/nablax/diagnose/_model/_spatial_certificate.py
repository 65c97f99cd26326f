"""Certificates that no small deformation of an image changes what a ReLU network says of it."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack

from ..._core import AbstractRecord, check_labels, check_shape, fault, table
from ._affine_bounds import (
    Layer,
    affine_maps,
    bends,
    box_bounds,
    forward,
)
from ._deformation import bounding_planes, corner_values


class SpatialCertificate(AbstractRecord):
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
            fix="Give both in pixels.",
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
    affine = affine_maps(layers, images.shape[1:], images.dtype)
    values = corner_values(images, displacement)
    lower, upper = jnp.min(values, 0), jnp.max(values, 0)
    defects = bends(layers, affine, jnp.concatenate([images, lower, upper]))
    flat = [x.reshape(len(images), -1) for x in (lower, upper)]
    rows, constants, free = box_bounds(affine, flat[0], flat[1], labels)
    exact = forward(affine, images.reshape(len(images), -1))
    plain = jnp.take_along_axis(exact, labels[:, None], axis=1) - exact
    result = {"lower": lower, "upper": upper, "free": free, "plain": plain, "defects": defects}
    if planes:
        (low, low_offset), (high, high_offset) = bounding_planes(values, displacement)
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
        ValueError: images or labels do not fit together; a layer is seen not to be affine, at a random point or on
            the way of ``lower`` and ``upper`` through the network.

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
    lower = check_shape(lower, (None,) * 4, what="images", fix="Their axes are [images, height, width, channels].")
    upper = check_shape(upper, lower.shape, what="upper, images", fix="Give each pixel of lower its upper bound.")
    labels = check_labels(labels, len(lower))
    margins, defects = _between(tuple(layers), lower, upper, labels)
    _check(defects)
    return jnp.asarray(_least(np.asarray(margins), np.asarray(labels)))


@eqx.filter_jit
def _between(layers: tuple[Layer, ...], lower: Array, upper: Array, labels: Array) -> tuple[Array, Array]:
    affine = affine_maps(layers, lower.shape[1:], lower.dtype)
    defects = bends(layers, affine, jnp.concatenate([lower, upper]))
    return box_bounds(affine, lower.reshape(len(lower), -1), upper.reshape(len(upper), -1), labels)[2], defects


def _least(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    others = np.arange(margins.shape[1])[None] != labels[:, None]
    return np.min(np.where(others, margins, np.inf), axis=1)


def _check(defects: Float[Array, " layers"]) -> None:
    wrong = np.flatnonzero(~(np.asarray(defects) < 1e-3))
    if len(wrong):
        raise fault(
            expected="affine layers, the ReLU between them left out",
            got=f"a layer {wrong[0]} that is not",
            fix="Split it where it bends.",
        )


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


__all__ = ["SpatialCertificate", "box_margins", "spatial_certificate"]
