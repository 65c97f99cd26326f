import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import conservativity


def rotation(t, y, args):
    return jnp.array([-y[1], y[0]])


MIXING = np.random.default_rng(2).normal(size=(3, 6)) / 3


def gradient(t, y, args):
    """Of Σ log cosh(A y) + t |y|⁴ / 80, A not square."""
    return MIXING.T @ jnp.tanh(MIXING @ y) + t * jnp.sum(y**2) * y / 20


def test_rotation_has_the_circulation_of_stokes(x64, key):
    ys = jax.random.normal(key, (9, 2))
    for radius in (0.5, 2.0):
        record = conservativity(rotation, 0.0, ys, key=key, loops=8, radius=radius)
        np.testing.assert_allclose(record.circulation.value, 2 * np.pi * radius**2, rtol=1e-12)
        np.testing.assert_allclose(record.circulation.standard_error, 0.0, atol=1e-12)
        np.testing.assert_allclose(record.quadrature_error, 0.0, atol=1e-12)
        np.testing.assert_allclose(record.antisymmetry.value, 1.0, rtol=1e-12)
        np.testing.assert_allclose(record.pooled_antisymmetry.value, 1.0, rtol=1e-12)


def test_gradient_is_zero_to_quadrature_error(x64, key):
    matrix = np.random.default_rng(0).normal(size=(6, 6))

    def twisted(t, y, twist):
        return gradient(t, y, None) + twist * (matrix - matrix.T) @ y

    ys, ts = jax.random.normal(key, (20, 6)), jnp.linspace(0.0, 1.0, 20)
    record = conservativity(twisted, ts, ys, jnp.zeros(20), key=key)
    assert record.circulation.value < 1e-12 and record.net_work.value < 1e-12
    assert abs(record.antisymmetry.value) < 1e-12 and abs(record.pooled_antisymmetry.value) < 1e-12
    # The zero is of the field, not of the loops: a tenth of rotation is seen at once.
    record = conservativity(twisted, ts, ys, jnp.full(20, 0.1), key=key)
    assert record.circulation.value > 0.1 and record.net_work.value > 5 * record.net_work.standard_error > 0
    assert record.circulation.value > 5 * record.circulation.standard_error
    assert record.pooled_antisymmetry.value > 5 * record.pooled_antisymmetry.standard_error > 0


def test_the_two_tests_agree_on_a_linear_field(x64, key):
    # E(∮)² = π² r⁴ ‖J − Jᵀ‖² / (D (D − 1)), at any radius since the field is linear.
    matrix = np.random.default_rng(1).normal(size=(5, 5))
    ys = jax.random.normal(key, (50, 5))
    record = conservativity(lambda t, y, args: matrix @ y, 0.0, ys, key=key, radius=0.7, loops=3840, nodes=4)
    difference = np.sum((matrix - matrix.T) ** 2)
    expected = np.pi * 0.7**2 * np.sqrt(difference / 20)
    assert abs(record.circulation.value - expected) < 4 * record.circulation.standard_error
    assert record.circulation.standard_error < 0.02 * expected
    share = difference / 4 / np.sum(matrix**2)
    assert abs(record.pooled_antisymmetry.value - share) < 4 * record.pooled_antisymmetry.standard_error


def test_coarse_loops_confess_their_quadrature_error(x64, key):
    def wiggly(t, y, args):
        return jax.grad(lambda z: jnp.sum(jnp.sin(12 * z)))(y)

    ys = jax.random.normal(key, (10, 2))
    coarse = conservativity(wiggly, 0.0, ys, key=key, loops=32, nodes=8, radius=1.0)
    assert coarse.circulation.value > 0.1 and coarse.quadrature_error > 0.1 * coarse.circulation.value


def test_pooled_antisymmetry_covers_the_truth(key):
    # J = [[1, −a], [a, 1]] with a = y₀: pooled share E a² / (1 + E a²) = 1/2 for a ~ N(0, 1).
    def field(t, y, args):
        frozen = jax.lax.stop_gradient(y[0])
        return jnp.array([y[0] - frozen * y[1], frozen * y[0] + y[1]])

    @jax.jit
    @jax.vmap
    def measure(k):
        ys = jax.random.normal(k, (100, 2))
        record = conservativity(field, 0.0, ys, key=k, probes=2, loops=2, nodes=4)
        return record.pooled_antisymmetry

    estimate = measure(jax.random.split(key, 400))
    covered = np.abs(estimate.value - 0.5) < 2 * estimate.standard_error
    assert 0.90 < covered.mean() < 0.98


def test_conditions_and_times_stay_with_their_samples(key):
    # The field is a rotation for condition 1 and a gradient for condition 0.
    def field(t, y, args):
        return args * rotation(t, y, None) + (1 - args) * t * y

    ys, args = jax.random.normal(key, (8, 2)), jnp.array([1.0, 0.0] * 4)
    record = conservativity(field, jnp.linspace(0.1, 0.8, 8), ys, args, key=key, loops=8)
    np.testing.assert_allclose(record.antisymmetry.value, 0.5, rtol=1e-5)
    np.testing.assert_allclose(record.circulation.value, 2 * np.pi * record.radius**2 / np.sqrt(2), rtol=1e-4)


def test_pytree_line_and_table(key):
    def swirl(t, y, args):
        return {"a": -y["b"], "b": y["a"]}

    ys = {"a": jnp.arange(4.0), "b": jnp.arange(4.0) ** 2}
    record = conservativity(swirl, 0.0, ys, key=key, loops=3)
    np.testing.assert_allclose(record.antisymmetry.value, 1.0, rtol=1e-5)
    np.testing.assert_allclose(record.circulation.value, 2 * np.pi * record.radius**2, rtol=1e-5)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(record)} == {"float32"}
    text = record.table()
    assert "antisymmetry, pooled" in text and "std. error" in text and "4 samples, 8 probes each; 3 loops" in text

    line = conservativity(lambda t, y, args: jnp.sin(3 * y), 0.0, jnp.arange(5.0)[:, None], key=key, loops=4)
    np.testing.assert_allclose(line.net_work.value, 0.0, atol=1e-6)
    np.testing.assert_allclose(line.antisymmetry.value, 0.0, atol=1e-6)


def test_faults_speak(key):
    ys = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="leading axis"):
        conservativity(rotation, 0.0, ys, jnp.ones(2), key=key)
    with pytest.raises(ValueError, match="times of shape"):
        conservativity(rotation, jnp.zeros(2), ys, key=key)
    with pytest.raises(ValueError, match="even number of nodes"):
        conservativity(rotation, 0.0, ys, key=key, nodes=7)
    with pytest.raises(ValueError, match="single sample"):
        conservativity(rotation, 0.0, ys[:1], key=key)
    with pytest.raises(ValueError, match="positive radius"):
        conservativity(rotation, 0.0, ys, key=key, radius=-1.0)
