import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import intrinsic_dimension

SIGMA = 0.02


def subspace(dim, intrinsic, key):
    """Points of N(0, diag(1..)) on a random subspace, and the score of their law blurred by ``SIGMA``."""
    basis = jnp.linalg.qr(jax.random.normal(key, (dim, dim)))[0]
    variances = jnp.where(jnp.arange(dim) < intrinsic, jnp.linspace(1.0, 2.0, dim), 0.0)
    ys = (jax.random.normal(key, (200, dim)) * jnp.sqrt(variances)[None]) @ basis.T
    precision = basis @ jnp.diag(1 / (variances + SIGMA**2)) @ basis.T
    return ys, precision, basis


@pytest.mark.parametrize(("dim", "intrinsic"), [(6, 0), (10, 3), (10, 9), (5, 5)])
def test_gaussian_on_a_subspace(dim, intrinsic, key):
    ys, precision, _ = subspace(dim, intrinsic, key)
    record = intrinsic_dimension(lambda t, y, args: -precision @ y, 0.0, ys, sigma=SIGMA)
    # Off by σ² × a few, and by rounding of numbers of order 1/σ².
    np.testing.assert_allclose(record.dimension.value, intrinsic, atol=0.01)
    assert record.spectral.value == intrinsic
    np.testing.assert_allclose(record.singular_values[: dim - intrinsic], 1, atol=1e-4)
    assert (record.singular_values[dim - intrinsic :] < 1e-3).all()
    assert record.antisymmetry.value < 1e-6 and "trusted" not in record.table()


def sphere_score(sphere_dim):
    """Uniform law on the unit sphere in the first coordinates, blurred: by Bessel functions, whose limit serves here.

    log p(y) is, to first order in σ², −(r − 1)²/2σ² − (sphere_dim/2) log r − ‖rest‖²/2σ², r the radius.
    """

    def log_density(y):
        radius = jnp.linalg.norm(y[: sphere_dim + 1])
        return -0.5 * ((radius - 1) ** 2 + jnp.sum(y[sphere_dim + 1 :] ** 2)) / SIGMA**2 - sphere_dim / 2 * jnp.log(
            radius
        )

    return lambda t, y, args: jax.grad(log_density)(y)


@pytest.mark.parametrize("probes", [None, 64])
def test_sphere(probes, key):
    ys = jax.random.normal(key, (300, 8)) * (jnp.arange(8) < 4)[None]
    ys = ys / jnp.linalg.norm(ys, axis=1, keepdims=True)
    given = {} if probes is None else {"probes": probes, "key": key}
    record = intrinsic_dimension(sphere_score(3), 0.0, ys, sigma=SIGMA, **given)
    np.testing.assert_allclose(record.dimension.value, 3, atol=0.02 if probes is None else 0.3)
    if probes is None:
        assert record.spectral.value == 3
    else:
        assert record.spectral is None and record.dimension.standard_error < 0.1
        assert abs(record.dimension.value - 3) < 4 * record.dimension.standard_error + 0.02


def test_gauge_breaks_it_and_is_marked(key):
    # r = S Σ⁻¹ y with S antisymmetric leaves N(0, Σ) as it is: div r = tr SΣ⁻¹ = 0 and r·∇log p = −yᵀΣ⁻ᵀSΣ⁻¹y = 0.
    ys, precision, basis = subspace(10, 4, key)
    turn = jnp.zeros((10, 10)).at[0, 1].set(1.0).at[1, 0].set(-1.0) / SIGMA**2
    gauge = basis @ turn @ basis.T @ precision
    assert abs(jnp.trace(gauge)) < 1e-3 * jnp.linalg.norm(gauge)
    record = intrinsic_dimension(lambda t, y, args: (gauge - precision) @ y, 0.0, ys, sigma=SIGMA)
    assert record.spectral.value == 2 and record.dimension.value > 100
    assert record.antisymmetry.value > 0.1 and "can be trusted" in record.table()


def test_trees_conditions_and_double_precision(x64):
    def score(t, y, args):
        return {"a": -y["a"] / args, "b": -y["b"] / SIGMA**2}

    ys = {"a": jnp.array([0.5, -1.0]), "b": jnp.zeros((2, 3))}
    record = intrinsic_dimension(score, 0.0, ys, jnp.array([1.0, 2.0]), sigma=SIGMA)
    expected = 4 + SIGMA**2 * np.mean([0.25 - 1, 0.25 - 0.5]) - 3
    np.testing.assert_allclose(record.dimension.value, expected, rtol=1e-12)
    assert record.dimension.value.dtype == jnp.float64


def test_faults_speak(key):
    score = lambda t, y, args: -y  # noqa: E731
    with pytest.raises(ValueError, match="positive sigma"):
        intrinsic_dimension(score, 0.0, jnp.ones((2, 2)), sigma=0.0)
    with pytest.raises(ValueError, match="probes and key"):
        intrinsic_dimension(score, 0.0, jnp.ones((2, 2)), sigma=0.1, probes=2)
