import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.calculus import softmax_radius
from nablax.regulate import ghost_step

X = jax.random.normal(jax.random.key(0), (12, 5))
PARAMS = jax.random.normal(jax.random.key(1), (5, 3))


def logits(params, inputs):
    return inputs @ params


def regulated(updates, fraction=1.0):
    regulator = ghost_step(logits, fraction=fraction)
    return jax.jit(lambda u: regulator.update(u, regulator.init(PARAMS), PARAMS, inputs=X, unknown=1))(updates)


def test_long_steps_end_on_the_radius_and_short_ones_pass():
    direction = jax.random.normal(jax.random.key(2), PARAMS.shape)
    radius = float(jnp.min(softmax_radius(logits)(PARAMS, direction, X).simple))
    for factor, expected in ((0.5, 0.5), (1e4, 1.0), (1e12, 1.0)):
        updates, state = regulated(factor * radius * direction)
        np.testing.assert_allclose(updates, expected * radius * direction, rtol=1e-5)
        np.testing.assert_allclose(state.radius, 1 / factor, rtol=1e-5)
        np.testing.assert_allclose(state.scale, min(1, 1 / factor), rtol=1e-5)
    half, _ = regulated(10 * radius * direction, fraction=0.5)
    np.testing.assert_allclose(half, 0.5 * radius * direction, rtol=1e-5)


def test_the_spread_of_the_worst_row_after_the_step_is_pi():
    updates, _ = regulated(1e6 * jax.random.normal(jax.random.key(3), PARAMS.shape))
    moved = logits(updates, X)
    np.testing.assert_allclose(jnp.max(moved.max(1) - moved.min(1)), jnp.pi, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_scales(size):
    updates, state = regulated(size * jnp.ones_like(PARAMS).at[0].set(0.5 * jnp.arange(3)))
    assert bool(jnp.all(jnp.isfinite(updates))) and float(state.scale) <= 1
    if size < 1:
        np.testing.assert_array_equal(updates, size * jnp.ones_like(PARAMS).at[0].set(0.5 * jnp.arange(3)))


def test_updates_without_effect_pass():
    for updates in (jnp.zeros_like(PARAMS), jnp.full_like(PARAMS, 3.0)):  # all logits of a row move alike
        kept, state = regulated(updates)
        np.testing.assert_array_equal(kept, updates)
        assert float(state.scale) == 1 and bool(state.radius > 1e3)


def test_a_spike_of_the_rate_does_no_harm():
    inputs, labels = jax.random.normal(jax.random.key(4), (60, 5)), jnp.arange(60) % 3

    def run(link):
        chain = optax.chain(optax.sgd(1.0), link)

        def step(carry, rate):
            params, state = carry
            value, grads = jax.value_and_grad(
                lambda p: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(p, inputs), labels))
            )(params)
            grads = jax.tree.map(lambda g: rate * g, grads)
            updates, state = chain.update(grads, state, params, inputs=inputs)
            return (optax.apply_updates(params, updates), state), value

        params = jnp.zeros_like(PARAMS)
        rates = jnp.ones(20).at[5].set(1e4)
        return jax.jit(lambda: jax.lax.scan(step, (params, chain.init(params)), rates)[1])()

    safe, plain = run(ghost_step(logits)), run(optax.with_extra_args_support(optax.identity()))
    np.testing.assert_allclose(safe[:6], plain[:6], rtol=1e-6)  # short steps are the same
    assert float(plain[6]) > 10 * float(safe[6])
    assert float(safe[-1]) < float(safe[5]) + 0.01


def test_an_empty_leaf_has_no_largest_entry():
    regulator = ghost_step(lambda params, x: logits(params[0], x))
    params = (PARAMS, jnp.zeros((0,)))
    update, _ = regulator.update(params, regulator.init(params), params, inputs=X)
    assert update[1].shape == (0,)


def test_faults():
    with pytest.raises(ValueError, match="positive fraction"):
        ghost_step(logits, fraction=0)
    regulator = ghost_step(logits)
    for arguments, missing in (({"params": PARAMS}, "inputs"), ({"inputs": X}, "params")):
        with pytest.raises(ValueError, match=rf"{missing}=\.\.\. at the update of ghost_step, got none"):
            regulator.update(PARAMS, regulator.init(PARAMS), **arguments)
