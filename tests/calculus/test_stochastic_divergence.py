import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import stochastic_divergence, value_and_stochastic_divergence

MATRIX = np.random.default_rng(3).normal(size=(6, 6))
SYMMETRIC = (MATRIX + MATRIX.T) / 2
VARIANCE = {
    "normal": 2 * np.sum(SYMMETRIC**2),
    "rademacher": 2 * (np.sum(SYMMETRIC**2) - np.sum(np.diag(SYMMETRIC) ** 2)),
}


def linear(t, y, args):
    return jnp.asarray(MATRIX, y.dtype) @ y


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_unbiased_with_the_variance_of_theory(x64, key, distribution):
    estimator = stochastic_divergence(linear, probes=19_200, distribution=distribution)
    estimate = jax.jit(lambda k: estimator(0.0, jnp.zeros(6), key=k))(key)
    error = np.sqrt(VARIANCE[distribution] / 19_200)
    np.testing.assert_allclose(estimate.standard_error, error, rtol=0.03)
    assert abs(estimate.value - np.trace(MATRIX)) < 4 * error


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_two_standard_errors_cover_nineteen_times_in_twenty(key, distribution):
    estimator = stochastic_divergence(linear, probes=64, distribution=distribution)
    estimates = jax.jit(jax.vmap(lambda k: estimator(0.0, jnp.zeros(6), key=k)))(jax.random.split(key, 2000))
    covered = np.abs(estimates.value - np.trace(MATRIX)) < 2 * estimates.standard_error
    # 64 probes of a skewed draw cover a little less than the normal 95.4 %; 2000 repeats pin it to ±0.5 %.
    assert 0.93 < covered.mean() < 0.97


def test_rademacher_is_exact_on_a_diagonal_jacobian(key):
    estimate = stochastic_divergence(lambda t, y, args: 2 * y, probes=3)(0.0, jnp.ones(5), key=key)
    assert float(estimate.value) == 10.0 and float(estimate.standard_error) == 0.0


def test_one_probe_has_an_unknown_error(key):
    dy, estimate = value_and_stochastic_divergence(linear)(0.0, jnp.ones(6), key=key)
    np.testing.assert_allclose(dy, MATRIX.sum(1), rtol=1e-5)
    assert np.isfinite(estimate.value) and np.isnan(estimate.standard_error)


def test_leaves_of_a_pytree_get_independent_probes(x64, key):
    # f = (z, x) on two scalars: vᵀJv = 2 v_x v_z, which averages to zero only when the probes differ.
    def swap(t, y, args):
        return {"x": y["z"], "z": y["x"]}

    y = {"x": jnp.ones(()), "z": jnp.ones(())}
    estimate = jax.jit(lambda k: stochastic_divergence(swap, probes=3840)(0.0, y, key=k))(key)
    assert abs(estimate.value) < 4 * estimate.standard_error
    np.testing.assert_allclose(estimate.standard_error, 2 / np.sqrt(3840), rtol=0.05)


def test_faults_speak():
    with pytest.raises(ValueError, match="rademacher"):
        stochastic_divergence(linear, distribution="cauchy")
    with pytest.raises(ValueError, match="at least one probe"):
        stochastic_divergence(linear, probes=0)
