"""On old data neither outputs nor sample gradients move; under one-sided projection the latter do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import regulate


def network(params, x, taps=(0.0, 0.0, 0.0)):
    """Logits and what each layer was given, of one sample; taps are added to what each layer returns."""
    seen = [x]
    for weight, tap in zip(params[:-1], taps):
        seen.append(jnp.tanh(weight @ seen[-1] + tap))
    return params[-1] @ seen[-1] + taps[-1], seen


def loss(params, x, y, taps=(0.0, 0.0, 0.0)):
    return optax.softmax_cross_entropy_with_integer_labels(network(params, x, taps)[0], y)


@pytest.fixture
def setting(x64, key):
    keys = jax.random.split(key, 5)
    params = tuple(jax.random.normal(k, shape) / 2 for k, shape in zip(keys, [(12, 10), (11, 12), (5, 11)]))
    return params, jax.random.normal(keys[3], (3, 10)), jnp.array([0, 2, 1]), jax.random.normal(keys[4], (20, 10))


def test_sample_gradients_are_unmoved_to_rounding(setting):
    params, x, y, new = setting
    sample_gradients = jax.vmap(jax.grad(loss, argnums=1), in_axes=(None, 0, 0))

    def train(both):
        taps = tuple(jnp.zeros(w.shape[0]) for w in params)
        seen = tuple(jax.vmap(lambda x: network(params, x)[1])(x))
        back = jax.vmap(jax.grad(loss, argnums=3), in_axes=(None, 0, 0, None))(params, x, y, taps)
        regulator = regulate.robust_projection()
        state = regulator.init(params)
        state = state._replace(bases=regulate.extend_bases(state.bases, seen, threshold=1.0))
        if both:
            state = state._replace(output_bases=regulate.extend_bases(state.output_bases, back, threshold=1.0))

        def step(params, _):
            value, gradient = jax.value_and_grad(lambda p: jnp.mean(jax.vmap(lambda x: loss(p, x, 3))(new)))(params)
            return optax.tree.sub(params, optax.tree.scale(0.2, regulator.update(gradient, state, params)[0])), value

        after, values = jax.lax.scan(step, params, length=40)
        outputs = jax.vmap(lambda x: network(after, x)[0])(x)
        return outputs, sample_gradients(after, x, y), values

    before = jax.vmap(lambda x: network(params, x)[0])(x), sample_gradients(params, x, y)
    outputs, gradients, values = jax.jit(train, static_argnums=0)(True)
    np.testing.assert_allclose(outputs, before[0], atol=1e-13)
    np.testing.assert_allclose(gradients, before[1], atol=1e-13)
    assert values[-1] < 0.9 * values[0]
    outputs, gradients, _ = jax.jit(train, static_argnums=0)(False)
    np.testing.assert_allclose(outputs, before[0], atol=1e-13)
    assert jnp.max(jnp.abs(gradients - before[1])) > 0.01


def test_projection_is_orthogonal(x64, key):
    keys = jax.random.split(key, 4)
    regulator = regulate.robust_projection()
    params = {"weight": jax.random.normal(keys[0], (6, 2, 4)), "bias": jnp.ones(6)}
    state = regulator.init(params)
    seen = {"weight": jax.random.normal(keys[1], (3, 8)), "bias": None}
    back = {"weight": jax.random.normal(keys[2], (2, 6)), "bias": jax.random.normal(keys[2], (2, 6))}
    state = state._replace(
        bases=regulate.extend_bases(state.bases, seen, threshold=1.0),
        output_bases=regulate.extend_bases(state.output_bases, back, threshold=1.0),
    )
    once, _ = regulator.update(params, state, params, unknown=0)
    twice, _ = regulator.update(once, state)
    for name in params:
        np.testing.assert_allclose(twice[name], once[name], atol=1e-14)
        np.testing.assert_allclose(jnp.sum(once[name] * (params[name] - once[name])), 0, atol=1e-12)
    rows = once["weight"].reshape(6, 8)
    np.testing.assert_allclose(rows @ seen["weight"].T, 0, atol=1e-12)
    np.testing.assert_allclose(back["weight"] @ rows, 0, atol=1e-12)
    np.testing.assert_allclose(back["bias"] @ once["bias"], 0, atol=1e-12)
