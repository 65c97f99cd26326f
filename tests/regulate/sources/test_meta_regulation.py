"""Quadratic tasks, where the result of every inner step and the best gain are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import regulate


def loss(params, data):
    curvature, centre = data
    return 0.5 * jnp.sum(curvature * (params - centre) ** 2)


def test_the_meta_loss_is_that_of_the_steps_in_closed_form(x64, key):
    keys = jax.random.split(key, 5)
    start, gain, shift, centre, query = (jax.random.normal(k, (3,)) for k in keys)
    curvature, rate, steps = jnp.array([0.5, 1.0, 2.0]), 0.3, 5
    meta = regulate.MetaRegulation(start, gain, shift)
    scale = 2 / (1 + np.exp(-np.asarray(gain)))
    # x ← x − η(s h (x − c) + b): a geometric approach to c − b/(s h).
    fixed = centre - shift / (scale * curvature)
    after = fixed + (1 - rate * scale * curvature) ** steps * (start - fixed)
    function = regulate.meta_loss(loss, steps=steps, learning_rate=rate)
    np.testing.assert_allclose(function(meta, (curvature, centre), (curvature, query)), loss(after, (curvature, query)))
    small = jax.tree.map(lambda leaf: 1e-6 * jnp.ones_like(leaf), meta)
    arguments = (curvature, centre), (curvature, query)
    slope = jax.grad(function)(meta, *arguments)
    up, down = (function(optax.tree.add_scale(meta, s, small), *arguments) for s in (1, -1))
    np.testing.assert_allclose((up - down) / 2, optax.tree.vdot(slope, small), rtol=1e-6)


def test_the_gain_learnt_is_the_best_linear_shrinkage(x64, key):
    """Supports see the centre with noise; one step of gain s is the estimator s·(noisy centre), best at v/(v + n)."""
    variance, noise = np.array([1.0, 1.0, 0.1]), np.array([0.25, 4.0, 0.9])
    keys = jax.random.split(key)
    centres = jax.random.normal(keys[0], (20_000, 3)) * np.sqrt(variance)[None]
    seen = centres + jax.random.normal(keys[1], (20_000, 3)) * np.sqrt(noise)[None]
    function = regulate.meta_loss(lambda x, c: 0.5 * jnp.sum((x - c) ** 2), steps=1, learning_rate=1.0)
    optimizer = optax.adam(0.1)

    def step(carry, _):
        meta, state = carry
        gradient = jax.grad(lambda m: jnp.mean(jax.vmap(function, in_axes=(None, 0, 0))(m, seen, centres)))(meta)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(meta, updates), state), None

    meta = regulate.meta_regulation(jnp.zeros(3))
    (meta, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=300))((meta, optimizer.init(meta)))
    np.testing.assert_allclose(2 * jax.nn.sigmoid(meta.gain), variance / (variance + noise), atol=0.02)
    np.testing.assert_allclose(meta.start - meta.shift, 0, atol=0.05)  # four standard errors of the sample mean


def test_it_starts_as_the_identity_and_needs_a_step(key):
    params = {"a": jax.random.normal(key, (3,)), "b": jnp.ones((2, 2))}
    regulator = regulate.learned_regulation(regulate.meta_regulation(params))
    updates, _ = regulator.update(params, regulator.init(params), params, unknown=1)
    jax.tree.map(np.testing.assert_array_equal, updates, params)
    with pytest.raises(ValueError, match="step"):
        regulate.meta_loss(loss, steps=0, learning_rate=0.1)
