"""Layers that learn one by one to tell true inputs from false ones, by the length of their outputs."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_like
from ._at_once import Layers, at_once, check_layers, direction


def forward_forward(
    layers: Layers,
    positive: Float[Array, "rows dim"],
    negative: Float[Array, "rows dim"],
    *context: Any,
    threshold: float = 2.0,
) -> Float[Array, ""]:
    r"""Loss of layers that learn to tell true inputs from false ones, each by itself.

    .. math:: \sum_l \operatorname{mean}\,\mathrm{softplus}(\theta-\lVert h_l^{+}\rVert^2)
        + \operatorname{mean}\,\mathrm{softplus}(\lVert h_l^{-}\rVert^2-\theta), \qquad
        h_l = f_l\big(h_{l-1}/\lVert h_{l-1}\rVert\big)

    Each layer sees the direction of the one below, whose length, the goodness, would give the answer away. Its
    gradient, by `jax.grad`, reaches the layer itself and no other, and is taken as the layer is run.

    Args:
        layers: ``layer(h, *context) -> h``, of all rows at once, to be trained: trees with their weights in them.
        positive: inputs with their own label among their features ``[rows, dim]``.
        negative: the same with a wrong one.
        *context: what every layer is given besides, such as a graph.
        threshold: θ, of the squared length of a layer's output; 2 by default, the authors'.

    Returns:
        The sum of all layers' losses, nats.

    Raises:
        ValueError: an argument makes no sense.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> layer = jax.tree_util.Partial(lambda w, h: jax.nn.relu(h @ w), jnp.ones((2, 3)))
        >>> loss = lambda layers: estimate.forward_forward(layers, jnp.eye(2)[:1], jnp.eye(2)[1:])
        >>> (grads,) = jax.grad(loss)([layer])
        >>> jnp.sign(grads.args[0])[:, 0].tolist()  # longer for the true input, shorter for the false one
        [-1.0, 1.0]

    Cost: two forward and backward passes of each layer; the activations of one layer at a time.

    References:
        - Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", 2022,
          https://arxiv.org/abs/2212.13345
        - Park et al., "Forward Learning of Graph Neural Networks", 2024, https://arxiv.org/abs/2403.11004, and the
          authors' code (the sum of squares as goodness, the threshold)
    """
    check_layers(layers, positive)
    check_like(negative, positive, what="negative inputs that", fix="Give as many as there are positive ones.")

    def goal(layer: Any, true: Array, false: Array, threshold: Array, *context: Any) -> tuple[Array, tuple]:
        true, false = layer(direction(true), *context), layer(direction(false), *context)
        value = jax.nn.softplus(threshold - _squares(true)) + jax.nn.softplus(_squares(false) - threshold)
        return jnp.mean(value), (true, false)

    total, pair = jnp.zeros(()), (positive, negative)
    for layer in layers:
        value, pair = at_once(goal, layer, *pair, jnp.asarray(threshold), *context)
        total = total + value
    return total


def goodness(layers: Layers, x: Float[Array, "rows dim"], *context: Any) -> Float[Array, " rows"]:
    """How true inputs look to layers trained by `forward_forward`: ask it of every label, and take the highest.

    Args:
        layers: the trained layers.
        x: inputs with the label in question among their features.
        *context: as there.

    Returns:
        The sum over layers of the output's squared length, a number for each row.

    Raises:
        ValueError: an argument makes no sense.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import estimate
        >>> estimate.goodness([lambda h: 2 * h], jnp.array([[3.0, 4.0]])).tolist()
        [4.0]

    Cost: a forward pass.
    """
    check_layers(layers, x, trained=False)
    total = jnp.zeros(len(x), x.dtype)
    for layer in layers:
        x = layer(direction(x), *context)
        total = total + _squares(x)
    return total


def _squares(h: Float[Array, "rows dim"]) -> Float[Array, " rows"]:
    return jnp.sum(jnp.square(h), axis=1)


__all__ = ["forward_forward", "goodness"]
