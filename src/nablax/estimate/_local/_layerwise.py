"""Layers that learn one by one, going forward: by goodness of true and false inputs, or by virtual nodes of a graph."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ..._core import (
    Key,
    check_callable,
    check_count,
    check_instance,
    check_key,
    check_like,
    check_shape,
    divide,
    fault,
    norm,
)
from ._at_once import at_once

Layers = Sequence[Callable[..., Float[Array, "rows dim"]]]


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
    _check(layers, positive)
    check_like(negative, positive, what="negative inputs that", fix="Give as many as there are positive ones.")

    def goal(layer: Any, true: Array, false: Array, threshold: Array, *context: Any) -> tuple[Array, tuple]:
        true, false = layer(_direction(true), *context), layer(_direction(false), *context)
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
    _check(layers, x, trained=False)
    total = jnp.zeros(len(x), x.dtype)
    for layer in layers:
        x = layer(_direction(x), *context)
        total = total + _squares(x)
    return total


class VirtualNodes(eqx.Module):
    """A graph with a virtual node for each class.

    Attributes:
        adjacency: ``[nodes + classes, nodes + classes]``, that of the graph and ones between a training node and the
            node of its class, both ways.
        features: ``[nodes + classes, dim]``, of the virtual nodes drawn.
        classes: how many; their nodes come last.
    """

    adjacency: Float[Array, "all all"]
    features: Float[Array, "all dim"]
    classes: int = eqx.field(static=True)


def virtual_nodes(
    adjacency: Float[Array, "nodes nodes"],
    features: Float[Array, "nodes dim"],
    labels: Int[Array, " nodes"],
    train: Bool[Array, " nodes"],
    classes: int,
    *,
    key: Key,
) -> VirtualNodes:
    """Join a virtual node for each class to a graph: the targets of `single_forward`.

    An edge to it carries a label one hop far, so that accuracy on training nodes says nothing.

    Args:
        adjacency: ``[nodes, nodes]``, from which a node's row takes.
        features: ``[nodes, dim]``.
        labels: whole numbers below ``classes``; those of nodes that are not trained on are not looked at.
        train: which nodes are trained on.
        classes: how many.
        key: of the virtual nodes' features, standard normal.

    Returns:
        The larger graph; classes come last.

    Raises:
        ValueError: an argument makes no sense, or shapes do not agree.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> graph = jnp.zeros((3, 3)), jnp.ones((3, 4)), jnp.array([0, 1, 0]), jnp.array([True, True, False])
        >>> joined = estimate.virtual_nodes(*graph, 2, key=jax.random.key(0))
        >>> joined.adjacency[:3, 3:].tolist(), joined.features.shape
        ([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], (5, 4))

    Cost: the larger matrix.
    """
    check_key(key)
    check_count(classes, what="classes", least=2)
    features = check_shape(features, (None, None), what="features", fix="Give a row for each node.")
    nodes, dim = features.shape
    adjacency = check_shape(adjacency, (nodes, nodes), what="adjacency", fix="Give a square matrix of the nodes.")
    train = check_shape(train, (nodes,), what="train", fix="Give a mark for each node.")
    labels = check_shape(labels, (nodes,), what="labels", fix="Give a whole number for each node.")
    edges = jnp.where(train[:, None], jax.nn.one_hot(labels, classes, dtype=adjacency.dtype), 0)
    joined = jnp.block([[adjacency, edges], [edges.T, jnp.zeros((classes, classes), adjacency.dtype)]])
    drawn = jax.random.normal(key, (classes, dim), features.dtype)
    return VirtualNodes(joined, jnp.concatenate([features, drawn]), classes)


def single_forward(
    layers: Layers,
    graph: VirtualNodes,
    labels: Int[Array, " nodes"],
    train: Bool[Array, " nodes"],
    *,
    temperature: float = 1.0,
) -> Float[Array, ""]:
    r"""Loss of a graph network whose layers learn one by one, in a single pass forward.

    .. math:: \sum_l \operatorname{mean}_{i\in\text{train}} -\log
        \frac{\exp(h_{l,i}\cdot h_{l,y_i}/\tau)}{\sum_c\exp(h_{l,i}\cdot h_{l,c}/\tau)}, \qquad
        h_l = f_l\big(h_{l-1}/\lVert h_{l-1}\rVert, A\big)

    with :math:`h_{l,c}` the state of the virtual node of class c. Each layer pulls a node's state to that of its
    class. Its gradient, by `jax.grad`, reaches the layer itself and no other, and is taken as the layer is run.

    Args:
        layers: ``layer(h, adjacency) -> h``, of all nodes at once, to be trained: trees with their weights in them.
        graph: with its virtual nodes, of `virtual_nodes`.
        labels: of the nodes without the virtual ones, whole numbers.
        train: which of these are trained on, the marks that the virtual nodes were joined with.
        temperature: τ, 1 by default, the authors'.

    Returns:
        The sum of all layers' cross-entropies, nats.

    Raises:
        ValueError: an argument makes no sense, or shapes do not agree.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> labels, train = jnp.array([0, 1, 0]), jnp.array([True, True, False])
        >>> joined = estimate.virtual_nodes(jnp.eye(3), jnp.eye(3), labels, train, 2, key=jax.random.key(0))
        >>> layer = jax.tree_util.Partial(lambda w, h, adjacency: jax.nn.relu(adjacency @ h @ w), jnp.ones((3, 4)))
        >>> (grads,) = jax.grad(estimate.single_forward)([layer], joined, labels, train)
        >>> grads.args[0].shape
        (3, 4)

    Cost: a forward and a backward pass of each layer; the activations of one layer at a time.

    References:
        - Park et al., "Forward Learning of Graph Neural Networks", 2024, https://arxiv.org/abs/2403.11004, and the
          authors' code, where layers are trained one after another, each to its end; here all in every step
    """
    check_instance(graph, VirtualNodes, what="a graph with virtual nodes", fix="Make it by estimate.virtual_nodes.")
    _check(layers, graph.features)
    nodes = len(graph.features) - graph.classes
    labels = check_shape(labels, (nodes,), what="labels", fix="Give those of the nodes without the virtual ones.")
    train = check_shape(train, (nodes,), what="train", fix="Give marks of the nodes without the virtual ones.")
    wanted, weight = jnp.where(train, labels, 0), jnp.asarray(train, graph.features.dtype)

    def goal(
        layer: Any, h: Array, adjacency: Array, wanted: Array, weight: Array, warmth: Array
    ) -> tuple[Array, Array]:
        h = layer(_direction(h), adjacency)
        losses = optax.softmax_cross_entropy_with_integer_labels(_class_scores(h, nodes) / warmth, wanted)
        return divide(jnp.sum(weight * losses), jnp.sum(weight)), h

    total, h = jnp.zeros(()), graph.features
    for layer in layers:
        value, h = at_once(goal, layer, h, graph.adjacency, wanted, weight, jnp.asarray(temperature))
        total = total + value
    return total


def single_forward_classes(
    layers: Layers, graph: VirtualNodes, *, temperature: float = 1.0
) -> Float[Array, "nodes classes"]:
    """What layers trained by `single_forward` say of every node.

    Args:
        layers: the trained layers.
        graph: with its virtual nodes.
        temperature: as there.

    Returns:
        The mean over layers of each one's softmax, ``[nodes, classes]``, nodes without the virtual ones.

    Raises:
        ValueError: an argument makes no sense.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> labels, train = jnp.array([0, 1, 0]), jnp.array([True, True, False])
        >>> joined = estimate.virtual_nodes(jnp.eye(3), jnp.eye(3), labels, train, 2, key=jax.random.key(0))
        >>> estimate.single_forward_classes([lambda h, adjacency: adjacency @ h], joined).shape
        (3, 2)

    Cost: a forward pass.
    """
    check_instance(graph, VirtualNodes, what="a graph with virtual nodes", fix="Make it by estimate.virtual_nodes.")
    _check(layers, graph.features, trained=False)
    nodes, h = len(graph.features) - graph.classes, graph.features
    shares = jnp.zeros((nodes, graph.classes), h.dtype)
    for layer in layers:
        h = layer(_direction(h), graph.adjacency)
        shares = shares + jax.nn.softmax(_class_scores(h, nodes) / temperature, axis=1)
    return shares / len(layers)


def _check(layers: Layers, x: Array, *, trained: bool = True) -> None:
    if not isinstance(layers, list | tuple) or not layers:
        raise fault(expected="a list or tuple of layers", got=f"a {type(layers).__name__}", fix="Pass [layer, ...].")
    for number, layer in enumerate(layers):
        check_callable(layer, what=f"layer {number}", fix="Pass layer(h, *context) -> h.")
        if trained and not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(layer)):
            raise fault(
                expected=f"layer {number}, a tree with weights of its own",
                got=f"a {type(layer).__name__} without any",
                fix="Make it an equinox.Module, or jax.tree_util.Partial(function, weights).",
            )
    check_shape(x, (None, None), what="inputs", fix="Give a row for each example or node.")


def _direction(h: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
    return divide(h, norm(h, axis=1, keepdims=True))


def _squares(h: Float[Array, "rows dim"]) -> Float[Array, " rows"]:
    return jnp.sum(jnp.square(h), axis=1)


def _class_scores(h: Float[Array, "all dim"], nodes: int) -> Float[Array, "nodes classes"]:
    return h[:nodes] @ h[nodes:].T


__all__ = [
    "VirtualNodes",
    "forward_forward",
    "goodness",
    "single_forward",
    "single_forward_classes",
    "virtual_nodes",
]
