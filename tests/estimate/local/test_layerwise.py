"""Layers that learn one by one: each one's loss in closed form, and no gradient that crosses from one to another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
NODES, DIM, CLASSES = 12, 5, 3
DRAWS = np.random.default_rng(0)
ADJACENCY = np.triu(DRAWS.random((NODES, NODES)) < 0.3, 1).astype(float)
ADJACENCY += ADJACENCY.T
FEATURES = DRAWS.normal(size=(NODES, DIM))
LABELS = DRAWS.integers(0, CLASSES, NODES)
TRAIN = np.arange(NODES) < 8


class Layer(eqx.Module):
    weight: jax.Array

    def __call__(self, h, adjacency=None):
        h = h if adjacency is None else h + adjacency @ h
        return jnp.tanh(h @ self.weight)


def layers(*sizes):
    draws = np.random.default_rng(1)
    return [Layer(jnp.asarray(draws.normal(size=pair))) for pair in zip(sizes, sizes[1:])]


def joined(labels=LABELS, features=FEATURES):
    return estimate.virtual_nodes(
        jnp.asarray(ADJACENCY), jnp.asarray(features), jnp.asarray(labels), jnp.asarray(TRAIN), CLASSES, key=KEY
    )


def direction(h):
    return h / jnp.linalg.norm(h, axis=1, keepdims=True)


def cross_entropy(h, labels=LABELS):
    scores = h[:NODES][TRAIN] @ h[NODES:].T
    return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(TRAIN.sum()), labels[TRAIN]])


def single(net, graph=None, **options):
    return estimate.single_forward(
        net, joined() if graph is None else graph, jnp.asarray(LABELS), jnp.asarray(TRAIN), **options
    )


def test_one_layer_is_softmax_regression_on_propagated_features():
    net, graph = layers(DIM, 4), joined()
    x = direction(graph.features)
    x = x + graph.adjacency @ x

    def regression(weight):
        return cross_entropy(jnp.tanh(x @ weight))

    value, grads = jax.jit(jax.value_and_grad(single))(net)
    truth, expected = jax.value_and_grad(regression)(net[0].weight)
    assert float(value) == pytest.approx(float(truth), rel=1e-12)
    np.testing.assert_allclose(grads[0].weight, expected, rtol=1e-9, atol=1e-14)


def test_the_second_layers_gradient_is_of_its_own_loss_on_what_the_first_gives():
    net, graph = layers(DIM, 4, 6), joined()
    below = direction(net[0](direction(graph.features), graph.adjacency))
    grads = jax.jit(jax.grad(single))(net)
    own = jax.grad(lambda weight: cross_entropy(Layer(weight)(below, graph.adjacency)))(net[1].weight)
    np.testing.assert_allclose(grads[1].weight, own, rtol=1e-9, atol=1e-14)
    alone = jax.grad(single)(net[:1])
    np.testing.assert_allclose(grads[0].weight, alone[0].weight, rtol=1e-12)


def test_no_gradient_crosses_layers():
    net = layers(DIM, 4, 6, 3)

    slopes = jax.jit(jax.jacfwd(jax.grad(single)))(net)
    for number in range(3):
        for other in range(3):
            one = slopes[number].weight[other].weight
            assert bool(np.any(one)) == (other == number)
    # Nor does the loss of a layer depend, to any backward pass, on those below it.
    upper = jax.jit(jax.grad(lambda net: single(net) - single(net[:2])))(net)
    assert not np.any(upper[0].weight) and not np.any(upper[1].weight) and np.any(upper[2].weight)


def test_classes_are_equal_before_the_rule():
    swap = np.array([2, 0, 1])
    graph, other = joined(), joined(swap[LABELS])
    moved = np.arange(NODES + CLASSES)
    moved[NODES:] = NODES + np.argsort(swap)
    other = eqx.tree_at(lambda g: g.features, other, graph.features[moved])
    net = layers(DIM, 4, 6)
    value = estimate.single_forward(net, other, jnp.asarray(swap[LABELS]), jnp.asarray(TRAIN))
    assert float(value) == pytest.approx(float(single(net)), rel=1e-12)
    shares, others = estimate.single_forward_classes(net, graph), estimate.single_forward_classes(net, other)
    np.testing.assert_allclose(others[:, swap], shares, rtol=1e-10)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)


def test_virtual_nodes_are_joined_to_training_nodes_of_their_class_alone():
    graph = joined()
    np.testing.assert_array_equal(graph.adjacency, graph.adjacency.T)
    np.testing.assert_array_equal(graph.adjacency[:NODES, NODES:], np.eye(CLASSES)[LABELS] * TRAIN[:, None])
    assert not np.any(graph.adjacency[NODES:, NODES:])
    np.testing.assert_array_equal(graph.adjacency[:NODES, :NODES], ADJACENCY)
    # What the label of a node that is not trained on is makes no difference.
    hidden = np.where(TRAIN, LABELS, -1)
    assert float(
        estimate.single_forward(layers(DIM, 4), joined(hidden), jnp.asarray(hidden), jnp.asarray(TRAIN))
    ) == float(single(layers(DIM, 4)))


def test_a_temperature_divides_the_scores():
    net, graph = layers(DIM, 4), joined()
    h = net[0](direction(graph.features), graph.adjacency)
    assert float(single(net, temperature=0.25)) == pytest.approx(float(cross_entropy(2 * h)), rel=1e-12)


POSITIVE, NEGATIVE = DRAWS.normal(size=(9, DIM)), DRAWS.normal(size=(9, DIM))


def forward(net):
    return estimate.forward_forward(net, jnp.asarray(POSITIVE), jnp.asarray(NEGATIVE), threshold=1.5)


def test_forward_forward_is_two_logistic_regressions_of_goodness_for_each_layer():
    net = layers(DIM, 4, 6)

    def by_hand(one, other):
        total = 0.0
        true, false = POSITIVE, NEGATIVE
        for layer in (one, other):
            true, false = (layer(jax.lax.stop_gradient(direction(h))) for h in (true, false))
            for h, sign in ((true, 1), (false, -1)):
                total = total - jnp.mean(jnp.log(jax.nn.sigmoid(sign * (jnp.sum(h**2, axis=1) - 1.5))))
        return total

    value, grads = jax.jit(jax.value_and_grad(forward))(net)
    truth, expected = jax.value_and_grad(by_hand, argnums=(0, 1))(*net)
    assert float(value) == pytest.approx(float(truth), rel=1e-12)
    for grad, own in zip(grads, expected):
        np.testing.assert_allclose(grad.weight, own.weight, rtol=1e-8, atol=1e-13)


def test_goodness_is_learned_and_the_length_of_a_layer_is_hidden_from_the_next():
    net = layers(DIM, 16, 16)
    optimizer = optax.adam(0.03)

    def body(carry, _):
        net, state = carry
        updates, state = optimizer.update(jax.grad(forward)(net), state)
        return (optax.apply_updates(net, updates), state), None

    (net, _), _ = jax.lax.scan(body, (net, optimizer.init(net)), length=500)
    true, false = (estimate.goodness(net, jnp.asarray(x)) for x in (POSITIVE, NEGATIVE))
    assert float(jnp.mean(true[:, None] > false[None, :])) > 0.95
    long = estimate.goodness(net, 100 * jnp.asarray(POSITIVE))
    np.testing.assert_allclose(long, true, rtol=1e-10)


def test_no_more_activations_are_held_for_more_layers():
    rows, width = 4000, 32

    def held(count, loss):
        net = [Layer(jnp.zeros((width, width))) for _ in range(count)]
        x = jax.ShapeDtypeStruct((rows, width), float)
        return jax.jit(jax.grad(loss)).lower(net, x, x).compile().memory_analysis().temp_size_in_bytes

    def through(net, x, y):
        for layer in net:
            x, y = layer(x), layer(y)
        return jnp.sum(x**2) - jnp.sum(y**2)

    one_layer = 2 * rows * width * 8
    assert held(12, estimate.forward_forward) < held(4, estimate.forward_forward) + 0.5 * one_layer
    assert held(12, through) > held(4, through) + 6 * one_layer


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.forward_forward([], POSITIVE, NEGATIVE), "a list or tuple of layers"),
        (lambda: estimate.forward_forward([lambda h: h], POSITIVE, NEGATIVE), "weights of its own"),
        (lambda: estimate.forward_forward([3], POSITIVE, NEGATIVE), "layer 0, a function"),
        (lambda: estimate.forward_forward(layers(DIM, 4), POSITIVE, NEGATIVE[:3]), "as many as"),
        (lambda: single(layers(DIM, 4), (ADJACENCY, FEATURES)), "virtual_nodes"),
        (lambda: joined(LABELS[:3]), "labels"),
        (lambda: joined(features=FEATURES[:3]), "adjacency"),
        (lambda: estimate.virtual_nodes(ADJACENCY, FEATURES, LABELS, TRAIN, 1, key=KEY), "classes"),
        (lambda: estimate.virtual_nodes(ADJACENCY, FEATURES, LABELS, TRAIN, 3, key=0), "a random key"),
        (lambda: estimate.single_forward(layers(DIM, 4), joined(), LABELS[:3], TRAIN), "labels"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
