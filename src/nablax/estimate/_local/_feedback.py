"""Errors sent back through weights of their own: feedback alignment, and the rule that makes the two agree."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, check_key, check_like, fault
from ._blocks import is_linear, linear_layers, returning

Feedback = tuple[Float[Array, "..."], ...]


def init_feedback(model: PyTree, *, key: Key) -> Feedback:
    """Draw feedback weights for a model, of the size that Equinox gives its layers.

    Args:
        model: with layers of `equinox.nn`: Linear, Conv or ConvTranspose.
        key: of the draws.

    Returns:
        For each such layer, in the order of the model's leaves, an array shaped like its weight, uniform within one
        over the square root of a unit's inputs.

    Raises:
        ValueError: the key is none, or the model has weights that are in no such layer.

    Example:
        >>> import equinox as eqx, jax
        >>> from nablax import estimate
        >>> model = eqx.nn.MLP(3, 2, width_size=5, depth=1, key=jax.random.key(0))
        >>> [weight.shape for weight in estimate.init_feedback(model, key=jax.random.key(1))]
        [(5, 3), (2, 5)]

    Cost: the draws.
    """
    check_key(key)
    layers = linear_layers(model)

    def draw(layer: Any, key: Key) -> Array:
        weight = layer.weight
        # A dense layer that is scanned over has others of its kind stacked in front.
        fan_in = weight.shape[-1] if isinstance(layer, eqx.nn.Linear) else math.prod(weight.shape[1:])
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, weight.shape, weight.dtype, -bound, bound)

    return tuple(draw(layer, one) for layer, one in zip(layers, jax.random.split(key, len(layers))))


def feedback_alignment(model: PyTree, feedback: Feedback) -> PyTree:
    r"""Make the same model, through which errors go back by fixed weights in place of the transposed ones.

    .. math:: \delta_{l-1} = \varphi'(a_{l-1})\odot B_l^{\top}\delta_l, \qquad \nabla_{W_l} = \delta_lh_{l-1}^{\top}

    with :math:`B_l` shaped like the weight :math:`W_l`. Put it in the loss, and `jax.grad` of that, by the model, is
    feedback alignment's: where :math:`B_l=W_l` it is the gradient. Everything else of the model, activations, norms
    and skip connections, is differentiated as it is. The last layer's own gradient is exact, whatever the feedback.

    Args:
        model: any Equinox model whose weights are in layers of `equinox.nn`: Linear, Conv or ConvTranspose.
        feedback: a weight for each of these, as `init_feedback` draws them; held, whatever is differentiated.

    Returns:
        The model, called as before, with the same values.

    Raises:
        ValueError: the model has weights that are in no such layer, or feedback is not shaped like the weights.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> model = eqx.nn.MLP(3, 2, width_size=5, depth=1, key=jax.random.key(0))
        >>> feedback = estimate.init_feedback(model, key=jax.random.key(1))
        >>> def loss(model, x):
        ...     return jnp.sum(jax.vmap(estimate.feedback_alignment(model, feedback))(x) ** 2)
        >>> value, grads = eqx.filter_value_and_grad(loss)(model, jnp.ones((4, 3)))
        >>> grads.layers[0].weight.shape
        (5, 3)

    Cost: that of backpropagation.

    References:
        - Lillicrap, Cownden, Tweed and Akerman, "Random Feedback Weights Support Learning in Deep Neural Networks",
          2014, https://arxiv.org/abs/1411.0247 (convolutions and anything between the layers: our reading)
    """
    return _with_feedback(model, jax.tree.map(jax.lax.stop_gradient, feedback))


def kolen_pollack(model: PyTree, feedback: Feedback) -> PyTree:
    r"""Make the model of `feedback_alignment`, whose feedback weights have a gradient too: their layer's own.

    .. math:: \nabla_{B_l} = \nabla_{W_l} = \delta_lh_{l-1}^{\top}

    Train the pair ``(model, feedback)`` by one optimiser with weight decay λ: what sets the two apart then shrinks at
    every step by the same factor, with plain descent of rate η
    :math:`W_t-B_t=(1-\eta\lambda)^t(W_0-B_0)`, and the rule becomes backpropagation without ever reading a weight
    backwards. Without decay the difference stays.

    Args:
        model: as in `feedback_alignment`.
        feedback: a weight for each layer, as `init_feedback` draws them; trained with the model.

    Returns:
        The model, called as before, with the same values.

    Raises:
        ValueError: as `feedback_alignment`.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> model = eqx.nn.MLP(3, 2, width_size=5, depth=1, key=jax.random.key(0))
        >>> pair = model, estimate.init_feedback(model, key=jax.random.key(1))
        >>> def loss(pair, x):
        ...     return jnp.sum(jax.vmap(estimate.kolen_pollack(*pair))(x) ** 2)
        >>> grads, feedback_grads = eqx.filter_grad(loss)(pair, jnp.ones((4, 3)))
        >>> bool(jnp.allclose(grads.layers[1].weight, feedback_grads[1]))
        True

    Cost: that of backpropagation, and each weight's gradient once more.

    References:
        - Kolen and Pollack, "Backpropagation without Weight Transport", 1994,
          https://doi.org/10.1109/ICNN.1994.374486
        - Akrout, Wilson, Humphreys, Lillicrap and Tweed, "Deep Learning without Weight Transport", 2019,
          https://arxiv.org/abs/1904.05391 (equal decay of both; the law is derived here, and tested)
    """
    return _with_feedback(model, feedback)


class _Returned(eqx.Module):
    """A layer as it is, whose error goes back through another weight."""

    layer: Any
    feedback: Float[Array, "..."]

    def __call__(self, x: Array, *, key: Key | None = None) -> Array:
        arrays, rest = eqx.partition(jax.tree.map(_held, self.layer), eqx.is_array)
        value = self.layer(jax.lax.stop_gradient(x))
        return returning(functools.partial(_apply, rest), value, (arrays, self.feedback, x))


def _apply(rest: Any, arrays: Any, weight: Array, x: Array) -> Array:
    return eqx.tree_at(lambda layer: layer.weight, eqx.combine(rest, arrays), weight)(x)


def _held(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf


def _with_feedback(model: PyTree, feedback: Feedback) -> PyTree:
    layers = linear_layers(model)
    if not isinstance(feedback, tuple) or len(feedback) != len(layers):
        raise fault(
            expected=f"a tuple of {len(layers)} feedback weights, one for each dense or convolutional layer",
            got=f"{len(feedback)} of them" if isinstance(feedback, tuple) else f"a {type(feedback).__name__}",
            fix="Draw them by estimate.init_feedback(model, key=key).",
        )
    weights = tuple(layer.weight for layer in layers)
    check_like(feedback, weights, what="feedback that", fix="Draw it by estimate.init_feedback, from this model.")
    given = iter(feedback)
    return jax.tree.map(
        lambda node: _Returned(node, jnp.asarray(next(given))) if is_linear(node) else node, model, is_leaf=is_linear
    )


__all__ = ["feedback_alignment", "init_feedback", "kolen_pollack"]
