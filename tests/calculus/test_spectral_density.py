"""Quadrature against the whole spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import spectral_density


@pytest.fixture
def matrix(key):
    square = jax.random.normal(key, (40, 40))
    return square + square.T


def run(matrix, key, **options):
    like = jnp.zeros(len(matrix), matrix.dtype)
    return jax.jit(lambda a: spectral_density(lambda v: a @ v, like, key=key, **options))(matrix)


def test_a_full_rule_has_the_eigenvalues_and_the_squared_overlaps(x64, matrix, key):
    matrix = jnp.asarray(matrix, jnp.float64)
    found = run(matrix, key, steps=99, probes=2)
    assert found.nodes.shape == found.weights.shape == (2, 40) and found.dimension == 40
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(found.nodes, np.stack([values] * 2), atol=1e-10)
    for row, probe in zip(found.weights, jax.random.split(key, 2)):
        start = jax.random.normal(probe, (40,), jnp.float64)
        np.testing.assert_allclose(row, (vectors.T @ start / np.linalg.norm(start)) ** 2, atol=1e-10)


def test_a_short_rule_has_the_moments_of_the_same_probes(x64, matrix, key):
    matrix = jnp.asarray(matrix, jnp.float64)
    short, full = run(matrix, key, steps=4, probes=2), run(matrix, key, steps=40, probes=2)
    for power in range(8):
        ours, theirs = (np.sum(np.asarray(r.weights) * np.asarray(r.nodes) ** power, axis=1) for r in (short, full))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    eighth = [np.sum(np.asarray(r.weights) * np.asarray(r.nodes) ** 8, axis=1) for r in (short, full)]
    assert np.all(np.abs(eighth[0] / eighth[1] - 1) > 1e-6)  # exact below degree 2·4, not at it


def test_trace_and_integral_lie_within_their_errors(x64, matrix, key):
    matrix = jnp.asarray(matrix, jnp.float64)
    found = run(matrix, key, steps=10, probes=400)
    exact = np.linalg.eigvalsh(matrix)
    for estimate, truth in ((found.trace(), exact.sum()), (found.integral(jnp.square), (exact**2).sum())):
        assert 0 < estimate.standard_error < 0.2 * np.abs(exact).sum()
        assert abs(estimate.value - truth) < 4 * estimate.standard_error
    # The error itself: the variance of a normalised quadratic form is 2 (n tr A² − (tr A)²) / (n + 2).
    variance = 2 * (40 * (exact**2).sum() - exact.sum() ** 2) / 42
    assert float(found.trace().standard_error) == pytest.approx(np.sqrt(variance / 400), rel=0.15)
    assert np.isnan(run(matrix, key, steps=10, probes=1).trace().standard_error)


def test_density(x64, matrix, key):
    matrix = jnp.asarray(matrix, jnp.float64)
    grid = jnp.linspace(-40.0, 40.0, 401)
    density = run(matrix, key, steps=40, probes=300).density(grid, 3.0)
    assert float(jnp.sum(density.value) * (grid[1] - grid[0])) == pytest.approx(1, abs=1e-6)
    exact = np.linalg.eigvalsh(matrix)
    kernel = np.exp(-0.5 * ((np.asarray(grid)[:, None] - exact[None]) / 3) ** 2) / (3 * np.sqrt(2 * np.pi))
    truth = kernel.mean(1)
    assert np.abs(density.value - truth).max() < 0.1 * truth.max()
    assert np.mean(np.abs(density.value - truth) < 2 * density.standard_error + 1e-12) > 0.8


def test_breakdown_leaves_no_weight_on_what_was_not_seen(key):
    found = run(jnp.diag(jnp.array([2.0] * 6 + [-1.0] * 6)), key, steps=12, probes=3)
    assert np.all(np.isfinite(found.nodes))
    np.testing.assert_allclose(jnp.sum(found.weights, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.where(found.nodes > 0.5, found.nodes, 2), 2, rtol=1e-5)
    zero = run(jnp.zeros((12, 12)), key, steps=12, probes=3)
    np.testing.assert_allclose(zero.trace().value, 0, atol=1e-30)


def test_faults(key):
    for name, value in (("probes", 0), ("probes", 2.0), ("steps", 0), ("steps", 8.5)):
        with pytest.raises(ValueError, match=f"expected {name} as a whole number, at least 1, got {value}"):
            spectral_density(lambda v: v, jnp.ones(3), key=key, **{name: value})
    with pytest.raises(ValueError, match=r"expected key: a random key, got 3\. Pass jax\.random\.key\(0\)"):
        spectral_density(lambda v: v, jnp.ones(3), key=3)
