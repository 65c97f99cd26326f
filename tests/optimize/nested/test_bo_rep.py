"""One step written out, steps of one length, and a minimum known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from nablax import optimize

HESSIAN = jnp.array([[2.0, 0.5], [0.5, 1.0]])
MIXED = jnp.array([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]])  # at the lower minimum x = H⁻¹ M θ
TARGET = jnp.array([1.0, -2.0])


def lower(x, params, key):
    return x @ HESSIAN @ x / 2 - x @ MIXED @ params["a"]


def upper(x, params, key):
    return jnp.sum((x - TARGET) ** 2) / 2 + 0.1 * jnp.sum(params["a"] ** 2)


START = {"a": jnp.array([0.3, -0.2, 0.1])}
RATES = {"rate": 0.05, "lower_rate": 0.3, "system_rate": 0.4}


def test_one_step_is_a_term_of_the_series_and_of_the_rates_length(x64, key):
    start = jax.tree.map(lambda a: a.astype(float), START)
    x = jnp.array([0.7, 0.4])
    settings = {"steps": 1, "momentum": 0.5, "refinement": 0, "lower_steps": 3, "key": key, **RATES}
    found = optimize.bo_rep(upper, lower, start, x, **settings)
    hessian, mixed, params = (np.asarray(v) for v in (HESSIAN, MIXED, start["a"]))
    for _ in range(3):
        x = x - 0.3 * (hessian @ x - mixed @ params)
    np.testing.assert_allclose(found.lower, x, rtol=1e-12)
    z = 0.4 * (np.asarray(x) - np.asarray(TARGET))
    hyper = 0.5 * (0.2 * params + mixed.T @ z)
    np.testing.assert_allclose(found.hypergradient["a"], hyper, rtol=1e-12)
    moved = np.asarray(found.params["a"]) - params
    np.testing.assert_allclose(moved, -0.05 * hyper / np.linalg.norm(hyper), rtol=1e-10)
    assert found.evaluations == 6


def test_the_lower_level_rests_between_periods(key):
    """x moves at steps 0 and 3, not at 1 and 2."""
    x = jnp.array([0.7, 0.4])

    def after(steps):
        return optimize.bo_rep(upper, lower, START, x, steps=steps, period=3, refinement=5, key=key, **RATES).lower

    first, second, third, fourth = (after(steps) for steps in (1, 2, 3, 4))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert np.all(np.asarray(first) != np.asarray(fourth))


def test_it_comes_to_the_minimum_of_both_levels(key):
    """Of a ridge regression of the target on the answer H⁻¹M θ, within some steps' length; noise is drawn anew."""
    noisy = lambda x, params, key: upper(x + 0.1 * jax.random.normal(key, (2,)), params, key)  # noqa: E731
    settings = RATES | {"rate": 0.002}
    found = optimize.bo_rep(noisy, lower, START, jnp.zeros(2), steps=3000, key=key, **settings)
    answer = np.linalg.solve(HESSIAN, MIXED)
    best = np.linalg.solve(answer.T @ answer + 0.2 * np.eye(3), answer.T @ np.asarray(TARGET))
    assert np.linalg.norm(np.asarray(found.params["a"]) - best) < 0.06
    assert np.unique(found.values[-50:]).size == 50 and found.result == optimistix.RESULTS.successful


def test_gradients_of_any_size_make_the_same_step(key):
    x = jnp.array([0.7, 0.4])
    settings = {"steps": 1, "key": key, **RATES}
    plain = optimize.bo_rep(upper, lower, START, x, **settings).params["a"]
    for scale in (1e-15, 1e15):
        large = optimize.bo_rep(lambda *args, s=scale: s * upper(*args), lower, START, x, **settings).params["a"]
        np.testing.assert_allclose(large, plain, rtol=1e-4)


def test_what_cannot_be_is_refused(key):
    settings = {"steps": 1, "key": key, **RATES}
    with pytest.raises(ValueError, match="upper of 3 arguments"):
        optimize.bo_rep(lambda x, params: 0.0, lower, START, jnp.ones(2), **settings)
    with pytest.raises(ValueError, match="period as a whole number"):
        optimize.bo_rep(upper, lower, START, jnp.ones(2), period=0, **settings)
    with pytest.raises(ValueError, match="momentum from 0 to below 1"):
        optimize.bo_rep(upper, lower, START, jnp.ones(2), momentum=1.0, **settings)


def test_settings_of_double_precision_leave_single_precision_what_it_is(x64, key):
    start, x = ({"a": jnp.ones(3, jnp.float32)}, jnp.zeros(2, jnp.float32))
    rates = RATES | {"momentum": 0.8}
    plain = optimize.bo_rep(upper, lower, start, x, steps=3, key=key, **rates)
    wide = optimize.bo_rep(upper, lower, start, x, steps=3, key=key, **{k: np.float64(v) for k, v in rates.items()})
    assert wide.params["a"].dtype == wide.lower.dtype == jnp.float32
    np.testing.assert_allclose(wide.params["a"], plain.params["a"], rtol=1e-4)
    with pytest.raises(ValueError, match="start and x of real floating-point numbers"):
        optimize.bo_rep(upper, lower, start, jnp.zeros(2, int), steps=1, key=key, **rates)
