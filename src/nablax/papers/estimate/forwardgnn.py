"""Forward learning of graph networks: nodes of a block model, and digits joined to their nearest neighbours.

The paper's citation and shopping graphs are not at hand. All methods have two graph convolutions of the same width, the
same training nodes and steps, and a rate tuned on one grid.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import single_forward, single_forward_classes, virtual_nodes
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="forwardgnn",
    title="Forward Learning of Graph Neural Networks",
    year=2024,
    link="https://arxiv.org/abs/2403.11004",
    rooms=("estimate",),
    row=45,
    read="code",
)

_RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
_ENDS = {10.0: "of the last layer alone; beyond it a softmax is a maximum already"}
_WAYS = ("single forward", "backpropagation", "last layer alone")
_WIDTH, _TRAINED, _NEIGHBOURS = 32, 0.2, 8
_DEEP = 6  # layers, where memory is measured


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Classify nodes of two kinds of graph, a fifth of them labelled.

    Args:
        key: of all randomness.
        full: four times the nodes, the authors' 300 steps, twice the keys.

    Returns:
        Three checks.
    """
    keys, nodes, steps = (8, 1000, 300) if full else (4, 240, 60)
    checks = []
    for name, graph in (("block model", _block_model), ("neighbouring digits", _neighbours)):
        methods = {way: _run(way, graph, nodes, steps) for way in _WAYS}
        runs = tuned(methods, _RATES, "higher", key=key, keys=keys, ends=_ENDS)
        ways = ("single forward", "last layer alone")
        checks.append(
            Check(
                f"Single forward learning comes near backpropagation, as the last layer alone does not: {name}.",
                "on a level with or better than backpropagation on five graphs, in tables",
                contrasts=Contrast(
                    "test accuracy behind backpropagation's, percentage points",
                    {way: runs.results["backpropagation"] - runs.results[way] for way in ways},
                    "lower",
                    threshold=2.0,
                    settings={way: runs.settings[way] for way in ways},
                ),
                moved_from="the same against forward-forward with labels among the features, which stayed at chance "
                "on the block model",
                expected=False,
                tried="two layers of 32 units, a fifth of 240 nodes labelled, 60 steps, rates from 0.003 to 10: five "
                "to nine points behind backpropagation, more than the last layer alone",
            )
        )
    checks.append(
        Check(
            "Learning layer by layer takes less memory than backpropagation through all of them.",
            "memory in figures",
            contrasts=Contrast(
                f"memory of a gradient beside its arguments, {_DEEP} layers, kB",
                {way: [_memory(way, nodes) / 1000] for way in _WAYS[:2]},
                "lower",
                ratio=0.7,
            ),
        )
    )
    return checks


class _Convolution(eqx.Module):
    """One graph convolution with rectified units; the adjacency comes normalised."""

    weight: Float[Array, "dim out"]
    bias: Float[Array, " out"]

    def __call__(self, h: Float[Array, "nodes dim"], adjacency: Float[Array, "nodes nodes"]) -> Array:
        return jax.nn.relu(adjacency @ (h @ self.weight) + self.bias[None])


def _layers(key: Key, sizes: tuple[int, ...]) -> list[_Convolution]:
    def drawn(key: Key, fan_in: int, out: int) -> Array:
        return jax.random.normal(key, (fan_in, out)) * jnp.sqrt(2.0 / (fan_in + out))

    keys = jax.random.split(key, len(sizes) - 1)
    return [_Convolution(drawn(k, a, b), jnp.zeros(b)) for k, a, b in zip(keys, sizes, sizes[1:])]


def _normalised(adjacency: Float[Array, "nodes nodes"]) -> Float[Array, "nodes nodes"]:
    looped = adjacency + jnp.eye(len(adjacency))
    root = 1 / jnp.sqrt(jnp.sum(looped, axis=1))
    return root[:, None] * looped * root[None]


