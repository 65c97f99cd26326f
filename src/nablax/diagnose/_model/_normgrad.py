"""Where in a layer a class's gradient would change the weights: NormGrad maps, and how much they heed the class."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import (
    AbstractRecord,
    canonical_convolutions,
    check_labels,
    check_rows,
    check_shape,
    fault,
    norm,
    table,
    unit_vector,
)
from ...calculus import Estimate
from .._samples import align


class NormGrad(AbstractRecord):
    r"""Saliency at one layer.

    Attributes:
        maps: ``[samples, *places]`` norm of the outer product of activation and gradient, units of the score.
        grad_cam: ``[samples, *places]`` the map of Grad-CAM from the same two arrays, for comparison.
        labels: ``[samples]`` the class explained.
        sensitivity: mean over samples of the correlation over places between the map of the class with the greatest
            score and that of the class with the least; near 1 a map says nothing about the class.
        grad_cam_sensitivity: the same for Grad-CAM, whose constant maps count as 1.
    """

    maps: Float[Array, "samples ..."]
    grad_cam: Float[Array, "samples ..."]
    labels: Int[Array, " samples"]
    sensitivity: Estimate
    grad_cam_sensitivity: Estimate

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        return table(
            "NormGrad (correlation of the maps of the likeliest and the least likely class)",
            [
                ("NormGrad", self.sensitivity, "1"),
                ("Grad-CAM", self.grad_cam_sensitivity, "1"),
            ],
            [f"{self.labels.shape[0]} samples, maps of shape {self.maps.shape[1:]}"],
        )


def normgrad(
    features: Callable[[Array], Float[Array, "..."]],
    head: Callable[[Float[Array, "..."]], Float[Array, " classes"]],
    xs: Float[Array, "samples ..."],
    labels: Int[Array, " samples"] | None = None,
    *,
    channels: int = -1,
) -> NormGrad:
    r"""Map where a layer's activation and gradient are both large.

    .. math:: m_u = \lVert g_u a_u^{\top}\rVert_F = \lVert g_u\rVert\,\lVert a_u\rVert,\qquad
        a = \mathrm{features}(x),\quad g = \nabla_a\,\mathrm{head}(a)_c

    A 1×1 convolution inserted at the layer as the identity would have the gradient :math:`\sum_u g_u a_u^{\top}` with
    respect to its weights; the map is each place's share of it, by Frobenius norm. Grad-CAM, from the same arrays, is
    :math:`\max(0, \bar g\cdot a_u)` with the gradient averaged over places first, so that a gradient whose sign
    changes from place to place is lost.

    Args:
        features: ``features(x) -> activation`` for one input, with one axis of channels and any axes of places.
        head: ``head(activation) -> [classes]``, the rest of the classifier.
        xs: inputs, leading axis ``samples``.
        labels: the class to explain for each, by default the one with the greatest score.
        channels: the axis of the channels, the last by default; 0 for Equinox's convolutions.

    Returns:
        A `NormGrad`.

    Raises:
        ValueError: no samples, labels that do not match, or an activation without an axis of places.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import normgrad
        >>> head = lambda a: jnp.stack([a[0, 0] + 2 * a[1, 1], -a[0, 0]])
        >>> normgrad(lambda x: x, head, jnp.array([[[3.0, 4.0], [0.0, 1.0]]])).maps.tolist()
        [[5.0, 2.0]]

    Cost:
        A sample: one pass through ``features``, three gradients of ``head``; vectorised over samples.

    References:
        - Rebuffi, Fong, Ji and Vedaldi, "There and Back Again: Revisiting Backpropagation Saliency Methods", 2020,
          https://arxiv.org/abs/2004.02866 (the map, the identity layer, correlation of the likeliest and the least
          likely class's maps; the choice of Pearson's correlation and the standard error are ours)
        - Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: Visual Explanations from Deep Networks via
          Gradient-based Localization", 2017, https://arxiv.org/abs/1610.02391
    """
    _, xs, _ = align(0.0, xs, labels)
    shape = jax.eval_shape(features, xs[0]).shape
    if len(shape) < 2:
        raise fault(
            expected="an activation with an axis of channels and at least one of places",
            got=f"shape {shape}",
            fix="Split the classifier at a convolutional layer (or a sequence of tokens).",
        )
    given = None if labels is None else check_labels(labels, len(xs))
    norm, cam, labels, correlations = _maps(features, head, xs, given, channels)
    first, second = (Estimate.from_samples(c) for c in correlations)
    return NormGrad(norm, cam, labels, first, second)


def class_sensitivity(
    saliency: Callable[[Array, Int[Array, " samples"]], Float[Array, "samples ..."]],
    scores: Callable[[Array], Float[Array, " classes"]],
    xs: Float[Array, "samples ..."],
) -> Estimate:
    r"""Correlate any method's maps of the likeliest and the least likely class.

    .. math:: \operatorname{mean}_x\,\operatorname{corr}_u\big(m_u(x, \arg\max_c S_c(x)),
        m_u(x, \arg\min_c S_c(x))\big)

    Args:
        saliency: ``saliency(xs, labels) -> [samples, ...]`` maps.
        scores: ``scores(x) -> [classes]`` for one input.
        xs: inputs, leading axis ``samples``.

    Returns:
        The mean correlation and its standard error over samples. Near 1 the maps do not depend on the class; a constant
        map counts as 1.

    Raises:
        ValueError: no samples.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import class_sensitivity
        >>> edges = lambda xs, labels: jnp.abs(xs)
        >>> float(class_sensitivity(edges, lambda x: x, jnp.array([[1.0, 2.0, -5.0], [0.0, 1.0, 3.0]])).value)
        1.0

    Cost:
        ``samples`` forward passes and two calls of ``saliency``.

    References:
        - Rebuffi, Fong, Ji and Vedaldi, "There and Back Again: Revisiting Backpropagation Saliency Methods", 2020,
          https://arxiv.org/abs/2004.02866
    """
    _, xs, _ = align(0.0, xs, None)
    values = jax.vmap(scores)(xs)
    check_shape(values, (len(xs), None), what="scores", fix="They are [classes], of one sample.")
    maps = (saliency(xs, jnp.argmax(values, axis=1)), saliency(xs, jnp.argmin(values, axis=1)))
    check_rows(maps, len(xs), what="maps", fix="saliency(xs, labels) gives one map a sample.")
    return Estimate.from_samples(jax.vmap(_correlation)(*maps))


@eqx.filter_jit
@canonical_convolutions
def _maps(features: Callable, head: Callable, xs: Array, labels: Array | None, channels: int) -> tuple:
    def one(x: Array, label: Array | None) -> tuple:
        activation = jnp.moveaxis(features(x), channels, -1)

        def tail(inner: Array) -> Array:
            return head(jnp.moveaxis(inner, -1, channels))

        scores = tail(activation)
        best = jnp.argmax(scores)
        chosen = best if label is None else label
        classes = jnp.stack([chosen.astype(best.dtype), best, jnp.argmin(scores)])
        slopes = jax.vmap(lambda c: jax.grad(lambda inner: tail(inner)[c])(activation))(classes)
        sizes = norm(slopes, -1) * norm(activation, -1)[None]
        weights = jnp.mean(slopes, axis=tuple(range(1, slopes.ndim - 1)))
        cam = jax.nn.relu(jnp.einsum("...c,nc->n...", activation, weights))
        return sizes[0], cam[0], chosen, (_correlation(sizes[1], sizes[2]), _correlation(cam[1], cam[2]))

    return jax.vmap(one, in_axes=(0, None if labels is None else 0))(xs, labels)


def _correlation(first: Array, second: Array) -> Float[Array, ""]:
    """Pearson's; 1 where either map is constant up to rounding, since such a map tells no class from another."""

    def centred(m: Array) -> Array:
        rest = m - jnp.mean(m)
        size = jnp.max(jnp.abs(rest))
        varies = size > 8 * jnp.finfo(m.dtype).eps * jnp.max(jnp.abs(m))
        # What rounding leaves of a constant is none.
        return unit_vector(jnp.where(varies, rest, 0))

    first, second = centred(first), centred(second)
    return jnp.where(jnp.any(first != 0) & jnp.any(second != 0), jnp.sum(first * second), 1)
