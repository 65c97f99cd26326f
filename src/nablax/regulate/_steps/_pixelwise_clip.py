"""Bound the gradient of every pixel and keep its direction in colour."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._core import fault, norm, unit_vector


def pixelwise_clip(
    threshold: float, *, order: Literal[2, "largest"] = 2, channel_axis: int = -1
) -> optax.GradientTransformationExtraArgs:
    r"""Clip the gradient's norm pixel by pixel, over the channels.

    .. math::
        g_p \leftarrow \min\Big(1, \frac{c}{\lVert g_p\rVert}\Big)\,g_p

    A frozen encoder between an image and a latent loss gives a few pixels gradients that are far larger than the
    others'. Clipping the norm of the whole image scales the good ones away with them; clipping values turns the
    direction in colour space. It belongs between the guidance and the renderer's reverse pass:
    ``image, pull = jax.vjp(render, params)``, then the regulator on the image's gradient, then ``pull``.

    Args:
        threshold: c, in units of the image's gradient, positive. The authors' demonstration takes 0.1.
        order: of the norm: 2, the text's Euclidean one, by default, or "largest", the largest channel's magnitude,
            which is what the authors' code scales by. It lets a grey pixel of three channels √3 times as far.
        channel_axis: of every leaf, the last by default.

    Returns:
        The regulator, without state, for images in any tree; each leaf has a channel axis.

    Raises:
        ValueError: ``threshold`` is not positive, ``order`` is neither, or a leaf is a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.pixelwise_clip(1.0)
        >>> image = jnp.array([[30.0, 40.0], [0.3, 0.4]])  # two pixels of two channels
        >>> updates, _ = regulator.update(image, regulator.init(image))
        >>> [[round(float(v), 4) for v in pixel] for pixel in updates]
        [[0.6, 0.8], [0.3, 0.4]]
        >>> updates, _ = regulate.pixelwise_clip(1.0, order="largest").update(image, regulator.init(image))
        >>> [[round(float(v), 4) for v in pixel] for pixel in updates]
        [[0.75, 1.0], [0.3, 0.4]]

    Cost:
        A few operations a number.

    References:
        - Pan, Lu, Zhu and Zhang, "Enhancing High-Resolution 3D Generation through Pixel-wise Gradient Clipping", 2023,
          https://arxiv.org/abs/2310.12474 (and its code, https://github.com/fudan-zvg/PGC-3D)
    """
    if not threshold > 0:
        raise fault(expected="a positive threshold", got=str(threshold), fix="Pass it in units of the gradient.")
    if order not in (2, "largest"):
        raise fault(expected='order 2 or "largest"', got=repr(order), fix="The authors' code takes the largest.")

    def clip(gradient: Array) -> Array:
        if gradient.ndim == 0:
            raise fault(expected="leaves with a channel axis", got="a scalar", fix="Give it an image's gradient.")
        bound = jnp.asarray(threshold, gradient.dtype)
        if order == 2:
            over = norm(gradient, channel_axis, keepdims=True) > bound
            return jnp.where(over, bound * unit_vector(gradient, channel_axis), gradient)
        largest = jnp.max(jnp.abs(gradient), channel_axis, keepdims=True)
        over = largest > bound
        return jnp.where(over, bound * (gradient / jnp.where(over, largest, 1)), gradient)

    def update(
        updates: PyTree, state: optax.EmptyState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, optax.EmptyState]:
        return jax.tree.map(clip, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
