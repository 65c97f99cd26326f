"""Layers of a graph network that learn one by one, by virtual nodes that stand for classes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ..._core import Key, check_count, check_instance, check_key, check_shape, divide
from ._at_once import Layers, at_once, check_layers, direction


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
    check_layers(layers, graph.features)
    nodes = len(graph.features) - graph.classes
    labels = check_shape(labels, (nodes,), what="labels", fix="Give those of the nodes without the virtual ones.")
    train = check_shape(train, (nodes,), what="train", fix="Give marks of the nodes without the virtual ones.")
    wanted, weight = jnp.where(train, labels, 0), jnp.asarray(train, graph.features.dtype)

    def goal(
        layer: Any, h: Array, adjacency: Array, wanted: Array, weight: Array, warmth: Array
    ) -> tuple[Array, Array]:
        h = layer(direction(h), adjacency)
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
    check_layers(layers, graph.features, trained=False)
    nodes, h = len(graph.features) - graph.classes, graph.features
    shares = jnp.zeros((nodes, graph.classes), h.dtype)
    for layer in layers:
        h = layer(direction(h), graph.adjacency)
        shares = shares + jax.nn.softmax(_class_scores(h, nodes) / temperature, axis=1)
    return shares / len(layers)


def _class_scores(h: Float[Array, "all dim"], nodes: int) -> Float[Array, "nodes classes"]:
    return h[:nodes] @ h[nodes:].T


__all__ = ["VirtualNodes", "single_forward", "single_forward_classes", "virtual_nodes"]
