"""Equilibria and their nudged gradients against the implicit ones, by the order of their error."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest

from nablax import calculus, estimate, follow

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)
X, Y = DRAWS.normal(size=(5, 3)), 0.5 * DRAWS.normal(size=(5, 2))


def dense(sizes=(3, 6, 4, 2), *, symmetric=True, readout=False, **options):
    def linear(inputs, outputs, seed):
        return eqx.nn.Linear(inputs, outputs, key=jax.random.key(seed), dtype=jnp.float64)

    layers = [linear(a, b, seed) for seed, (a, b) in enumerate(zip(sizes, sizes[1:]))]
    back = None if symmetric else [linear(a, b, 10 + seed) for seed, (a, b) in enumerate(zip(sizes[1:], sizes[2:]))]
    top = linear(sizes[-1], 2, 20) if readout else None
    return estimate.Equilibrium(layers, top, feedback=back, **{"tolerance": 1e-13, **options})


def convolutional(**options):
    def convolution(inputs, outputs, seed):
        return eqx.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, key=jax.random.key(seed), dtype=jnp.float64)

    layers = [convolution(1, 3, 0), convolution(3, 4, 1)]
    top = eqx.nn.Linear(16, 2, key=jax.random.key(2), dtype=jnp.float64)
    return estimate.Equilibrium(layers, top, **{"tolerance": 1e-13, **options})


IMAGES = DRAWS.normal(size=(5, 1, 8, 8))


def loss(net, batch):
    return 0.5 * jnp.mean(jnp.sum((net(batch[0]) - batch[1]) ** 2, axis=1))


EXACT = jax.jit(jax.grad(loss))


def flat(tree):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))])


def missed(net, batch, **options):
    """Share of the exact gradient that the estimate misses."""
    exact = flat(EXACT(net, batch))
    found = flat(jax.jit(estimate.equilibrium_gradient(loss, **options))(net, batch)[1])
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))


@pytest.mark.parametrize("symmetric", [True, False])
def test_it_rests_where_each_layer_is_driven_to_its_state(symmetric):
    net = dense(symmetric=symmetric)
    a = jax.jit(estimate.equilibrium_state)(net, X)
    back = net.layers[1:] if symmetric else net.feedback
    first = jnp.tanh(jax.vmap(net.layers[0])(X) + a[1] @ back[0].weight)
    second = jnp.tanh(jax.vmap(net.layers[1])(a[0]) + a[2] @ back[1].weight)
    third = jnp.tanh(jax.vmap(net.layers[2])(a[1]))
    for part, wanted in zip(a, (first, second, third), strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-12)
    np.testing.assert_allclose(net(X), a[2], atol=1e-12)
    counted = dataclasses.replace(net, steps=400)
    np.testing.assert_allclose(counted(X), net(X), atol=1e-12)


def test_the_hard_sigmoid_rests_at_a_minimum_of_the_energy_within_its_bounds():
    net = dense(activation="hard sigmoid")
    net = eqx.tree_at(lambda net: net.layers[0].weight, net, 6 * net.layers[0].weight)
    a = jax.jit(estimate.equilibrium_state)(net, X)
    assert any(bool(jnp.any(part == 0)) for part in a) and any(bool(jnp.any(part == 1)) for part in a)

    def energy(a):
        return 0.5 * sum(jnp.sum(part**2) for part in a) - jnp.sum(jax.vmap(net.potential)(a, X))

    for part, slope in zip(a, jax.jit(jax.grad(energy))(a)):
        outward = jnp.where(part == 0, jnp.maximum(slope, 0), jnp.where(part == 1, jnp.minimum(slope, 0), 0))
        np.testing.assert_allclose(slope, outward, atol=1e-11)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_exact_gradient_is_that_of_differences_of_many_updates_and_of_any_linear_solver(symmetric):
    net, batch = dense(symmetric=symmetric, readout=True), (X, Y)
    exact = flat(EXACT(net, batch))
    np.testing.assert_allclose(exact, flat(EXACT(dataclasses.replace(net, steps=400), batch)), atol=1e-11)

    def named(net, batch):
        return 0.5 * jnp.mean(jnp.sum((net(batch[0], linear_solver=lx.GMRES(1e-13, 1e-13)) - batch[1]) ** 2, axis=1))

    np.testing.assert_allclose(exact, flat(jax.jit(jax.grad(named))(net, batch)), atol=1e-10)
    trained, held = eqx.partition(net, eqx.is_inexact_array)
    point, rebuild = jax.flatten_util.ravel_pytree(trained)
    value = jax.jit(jax.vmap(lambda point: loss(eqx.combine(rebuild(point), held), batch)))
    moves = 1e-5 * jnp.eye(len(point))
    np.testing.assert_allclose((value(point[None] + moves) - value(point[None] - moves)) / 2e-5, exact, atol=1e-8)


@pytest.mark.parametrize(
    ("points", "wide", "mode"),
    [(1, 0.1, "energy"), (2, 0.2, "energy"), (6, 0.4, "energy"), (2, 0.2, "field"), (5, 0.4, "field")],
)
def test_the_error_of_a_symmetric_network_is_of_the_order_of_the_points(points, wide, mode):
    net, batch = dense(readout=True), (X, Y)
    errors = [missed(net, batch, nudge=nudge, points=points, mode=mode) for nudge in (wide, wide / 2)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(points, abs=0.25)
    # In the limit: the first term of the error is taken away.
    if points == 2:
        exact = flat(EXACT(net, batch))
        coarse, fine = (
            flat(jax.jit(estimate.equilibrium_gradient(loss, nudge=nudge, mode=mode))(net, batch)[1])
            for nudge in (0.02, 0.01)
        )
        np.testing.assert_allclose((4 * fine - coarse) / 3, exact, atol=1e-8)


def test_convolutions_and_other_activations():
    for activation in ("tanh", "sigmoid"):
        net = convolutional(activation=activation)
        assert [part.shape for part in estimate.equilibrium_state(net, IMAGES)] == [(5, 3, 4, 4), (5, 4, 2, 2)]
        assert missed(net, (IMAGES, Y), nudge=0.1, points=6) < 1e-6
    # Units at a bound do not move, those within move freely.
    assert missed(dense(activation="hard sigmoid"), (X, Y), nudge=1e-4) < 1e-6


def test_without_symmetry_there_is_a_bias_that_no_nudge_takes_away_and_the_feedback_is_trained_too():
    net = dense(symmetric=False)
    errors = [missed(net, (X, Y), nudge=nudge) for nudge in (0.02, 0.01)]
    assert min(errors) > 0.05 and errors[1] == pytest.approx(errors[0], rel=1e-2)
    # With the layers' own transposes for feedback it is right, each pair of weights having its share.
    twin = dataclasses.replace(net, feedback=tuple(net.layers[1:]))
    exact, found = (
        jax.jit(make(loss))(twin, (X, Y))[1]
        for make in (jax.value_and_grad, lambda loss: estimate.equilibrium_gradient(loss, nudge=1e-3))
    )
    np.testing.assert_allclose(flat(found), flat(exact), atol=1e-6)
    tied = EXACT(dense(), (X, Y))
    np.testing.assert_allclose(exact.layers[1].weight + exact.feedback[0].weight, tied.layers[1].weight, atol=1e-10)


def test_nothing_moves_at_the_target_and_the_value_and_the_readout_are_exact():
    net = dense(readout=True)
    value, grads = jax.jit(estimate.equilibrium_gradient(loss))(net, (X, jax.jit(lambda net: net(X))(net)))
    assert float(value) < 1e-20 and float(jnp.max(jnp.abs(flat(grads)))) < 1e-9
    value, grads = jax.jit(estimate.equilibrium_gradient(loss, points=1, nudge=2.0))(net, (X, Y))
    exact = EXACT(net, (X, Y))
    assert float(value) == pytest.approx(float(loss(net, (X, Y))), rel=1e-12)
    np.testing.assert_allclose(grads.readout.weight, exact.readout.weight, atol=1e-12)


def test_the_penalty_is_the_antisymmetry_of_the_jacobian_and_for_layers_the_distance_of_their_weights():
    net = dense(symmetric=False)
    state = estimate.equilibrium_state(net, X)

    def mean(net):
        return estimate.asymmetry_penalty(net, X, state, key=jax.random.key(3), probes=20_000)

    value, grads = jax.jit(jax.value_and_grad(mean))(net)
    pairs = list(zip(net.layers[1:], net.feedback))
    apart = sum(float(jnp.sum((layer.weight - back.weight) ** 2)) for layer, back in pairs) / 12
    found = calculus.antisymmetry(lambda t, a, x: net.drive(a, x), probes=20_000)(
        0.0, jax.tree.map(lambda part: part[0], state), X[0], key=jax.random.key(4)
    ).antisymmetric
    assert abs(float(found.value) / 12 - apart) < 4 * float(found.standard_error) / 12
    assert float(value) == pytest.approx(apart, rel=0.02)
    for (layer, back), slope, other in zip(pairs, grads.layers[1:], grads.feedback):
        truth = 2 * (layer.weight - back.weight) / 12
        np.testing.assert_allclose(slope.weight, truth, atol=0.05 * float(jnp.max(jnp.abs(truth))))
        np.testing.assert_allclose(other.weight, -truth, atol=0.05 * float(jnp.max(jnp.abs(truth))))
    assert float(estimate.asymmetry_penalty(dense(), X, state, key=jax.random.key(0))) < 1e-20


def test_homeostasis_adds_the_penalty_s_gradient_and_leaves_the_value():
    net, key = dense(symmetric=False), jax.random.key(5)
    plain = jax.jit(estimate.equilibrium_gradient(loss))(net, (X, Y))
    value, grads = jax.jit(estimate.equilibrium_gradient(loss, homeostasis=3.0))(net, (X, Y), key=key)
    state = jax.jit(estimate.equilibrium_state)(net, X)
    added = jax.grad(lambda net: estimate.asymmetry_penalty(net, X, state, key=key))(net)
    assert float(value) == pytest.approx(float(plain[0]), rel=1e-12)
    np.testing.assert_allclose(flat(grads), flat(plain[1]) + 3 * flat(added), atol=1e-9)


def test_it_is_a_drop_in_for_training_with_auxiliary_values_types_and_one_program():
    traces = []

    def counted(net, batch):
        traces.append(1)
        return loss(net, batch), net(batch[0])[0]

    net = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), dense(tolerance=None, steps=30))
    batch = X.astype(jnp.bfloat16), Y.astype(jnp.bfloat16)
    function = jax.jit(estimate.equilibrium_gradient(counted, has_aux=True, steps=15))
    (value, aux), grads = function(net, batch)
    many = len(traces)
    function(net, batch)
    assert len(traces) == many and aux.shape == (2,)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(grads)} == {"bfloat16"}
    assert jax.tree.structure(grads) == jax.tree.structure(net)
    eager = estimate.equilibrium_gradient(counted, has_aux=True, steps=15)(net, batch)[1]
    np.testing.assert_allclose(flat(grads).astype(float), flat(eager).astype(float), atol=1e-2)

    net, optimizer = dense(steps=30), optax.sgd(0.3)
    step = jax.jit(follow.train_step(loss, optimizer, value_and_grad=estimate.equilibrium_gradient))
    state, first = optimizer.init(net), float(loss(net, (X, Y)))
    for _ in range(150):
        net, state, value = step(net, state, (X, Y))
    assert float(value) < 0.2 * first


def test_what_does_not_come_to_rest_fails_aloud():
    net = dense((3, 6, 2), activation="sigmoid", step=1.0)
    net = eqx.tree_at(lambda net: net.layers[1].weight, net, -60 * jnp.abs(net.layers[1].weight))
    with pytest.raises(RuntimeError):
        jax.block_until_ready(estimate.equilibrium_state(net, X))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.Equilibrium([]), "one layer at least"),
        (lambda: dataclasses.replace(dense(symmetric=False), feedback=()), "a feedback for each"),
        (lambda: estimate.Equilibrium([eqx.nn.Lambda(jnp.tanh)]), "leaves are arrays"),
        (lambda: dense(activation="relu"), "an activation among"),
        (lambda: dense(step=1.5), "a step above 0"),
        (lambda: dense(tolerance=-1.0), "a tolerance"),
        (lambda: dense()(X[0]), "inputs \\[rows"),
        (lambda: estimate.equilibrium_state(None, X), "an estimate.Equilibrium"),
        (lambda: estimate.equilibrium_gradient(loss, nudge=0.0), "a nudge"),
        (lambda: estimate.equilibrium_gradient(loss, mode="both"), 'mode "energy" or "field"'),
        (lambda: estimate.equilibrium_gradient(loss, homeostasis=-1.0), "homeostasis"),
        (lambda: estimate.equilibrium_gradient(loss)(dense(), X), "begins with what the network"),
        (lambda: estimate.equilibrium_gradient(loss)({}, (X, Y)), "an estimate.Equilibrium"),
        (lambda: estimate.equilibrium_gradient(loss, mode="energy")(dense(symmetric=False), (X, Y)), "symmetric"),
        (lambda: estimate.equilibrium_gradient(loss, points=4)(dense(activation="hard sigmoid"), (X, Y)), "analytic"),
        (lambda: estimate.equilibrium_gradient(loss, homeostasis=1.0)(dense(), (X, Y)), "a key for"),
        (lambda: estimate.equilibrium_gradient(lambda net, batch: net(batch[0])[:, 0])(dense(), (X, Y)), "one real"),
        (
            lambda: estimate.equilibrium_gradient(lambda net, batch: loss(net, (X[:2], Y[:2])))(dense(), (X, Y)),
            "leading axis",
        ),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
