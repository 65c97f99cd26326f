"""Differences: their bias in closed form, the smoothed loss, and a gradient that is a seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate


def test_the_bias_is_a_sixth_of_the_squared_step_times_the_third_derivative():
    with jax.enable_x64(True):
        w, h = jnp.array(1.7), 0.3
        _, slope = estimate.spsa(lambda w: w**3, step=h)(w, key=jax.random.key(0))
        assert float(slope) == pytest.approx(3 * 1.7**2 + h**2, rel=1e-12)  # h²/6 · 6
        _, slope = estimate.spsa(lambda w: 5 * w**2 - w, step=h)(w, key=jax.random.key(0))
        assert float(slope) == pytest.approx(10 * 1.7 - 1, rel=1e-12)


def test_smoothing_gives_the_gradient_of_the_smoothed_loss():
    with jax.enable_x64(True):
        w, width = jnp.array([0.5, -1.0]), 0.8
        function = estimate.gaussian_smoothing(lambda w: jnp.sum(w**4), step=width)
        draws = jax.jit(jax.vmap(lambda key: function(w, key=key)[1]))(jax.random.split(jax.random.key(0), 200_000))
        truth = 4 * w**3 + 12 * w * width**2
        error = jnp.std(draws, axis=0) / jnp.sqrt(len(draws))
        assert bool(jnp.all(jnp.abs(jnp.mean(draws, axis=0) - truth) < 4.5 * error))
        assert bool(jnp.all(jnp.abs(4 * w**3 - truth) > 20 * error))  # the plain gradient would be seen


def test_a_seed_moves_parameters_as_its_tree_would():
    with jax.enable_x64(True):
        params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]]), "steps": jnp.array(2)}

        def loss(p):
            return jnp.sum(p["a"] ** 2) + jnp.sum(p["b"]) * jnp.sum(p["a"])

        value, gradient = estimate.seed_replay(loss, probes=3)(params, key=jax.random.key(0))
        assert float(value) == pytest.approx(float(loss(params)))
        moved, tree = gradient.apply(params, -0.1), gradient.tree(params)
        assert int(moved["steps"]) == 2 and tree["steps"] is None
        for name in ("a", "b"):
            np.testing.assert_allclose(moved[name], params[name] - 0.1 * tree[name], rtol=1e-12)
        # On a quadratic the differences are derivatives along the directions that the keys draw.
        exact = jax.grad(lambda p: loss(p | {"steps": 2}))({"a": params["a"], "b": params["b"]})
        alone = estimate.SeededGradient(gradient.keys[:1], jnp.ones(1)).tree(params)
        slope = sum(float(jnp.sum(alone[name] * exact[name])) for name in ("a", "b"))
        assert float(gradient.slopes[0]) == pytest.approx(slope, rel=1e-9)


def test_seed_replay_takes_the_memory_of_a_forward_pass_and_of_one_layer_at_any_depth():
    """Five million parameters: backpropagation keeps every layer's activations and gradient, replay no layer's."""
    width, rows = 512, 256
    layer, activations = 4 * width**2, 4 * rows * width

    def loss(weights, x):
        for weight in weights:
            x = jnp.tanh(x @ weight)
        return jnp.mean(x**2)

    def replay(weights, x):
        return estimate.seed_replay(loss)(weights, x, key=jax.random.key(0))

    def used(function, depth):
        stats = jax.jit(function).lower([jnp.zeros((width, width))] * depth, jnp.ones((rows, width))).compile()
        stats = stats.memory_analysis()
        return stats.temp_size_in_bytes + stats.output_size_in_bytes

    assert 20 * width**2 >= 5e6
    assert used(jax.value_and_grad(loss), 20) - used(jax.value_and_grad(loss), 10) > 9 * layer
    assert used(replay, 20) < 10 * layer
    assert used(replay, 20) - used(replay, 10) < activations

    gradient = estimate.SeededGradient(jax.random.split(jax.random.key(0), 1), jnp.ones(1))
    move = jax.jit(lambda weights: gradient.apply(weights, -0.1), donate_argnums=0)
    compiled = move.lower([jnp.zeros((width, width))] * 20).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 6 * layer