def _block_model(key: Key, nodes: int) -> tuple[Array, Array, Array, int]:
    """Four classes, a node's neighbours of its own class in half of the cases, and features that tell little."""
    label_key, edge_key, noise_key = jax.random.split(key, 3)
    labels = jax.random.randint(label_key, (nodes,), 0, 4)
    alike = labels[:, None] == labels[None]
    edges = jnp.triu(jax.random.uniform(edge_key, (nodes, nodes)) < jnp.where(alike, 18 / nodes, 6 / nodes), 1)
    adjacency = edges.astype(jnp.float32)
    features = jax.nn.one_hot(labels, 16) + jax.random.normal(noise_key, (nodes, 16))
    return adjacency + adjacency.T, features, labels, 4


def _neighbours(key: Key, nodes: int) -> tuple[Array, Array, Array, int]:
    """Digits, each joined to those that look most alike."""
    images, labels = digits()
    rows = jax.random.permutation(key, len(images))[:nodes]
    images, labels = images[rows], labels[rows]
    squares = jnp.sum(images**2, axis=1)
    distances = squares[:, None] + squares[None] - 2 * images @ images.T
    nearest = jax.lax.top_k(-distances, _NEIGHBOURS + 1)[1][:, 1:]
    edges = jnp.zeros((nodes, nodes)).at[jnp.arange(nodes)[:, None], nearest].set(1.0)
    return jnp.maximum(edges, edges.T), images, labels, 10


def _run(way: str, graph: Callable[..., tuple], nodes: int, steps: int) -> Run:
    """Accuracy on the nodes that were not trained on, in percent."""

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        graph_key, mark_key, net_key, virtual_key, batch_key = jax.random.split(key, 5)
        adjacency, features, labels, classes = graph(graph_key, nodes)
        train = jax.random.permutation(mark_key, nodes) < round(_TRAINED * nodes)
        plain = _normalised(adjacency)
        joined = virtual_nodes(adjacency, features, labels, train, classes, key=virtual_key)
        joined = eqx.tree_at(lambda graph: graph.adjacency, joined, _normalised(joined.adjacency))

        def through(layers: list[_Convolution]) -> Array:
            h = layers[0](features, plain)
            return plain @ (h @ layers[1].weight) + layers[1].bias[None]

        def loss(layers: list[_Convolution], _: Array) -> Array:
            if way == "single forward":
                return single_forward(layers, joined, labels, train)
            if way == "last layer alone":
                layers = [jax.tree.map(jax.lax.stop_gradient, layers[0]), layers[1]]
            each = optax.softmax_cross_entropy_with_integer_labels(through(layers), labels)
            return jnp.sum(jnp.where(train, each, 0)) / jnp.sum(train)

        last = _WIDTH if way == "single forward" else classes
        layers, _ = trained(
            loss,
            _layers(net_key, (features.shape[1], _WIDTH, last)),
            optax.adam(rate),
            lambda step, key: step,  # the whole graph in every step
            steps,
            key=batch_key,
        )
        scores = single_forward_classes(layers, joined) if way == "single forward" else through(layers)
        right = (jnp.argmax(scores, axis=1) == labels).astype(jnp.float32)
        return 100 * jnp.sum(jnp.where(train, 0, right)) / jnp.sum(~train)

    return run


def _memory(way: str, nodes: int) -> int:
    """Bytes that one compiled gradient takes beside its arguments and its answer."""
    adjacency, features, labels, classes = _block_model(jax.random.key(0), nodes)
    train = jnp.arange(nodes) < round(_TRAINED * nodes)
    joined = virtual_nodes(adjacency, features, labels, train, classes, key=jax.random.key(1))
    layers = _layers(jax.random.key(2), (16, *[_WIDTH] * (_DEEP - 1), _WIDTH if way == "single forward" else classes))

    def loss(layers: list[_Convolution], graph: PyTree, labels: Array) -> Array:
        if way == "single forward":
            return single_forward(layers, graph, labels, train)
        h = graph.features
        for layer in layers:
            h = layer(h, graph.adjacency)
        return cross_entropy(h[:nodes], labels)

    used = jax.jit(jax.grad(loss)).lower(layers, joined, labels).compile().memory_analysis()
    assert used is not None
    return used.temp_size_in_bytes


__all__ = ["PAPER", "checks"]
