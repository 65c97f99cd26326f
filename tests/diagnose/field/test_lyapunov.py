import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import lyapunov


def lorenz(t, y, args):
    x, y, z = y
    return jnp.array([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z])


def test_lorenz(key):
    # In single precision, at late times too: the step's length must not be had from the clock.
    record = lyapunov(lorenz, jnp.array([1.0, 2.0, 20.0]), t1=800.0, steps=80_000, key=key)
    values, errors = record.exponents.value, record.exponents.standard_error
    known = np.array([0.9056, 0.0, -14.572])
    assert (errors < jnp.array([0.02, 0.01, 0.03])).all()
    assert (abs(values - known) < 4 * errors + 0.002).all()
    # The divergence is −41/3 everywhere.
    np.testing.assert_allclose(record.sum.value, -41 / 3, rtol=2e-4)
    np.testing.assert_allclose(record.dimension, 2.062, atol=0.004)
    np.testing.assert_allclose(record.duration, 720.0, rtol=1e-3)
    assert "exponent 3" in record.table() and "Kaplan–Yorke" in record.table()


def test_linear_field_has_the_real_parts_of_its_eigenvalues(x64, key):
    basis = np.asarray(jax.random.normal(key, (4, 4)))
    block = np.zeros((4, 4))
    block[:2, :2] = [[0.3, -2.0], [2.0, 0.3]]
    block[2, 2], block[3, 3] = -0.5, -1.5
    matrix = jnp.asarray(basis @ block @ np.linalg.inv(basis))
    record = lyapunov(lambda t, y, args: matrix @ y, jnp.zeros(4), t1=400.0, steps=8000, discard=0.3, key=key)
    # The complex pair turns in its plane, so its two exponents are averages over turns.
    np.testing.assert_allclose(record.exponents.value, [0.3, 0.3, -0.5, -1.5], atol=5e-3)
    np.testing.assert_allclose(record.sum.value, -1.4, atol=1e-8)
    np.testing.assert_allclose(record.entropy.value, 0.6, atol=5e-3)
    few = lyapunov(lambda t, y, args: matrix @ y, jnp.zeros(4), t1=400.0, steps=8000, count=2, key=key)
    assert few.exponents.value.shape == (2,) and np.isnan(few.dimension)


def test_diagonal_field_in_a_tree_is_exact_and_euler_gives_its_own_factor(x64, key):
    def field(t, y, args):
        return {"a": args * y["a"], "b": -0.5 * y["b"]}

    y0 = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    exact = lyapunov(field, y0, 0.25, t1=200.0, steps=4000, discard=0.5, key=key)
    np.testing.assert_allclose(exact.exponents.value, [0.25, -0.5], atol=1e-9)
    np.testing.assert_allclose(exact.dimension, 1.5, atol=1e-8)
    euler = lyapunov(field, y0, 0.25, t1=200.0, steps=400, discard=0.5, method=diffrax.Euler(), key=key)
    np.testing.assert_allclose(euler.exponents.value, np.log1p([0.125, -0.25]) / 0.5, atol=1e-9)


def test_faults_speak(key):
    with pytest.raises(ValueError, match="stays finite"):
        lyapunov(lambda t, y, args: y**2, jnp.array([5.0]), t1=9.0, steps=100, key=key)
    with pytest.raises(ValueError, match="1 to 2 exponents"):
        lyapunov(lambda t, y, args: y, jnp.ones(2), t1=1.0, steps=100, count=3, key=key)
    with pytest.raises(ValueError, match="blocks of at least one step each, got 10 steps"):
        lyapunov(lambda t, y, args: y, jnp.ones(2), t1=1.0, steps=10, key=key)
    with pytest.raises(ValueError, match="t1 > t0"):
        lyapunov(lambda t, y, args: y, jnp.ones(2), t1=-1.0, steps=100, key=key)


def test_the_same_call_is_compiled_once(key):
    traced = []

    def field(t, y, args):
        traced.append(t)
        return jax.tree.map(lambda leaf: -args * leaf, y)

    for rate, start in ((1.0, 1.0), (2.0, 0.5)):
        once = len(traced)
        y0 = {"a": jnp.full(2, start)}
        record = lyapunov(field, y0, jnp.asarray(rate), t1=1.0, steps=64, key=key)
        np.testing.assert_allclose(record.exponents.value, -rate, rtol=1e-3)
    assert len(traced) == once > 0
