"""The forward gradient: exact with a frame, right moments, and no backward pass in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

SLOPE = jnp.array([1.0, -2.0, 0.5, 3.0, 0.0, 1.5, -1.0])


def linear(w):
    return jnp.dot(SLOPE, w)


def deep(weights, x):
    def layer(x, weight):
        return jnp.tanh(x @ weight), None

    return jnp.sum(jax.lax.scan(layer, x, weights)[0] ** 2)


@pytest.mark.parametrize("directions, per_gradient", [("gaussian", 9.0), ("rademacher", 7.0), ("sphere", 7.0)])
def test_second_moment_is_the_one_of_the_directions(directions, per_gradient):
    """E|g|² is (d + 2) times the squared gradient for Gaussian directions, d times for those of one length."""
    function = estimate.forward_gradient(linear, directions=directions)
    keys = jax.random.split(jax.random.key(0), 100_000)
    squares = jax.jit(jax.vmap(lambda key: jnp.sum(function(jnp.zeros(7), key=key)[1] ** 2)))(keys)
    squares = np.asarray(squares, np.float64) / float(SLOPE @ SLOPE)
    assert abs(squares.mean() - per_gradient) < 4 * squares.std() / np.sqrt(len(squares))


def test_as_many_orthogonal_directions_as_parameters_give_the_gradient():
    with jax.enable_x64(True):
        params = {"a": jnp.arange(1.0, 4.0), "b": jnp.ones((2, 2))}

        def loss(p):
            return jnp.sum(jnp.sin(p["a"])) * jnp.prod(p["b"] + 0.3)

        _, grads = estimate.forward_gradient(loss, directions="orthogonal", probes=7)(params, key=jax.random.key(3))
        jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-12), grads, jax.grad(loss)(params))
        # Fewer of them keep their share of the squared gradient in the mean, and no direction twice.
        three = estimate.forward_gradient(loss, directions="orthogonal", probes=3)
        flat = jax.vmap(lambda key: jnp.concatenate([x.ravel() for x in jax.tree.leaves(three(params, key=key)[1])]))
        draws = np.asarray(flat(jax.random.split(jax.random.key(0), 5000)))
        squares = np.sum(draws**2, axis=1)
        true = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(jax.grad(loss)(params)))
        assert abs(squares.mean() / true - 7 / 3) < 4 * squares.std() / np.sqrt(5000) / true


def test_leaves_of_one_shape_have_directions_of_their_own():
    params = {"a": jnp.zeros(5), "b": jnp.zeros(5)}
    _, grads = estimate.forward_gradient(lambda p: jnp.sum(p["a"]) + jnp.sum(p["b"]))(params, key=jax.random.key(0))
    assert not np.allclose(grads["a"], grads["b"])


def test_nothing_runs_backwards_and_memory_does_not_grow_with_depth():
    def temporary(make, depth):
        weights, x = jnp.zeros((depth, 64, 64)), jnp.ones((4096, 64))
        return jax.jit(make).lower(weights, x).compile().memory_analysis().temp_size_in_bytes

    def forward(weights, x):
        return estimate.forward_gradient(deep)(weights, x, key=jax.random.key(0))

    def kept(make):
        # What is there beside the direction, which is as large as the weights.
        return temporary(make, 32) - temporary(make, 4) - 28 * 64 * 64 * 4

    layer = 4096 * 64 * 4
    assert kept(forward) < 2 * layer
    assert kept(jax.value_and_grad(deep)) > 20 * layer


def test_a_loss_without_forward_mode_and_too_many_directions_are_refused():
    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * x * g,))
    with pytest.raises(ValueError, match="spsa"):
        estimate.forward_gradient(square)(jnp.ones(3), key=jax.random.key(0))
    with pytest.raises(ValueError, match="at most 3"):
        estimate.forward_gradient(linear, directions="orthogonal", probes=4)(jnp.ones(3), key=jax.random.key(0))
    with pytest.raises(ValueError, match="directions among"):
        estimate.forward_gradient(linear, directions="normal")
