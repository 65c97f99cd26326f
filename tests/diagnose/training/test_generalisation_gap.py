import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import generalisation_gap


def squared(mean, x):
    return 0.5 * jnp.sum((mean - x) ** 2)


def logistic(params, example):
    x, y = example
    return jax.nn.softplus(-y * (x @ params["w"] + params["b"])) + 0.1 * jnp.sum(params["w"] ** 4)


def population(key, rows=64):
    x_key, y_key = jax.random.split(key)
    x = jax.random.normal(x_key, (rows, 3))
    return x, jnp.sign(x[:, 0] + jax.random.normal(y_key, (rows,)))


def test_estimating_a_mean_has_a_closed_form(x64, key):
    # One step from θ: test − train = θ·(x̄ − μ) + const, so that the gap moves by η tr Σ / n exactly; two steps
    # differ by η² (1 − η) tr Σ / n, of which the record gives the leading term.
    xs = jax.random.normal(key, (50, 4)) * jnp.arange(1.0, 5.0)[None] + 2
    record = generalisation_gap(squared, jnp.ones(4), xs, learning_rate=0.3, key=key, probes=64)
    covariance = np.cov(np.asarray(xs).T)
    np.testing.assert_allclose(record.covariance_trace.value, np.trace(covariance))
    np.testing.assert_allclose(record.gap.value, 0.3 * np.trace(covariance) / 50)
    gradient = np.asarray(xs).mean(0) - 1
    np.testing.assert_allclose(record.gradient_square.value, gradient @ gradient - np.trace(covariance) / 50)
    np.testing.assert_allclose(record.test.value, -0.3 * record.gradient_square.value)
    expected = -(0.3**2) * np.trace(covariance) / 50
    assert abs(record.decorrelation.value - expected) < 4 * record.decorrelation.standard_error < abs(expected)
    assert "batches of 50" in record.table()


def test_both_formulas_against_many_descents(x64, key):
    # Batches drawn from a finite population, whose loss is the test loss: nothing but the expectation is sampled.
    data, params, rate, size = population(key), {"w": jnp.array([0.2, 0.9, -0.6]), "b": jnp.array(0.3)}, 0.05, 6

    def mean_loss(p, rows):
        return jnp.mean(jax.vmap(lambda i: logistic(p, jax.tree.map(lambda d: d[i], data)))(rows))

    def descend(p, rows):
        return jax.tree.map(lambda q, g: q - rate * g, p, jax.grad(mean_loss)(p, rows))

    def trial(key):
        a, b = jax.random.randint(key, (2, size), 0, 64)
        everything = jnp.arange(64)
        once = descend(params, a)
        gap = (mean_loss(once, everything) - mean_loss(once, a)) - (
            mean_loss(params, everything) - mean_loss(params, a)
        )
        # All four orders, so that the first order in the rate cancels in every trial.
        ends = [mean_loss(descend(descend(params, first), second), everything) for first in (a, b) for second in (a, b)]
        return gap, (ends[1] + ends[2] - ends[0] - ends[3]) / 2

    gaps, differences = jax.jit(jax.vmap(trial))(jax.random.split(key, 20_000))
    record = generalisation_gap(logistic, params, data, learning_rate=rate, key=key, batch_size=size, probes=512)
    # The whole population is given: undo the sample's correction, n/(n − 1).
    exact = 63 / 64
    for found, estimate in ((gaps, record.gap), (differences, record.decorrelation)):
        error = np.hypot(np.std(found) / np.sqrt(len(found)), estimate.standard_error * (found is differences))
        np.testing.assert_allclose(np.mean(found), estimate.value * exact, atol=4 * error, rtol=0.05)
        assert 4 * error < 0.25 * abs(estimate.value)


def test_edges(key):
    with pytest.raises(ValueError, match="at least two examples"):
        generalisation_gap(squared, jnp.ones(2), jnp.ones((1, 2)), learning_rate=0.1, key=key)
    with pytest.raises(ValueError, match="batch_size as a whole number, at least 1"):
        generalisation_gap(squared, jnp.ones(2), jnp.ones((3, 2)), learning_rate=0.1, key=key, batch_size=0)
    xs = jax.random.normal(key, (70, 2))  # more than a chunk, and no multiple of it
    record = generalisation_gap(squared, jnp.ones(2), xs, learning_rate=0.1, key=key)
    np.testing.assert_allclose(record.covariance_trace.value, np.var(xs, axis=0, ddof=1).sum(), rtol=1e-5)
    assert record.gap.value.dtype == jnp.float32


def test_a_schedule_is_compiled_once(key, counted):
    loss, traced = counted
    xs = jax.random.normal(key, (5, 2))
    for rate in (0.1, 0.2):
        once = len(traced)
        record = generalisation_gap(loss, jnp.ones(2), xs, learning_rate=rate, key=key)
        np.testing.assert_allclose(record.gap.value, rate * record.covariance_trace.value / 5, rtol=1e-5)
    assert len(traced) == once > 0
