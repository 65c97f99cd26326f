import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import sensitivity


def test_every_order_of_a_known_function(x64, key):
    xs = jax.random.normal(key, (70, 3))
    cs = jax.random.uniform(key, (70,))
    record = sensitivity(lambda x, c: jnp.sin(2 * x[0]) * c + x[1] ** 4 + x[0] * x[1] + 0 * x[2], xs, cs)
    x, y, c = np.asarray(xs[:, 0]), np.asarray(xs[:, 1]), np.asarray(cs)
    none = np.zeros(70)
    expected = np.array(
        [
            [2 * c * np.cos(2 * x) + y, 4 * y**3 + x, none],
            [-4 * c * np.sin(2 * x), 12 * y**2, none],
            [-8 * c * np.cos(2 * x), 24 * y, none],
        ]
    )
    np.testing.assert_allclose(record.signed.value, expected.mean(2), atol=1e-12)
    np.testing.assert_allclose(record.magnitude.value, np.abs(expected).mean(2), atol=1e-12)
    np.testing.assert_allclose(record.signed.standard_error, expected.std(2, ddof=1) / np.sqrt(70), atol=1e-12)


def test_the_loss_of_a_model_that_fits_shows_the_strength_at_second_order(x64, key):
    weights = jnp.array([2.0, -0.5, 0.0])
    xs = jax.random.normal(key, (20, 3))
    ys = jnp.tanh(xs @ weights)
    record = sensitivity(lambda x, y: 0.5 * (jnp.tanh(x @ weights) - y) ** 2, xs, ys, names=("a", "b", "c"))
    slope = (1 - ys**2)[:, None] * weights[None]
    bend = -2 * (ys * (1 - ys**2))[:, None] * weights[None] ** 2
    np.testing.assert_allclose(record.signed.value[0], 0, atol=1e-12)
    np.testing.assert_allclose(record.signed.value[1], np.mean(slope**2, 0), atol=1e-12)
    np.testing.assert_allclose(record.signed.value[2], np.mean(3 * slope * bend, 0), atol=1e-12)
    assert "b: mean size, order 2" in record.table()


def test_edges():
    with pytest.raises(ValueError, match="a name for each feature"):
        sensitivity(lambda x, args: jnp.sum(x), jnp.ones((2, 3)), names=("a",))
    record = sensitivity(lambda x, args: jnp.sum(x), jnp.ones((1, 3)))
    assert np.isnan(record.signed.standard_error).all() and record.signed.value.dtype == jnp.float32
    whole = sensitivity(lambda x, args: jnp.sum(x**2), jnp.arange(6).reshape(2, 3))
    np.testing.assert_allclose(whole.signed.value[0], [3.0, 5.0, 7.0])
