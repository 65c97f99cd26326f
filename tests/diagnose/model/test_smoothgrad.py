import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import smoothgrad


def test_quadratic_scores_have_known_mean_and_error(x64, key):
    matrices = np.random.default_rng(0).normal(size=(3, 6, 6))
    matrices = jnp.asarray(matrices + matrices.transpose(0, 2, 1))
    offsets = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6)))
    xs = jax.random.normal(key, (4, 6))
    labels = jnp.array([0, 2, 1, 2])
    draws = 4000

    def scores(x):
        return jnp.einsum("i,cij,j->c", x, matrices, x) / 2 + offsets @ x

    record = smoothgrad(scores, xs, labels, key=key, draws=draws, noise=0.1)
    chosen = np.asarray(matrices)[np.asarray(labels)]
    expected = np.einsum("sij,sj->si", chosen, xs) + np.asarray(offsets)[np.asarray(labels)]
    deviation = 0.1 * (np.max(xs, axis=1) - np.min(xs, axis=1))
    errors = deviation[:, None] * np.sqrt(np.sum(chosen**2, axis=2) / draws)
    np.testing.assert_allclose(record.plain, expected, rtol=1e-10)
    np.testing.assert_allclose(record.deviation, deviation, rtol=1e-10)
    np.testing.assert_allclose(record.gradient.standard_error, errors, rtol=0.06)
    assert np.all(np.abs(record.gradient.value - expected) < 4.5 * errors)


def test_a_wave_is_damped_by_the_blur(x64, key):
    # E cos(w·(x + ε)) = cos(w·x) exp(−σ²‖w‖²/2): at this noise the mean is a third of the plain gradient.
    wave = jnp.array([3.0, -2.0, 1.0])
    x = jnp.array([[0.1, 0.2, 1.1]])
    record = smoothgrad(lambda y: jnp.sin(y @ wave)[None], x, key=key, noise=0.4, draws=20_000)
    expected = np.exp(-(0.4**2) * 14 / 2) * np.asarray(record.plain)
    assert np.all(np.abs(record.gradient.value - expected) < 4 * record.gradient.standard_error)
    assert np.all(record.gradient.standard_error < 0.05 * np.abs(expected))
    np.testing.assert_allclose(record.agreement.value, 1.0, rtol=1e-6)


def test_linear_scores_and_defaults(key):
    weights = jax.random.normal(key, (3, 4, 4, 2))
    xs = jax.random.normal(key, (5, 4, 4, 2))

    def scores(x):
        return jnp.einsum("chwk,hwk->c", weights, x)

    record = smoothgrad(scores, xs, key=key, draws=3)
    best = np.argmax(jax.vmap(scores)(xs), axis=1)
    np.testing.assert_array_equal(record.labels, best)
    np.testing.assert_allclose(record.gradient.value, np.asarray(weights)[best], rtol=1e-5)
    np.testing.assert_allclose(record.gradient.standard_error, 0, atol=1e-6)
    pictures = record.pictures(channels=-1)
    assert pictures.shape == (5, 4, 4) and float(pictures.max()) == 1 and float(pictures.min()) >= 0
    sizes = np.abs(np.asarray(weights)[best]).sum(-1)
    sizes = sizes / np.percentile(sizes.reshape(5, -1), 99, axis=1)[:, None, None]
    np.testing.assert_allclose(pictures, np.minimum(sizes, 1), rtol=1e-4)
    assert record.gradient.value.dtype == jnp.float32
    assert "5 samples, 3 draws each" in record.table()
    single = smoothgrad(scores, xs, key=key, draws=1)
    assert np.isnan(single.gradient.standard_error).all() and np.isnan(single.resolved.value)
    with pytest.raises(ValueError, match="draws as a whole number, at least 1"):
        smoothgrad(scores, xs, key=key, draws=0)
    with pytest.raises(ValueError, match="leading axis"):
        smoothgrad(scores, xs, jnp.zeros(4, jnp.int32), key=key)
