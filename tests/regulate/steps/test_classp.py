"""AdaGrad where it should be AdaGrad, the closed form where gradients are constant, and nothing below the threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import regulate


def test_power_two_without_threshold_is_adagrad(x64, key):
    gradients = jax.random.normal(key, (30, 7))
    ours, theirs = regulate.classp(epsilon=0.1 + 1e-7), optax.scale_by_rss(0.1, 1e-7)

    def run(transformation):
        def step(state, gradient):
            updates, state = transformation.update(gradient, state)
            return state, updates

        return jax.lax.scan(step, transformation.init(gradients[0]), gradients)[1]

    np.testing.assert_allclose(jax.jit(run, static_argnums=0)(ours), run(theirs), rtol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_a_constant_gradient_is_suppressed_by_a_power_law(power, scale):
    # (n |g|^p)^(1/p) = n^(1/p) |g|, whatever the gradient's scale, in single precision.
    regulator = regulate.classp(power=power, epsilon=1e-38)
    gradient = jnp.array([scale, -3 * scale], jnp.float32)

    def step(state, _):
        updates, state = regulator.update(gradient, state)
        return state, updates

    updates = jax.lax.scan(step, regulator.init(gradient), length=10)[1]
    expected = np.arange(1, 11)[:, None] ** (-1 / power) * np.array([1, -1])
    start = (1e-38) ** (1 / power) / np.array([scale, 3 * scale])
    np.testing.assert_allclose(updates, expected, rtol=1e-5 + np.max(start))


def test_a_start_below_the_number_range_divides_nothing_by_zero():
    regulator = regulate.classp(power=0.5, epsilon=1e-38)
    gradient = jnp.array([0.0, 2.0], jnp.bfloat16)
    updates, state = regulator.update(gradient, regulator.init(gradient))
    assert updates.dtype == jnp.bfloat16 and updates.tolist() == [0.0, 1.0]
    assert state.adjustment.dtype == jnp.float32 and state.adjustment.tolist() == [0.0, 2.0]


def test_below_the_threshold_nothing_moves_and_nothing_is_remembered():
    regulator = regulate.classp(0.5)
    state = regulator.init(jnp.zeros(3))
    updates, after = regulator.update(jnp.array([0.4, -0.5, 0.6]), state, unknown=1)
    np.testing.assert_array_equal(updates[:2], 0)
    np.testing.assert_array_equal(after.adjustment[:2], state.adjustment[:2])
    assert updates[2] > 0.9 and after.adjustment[2] > 0.6
    for bad in ({"threshold": -1.0}, {"power": 0.0}, {"epsilon": 0.0}):
        with pytest.raises(ValueError, match="expected threshold"):
            regulate.classp(**bad)
