import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import antisymmetry


def linear(matrix):
    return lambda t, y, args: jnp.asarray(matrix, y.dtype) @ y


def measure(field, y, key, probes):
    return jax.jit(lambda k: antisymmetry(field, probes=probes)(0.0, y, key=k))(key)


def truth(matrix):
    difference = matrix - matrix.T
    return (
        np.sum(difference**2) / 2,
        np.sum(matrix**2),
        np.sum((difference / 2) ** 2) / np.sum(matrix**2),
    )


def test_rotation_is_one_and_gradient_is_zero_on_every_probe(x64, key):
    rotation = np.array([[0.0, -1.0], [1.0, 0.0]])
    record = measure(linear(3 * rotation), jnp.ones(2), key, probes=2)
    np.testing.assert_allclose(record.ratio.value, 1.0, rtol=1e-14)
    np.testing.assert_allclose(record.ratio.standard_error, 0.0, atol=1e-14)

    def energy(y):
        return jnp.sum(jnp.sin(y)) * jnp.sum(y**2)

    record = measure(lambda t, y, args: jax.grad(energy)(y), jnp.arange(4.0), key, probes=2)
    np.testing.assert_allclose(record.ratio.value, 0.0, atol=1e-14)
    np.testing.assert_allclose(record.antisymmetric.value / record.jacobian.value, 0.0, atol=1e-14)


def test_mixture_of_scaling_and_rotation_is_known(x64, key):
    # J = cos·I + sin·R has ‖J‖² = 2 and antisymmetric share sin².
    @jax.jit
    def mixed(angle):
        def field(t, y, args):
            return jnp.cos(angle) * y + jnp.sin(angle) * jnp.array([-y[1], y[0]])

        return antisymmetry(field)(0.0, jnp.ones(2), key=key)

    for angle in (0.2, 0.7, 1.3):
        np.testing.assert_allclose(mixed(angle).ratio.value, np.sin(angle) ** 2, rtol=1e-12)


def test_estimates_reach_the_dense_answer_within_their_errors(x64, key):
    matrix = np.random.default_rng(0).normal(size=(7, 7))
    record = measure(linear(matrix), jnp.zeros(7), key, probes=19_200)
    for estimate, expected in zip((record.antisymmetric, record.jacobian, record.ratio), truth(matrix)):
        assert abs(estimate.value - expected) < 4 * estimate.standard_error
        assert estimate.standard_error < 0.02 * expected


def test_two_standard_errors_cover_nineteen_times_in_twenty(key):
    matrix = np.random.default_rng(0).normal(size=(7, 7))
    estimator = antisymmetry(linear(matrix), probes=64)
    record = jax.jit(jax.vmap(lambda k: estimator(0.0, jnp.zeros(7), key=k)))(jax.random.split(key, 2000))
    for estimate, expected in zip((record.antisymmetric, record.jacobian, record.ratio), truth(matrix)):
        covered = np.abs(estimate.value - expected) < 2 * estimate.standard_error
        assert 0.925 < covered.mean() < 0.97


def test_the_ratios_error_uses_the_covariance(key):
    # For a nearly pure rotation both means swing together; without their covariance the ratio's error would be
    # some forty times too large.
    matrix = np.array([[0.02, -1.0], [1.0, 0.0]])
    estimator = antisymmetry(linear(matrix), probes=64)
    record = jax.jit(jax.vmap(lambda k: estimator(0.0, jnp.zeros(2), key=k)))(jax.random.split(key, 500))
    spread = np.std(record.ratio.value, ddof=1)
    np.testing.assert_allclose(np.mean(record.ratio.standard_error), spread, rtol=0.1)
    naive = np.mean(record.antisymmetric.standard_error / record.jacobian.value / 2)
    assert naive > 10 * spread


def test_scale_leaves_the_ratio_alone_in_single_precision(key):
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)

    @jax.jit
    def scaled(scale):
        return antisymmetry(lambda t, y, args: scale * (matrix @ y))(0.0, jnp.zeros(4), key=key)

    unit = scaled(1.0)
    for scale in (1e-15, 1e-8, 1e8, 1e15):
        record = scaled(scale)
        np.testing.assert_allclose(record.ratio.value, unit.ratio.value, rtol=1e-4)
        np.testing.assert_allclose(record.ratio.standard_error, unit.ratio.standard_error, rtol=1e-4)
        np.testing.assert_allclose(
            np.float64(record.jacobian.standard_error) / scale**2, unit.jacobian.standard_error, rtol=1e-4
        )


def test_edges(key):
    constant = measure(lambda t, y, args: jnp.ones_like(y), jnp.ones(3), key, probes=2)
    assert float(constant.ratio.value) == 0.0 and float(constant.jacobian.value) == 0.0
    single = measure(linear(np.eye(2)), jnp.ones(2), key, probes=1)
    assert np.isnan(single.ratio.standard_error)
    with pytest.raises(ValueError, match="at least one probe"):
        antisymmetry(linear(np.eye(2)), probes=0)
