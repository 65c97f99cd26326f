"""The error follows the geometric law of its scales, stops where it should, and fluctuations pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import regulate

CONSTANTS = (2.0, 5.0, 30.0, 200.0)


def errors(regulator, activity, steps):
    """The logarithm of the regulated activity of a drive that has always been what it is, step by step."""
    state = regulator.init(activity)
    level = jnp.abs(activity).mean(0)
    state = state._replace(levels=jnp.broadcast_to(level, state.levels.shape))

    def step(state, _):
        regulated, state = regulator.update(activity, state)
        return state, jnp.log(jnp.abs(regulated[0]))

    return jax.jit(lambda state: jax.lax.scan(step, state, length=steps)[1])(state)


def test_without_tolerances_the_error_is_geometric(x64):
    regulator = regulate.activity_control(jnp.ones(2), time_constants=CONSTANTS, tolerances=(0.0,) * 4)
    found = errors(regulator, jnp.exp(jnp.array([[3.0, -4.0]])), 50)
    rates = 1 - np.exp(-1 / np.array(CONSTANTS))
    factors = np.array([1 - rates.sum(), 1 - rates[1:].sum()])  # the fastest only damps
    np.testing.assert_allclose(found, factors ** np.arange(1, 51)[:, None] * np.array([3.0, -4.0]), atol=1e-12)


def test_one_scale_with_a_tolerance_stops_there_and_the_slow_one_finishes(x64):
    one = regulate.activity_control(jnp.ones(2), time_constants=(2.0,), tolerances=(0.7,))
    found = errors(one, jnp.exp(jnp.array([[3.0, -0.5]])), 60)
    np.testing.assert_allclose(found[:, 0], 0.7 + 2.3 * np.exp(-np.arange(1, 61) / 2), atol=1e-12)
    np.testing.assert_allclose(found[:, 1], -0.5)
    # Within every other tolerance only the slowest scale acts.
    four = regulate.activity_control(jnp.ones(1), time_constants=CONSTANTS, tolerances=(2.0, 1.0, 0.5, 0.0))
    found = errors(four, jnp.exp(jnp.array([[0.4]])), 40)
    np.testing.assert_allclose(found[:, 0], 0.4 * np.exp(-np.arange(1, 41) / 200), atol=1e-12)
    burst = errors(four, jnp.exp(jnp.array([[9.0]])), 3000)[:, 0]
    assert burst[15] < 2.0 and abs(burst[-1]) < 1e-4
    assert np.all(np.diff(burst) < 0)


def test_each_scale_sees_the_mean_over_its_own_time(x64):
    regulator = regulate.activity_control(jnp.ones(1), time_constants=CONSTANTS, tolerances=(9.0,) * 4)
    state = regulator.init(jnp.ones((1, 1)))
    for _ in range(7):
        regulated, state = regulator.update(jnp.full((1, 1), 3.0), state)
    np.testing.assert_allclose(state.levels[:, 0], 3 - 2 * np.exp(-7 / np.array(CONSTANTS)), atol=1e-12)
    np.testing.assert_array_equal(regulated, 3.0)


def test_samples_are_averaged_units_apart_and_trees_pass(x64, key):
    activity = {"a": jax.random.normal(key, (6, 3)), "b": 5 * jax.random.normal(key, (6, 2))}
    target = jax.tree.map(lambda a: jnp.mean(jnp.abs(a), axis=0), activity)
    regulator = regulate.activity_control(target)
    state = regulator.init(activity)
    regulated, after = regulator.update(activity, state, unknown=1)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-14), regulated, activity)
    jax.tree.map(lambda c: np.testing.assert_allclose(c, 0, atol=1e-15), after.corrections)
    louder = {"a": activity["a"] * jnp.array([[1.0, 100.0, 1.0]]), "b": activity["b"]}
    _, after = regulator.update(louder, state)
    rate = 1 - np.exp(-1)
    np.testing.assert_allclose(after.corrections["a"][0], [0, rate * (np.log1p(99 * rate) - 2), 0], atol=1e-12)
    nothing = jax.tree.map(jnp.zeros_like, activity)
    after = after._replace(levels=jax.tree.map(jnp.zeros_like, after.levels))
    silent, unchanged = regulator.update(nothing, after)
    jax.tree.map(np.testing.assert_array_equal, unchanged.corrections, after.corrections)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(silent))


def test_a_unit_that_should_be_silent_is_left_alone_and_half_precision_is_kept():
    activity = jnp.full((2, 3), 50.0, jnp.bfloat16)
    regulator = regulate.activity_control(jnp.array([0.0, 1.0, 0.0]))
    state = regulator.init(activity)
    regulated, state = regulator.update(activity.at[:, 2].set(0), state)
    assert regulated.dtype == jnp.bfloat16 and state.levels.dtype == state.corrections.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(regulated, np.float32)[:, [0, 2]], [[50.0, 0.0]] * 2)
    assert float(regulated[0, 1]) < 50 and not np.any(np.isnan(state.corrections))


def test_faults_are_named():
    for settings, words in (
        ({"tolerances": (1.0,)}, "one tolerance"),
        ({"time_constants": (0.0, 1.0, 2.0, 3.0)}, "positive"),
        ({"tolerances": (-1.0, 0.0, 0.0, 0.0)}, "0 or more"),
        ({"time_constants": (1.0, 1.0, 1.0, 1.0)}, "at most 1"),
    ):
        with pytest.raises(ValueError, match=words):
            regulate.activity_control(jnp.ones(1), **settings)
    for target, words in (
        (-1.0, "expected targets of 0 or more, finite, got -1.0. They are mean magnitudes"),
        ({"a": jnp.array([1.0, -1.0])}, r"expected targets of 0 or more, finite, got \[ 1. -1.\]"),
        (jnp.array([jnp.nan]), "targets of 0 or more, finite, got"),
        ("a", "targets of real floating-point numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            regulate.activity_control(target)
