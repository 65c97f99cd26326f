"""The papers' loop against the same loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.papers._problems._training import trained

X = jax.random.normal(jax.random.key(0), (32, 3))
Y = X @ jnp.array([1.0, -2.0, 0.5])


def loss(weights, batch):
    return jnp.mean((batch[0] @ weights - batch[1]) ** 2)


def batches(step, key):
    rows = (jax.random.randint(key, (4,), 0, 32) + step) % 32
    return X[rows], Y[rows]


def by_hand(rate, key, steps=12):
    optimizer = optax.adam(rate)
    weights, values, path = jnp.zeros(3), [], []
    state = optimizer.init(weights)
    for step, now in enumerate(jax.random.split(key, steps)):
        value, grads = jax.value_and_grad(loss)(weights, batches(step, now))
        updates, state = optimizer.update(grads, state, weights)
        weights = optax.apply_updates(weights, updates)
        values.append(value)
        path.append(weights)
    return weights, jnp.stack(values), jnp.stack(path)


def run(rate, key, **options):
    def record(weights, state, value):
        return (value, weights)

    return trained(loss, jnp.zeros(3), optax.adam(rate), batches, 12, key=key, record=record, **options)


def test_side_by_side_over_rates_and_keys_it_is_the_loop_by_hand(key):
    rates, keys = jnp.array([0.05, 0.2]), jax.random.split(key, 2)
    ends, (values, path) = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(rates, keys)
    for i in range(2):
        for j in range(2):
            end, losses, weights = by_hand(rates[j], keys[i])
            np.testing.assert_allclose(ends[i, j], end, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(values[i, j], losses, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(path[i, j], weights, rtol=1e-5, atol=1e-6)
    assert np.abs(path[0, 0] - path[1, 0]).max() > 1e-3 and np.abs(path[0, 0] - path[0, 1]).max() > 1e-3


def test_every_third_step_is_recorded_as_it_was(key):
    _, (values, path) = run(0.1, key)
    end, (some, few) = run(0.1, key, every=3)
    np.testing.assert_allclose(some, values[2::3], rtol=1e-6)
    np.testing.assert_allclose(few, path[2::3], rtol=1e-6)
    np.testing.assert_array_equal(end, few[-1])
    with pytest.raises(ValueError, match="expected steps, a multiple of every = 5, got 12"):
        run(0.1, key, every=5)


def test_a_loss_with_a_key_draws_anew_in_each_step(key):
    def noisy(weights, batch, *, key):
        return weights * jax.random.normal(key) + weights**2

    _, values = trained(
        noisy, jnp.array(1.0), optax.sgd(0.0), lambda step, key: None, 4, key=key, record=lambda w, s, value: value
    )
    assert len(set(values.tolist())) == 4
