import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import conservativity, continuity

MEAN = np.array([1.0, -2.0, 0.5])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.2, 1.5]])
TARGET = FACTOR @ FACTOR.T


def covariance(t):
    return t**2 * TARGET + (1 - t) ** 2 * jnp.eye(3)


def velocity(t, y, args):
    """Linear path from N(0, I) to N(MEAN, TARGET), independent coupling."""
    return MEAN + (t * TARGET - (1 - t) * jnp.eye(3)) @ jnp.linalg.solve(covariance(t), y - t * MEAN)


def log_density(t, y, args):
    centred = y - t * MEAN
    _, logarithm = jnp.linalg.slogdet(covariance(t))
    return -0.5 * centred @ jnp.linalg.solve(covariance(t), centred) - 0.5 * logarithm


@pytest.fixture
def marginal(x64, key):
    ts = np.linspace(0.05, 0.95, 40)
    noise = np.asarray(jax.random.normal(key, (2, 40, 3)))
    return ts, jnp.asarray(ts[:, None] * (MEAN + noise[0] @ FACTOR.T) + (1 - ts)[:, None] * noise[1])


def mixed(t, y, args):
    """The true velocity, the velocity of another time, and a drift, in the proportions asked for."""
    return args[0] * velocity(t, y, None) + args[1] * velocity(1 - t, y, None) + args[2] * y


def test_gaussian_to_gaussian_vanishes_and_a_slip_is_of_order_one(marginal):
    def measure(*proportions):
        return continuity(mixed, log_density, *marginal, jnp.tile(jnp.array(proportions), (40, 1)))

    right = measure(1.0, 0.0, 0.0)
    assert right.residual.value < 1e-12 and right.relative.value < 1e-12 and abs(right.bias.value) < 1e-12
    assert right.divergence.value > 0.5 and right.advection.value > 0.5 and right.time_derivative.value > 0.5
    for wrong in ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (2.0, 0.0, 0.0), (1.0, 0.0, 0.5)):
        record = measure(*wrong)
        assert record.relative.value > 0.2
        assert record.relative.value > 5 * record.relative.standard_error


def test_terms_match_plain_derivatives(marginal):
    ts, ys = marginal

    def slow(t, y):
        v = jnp.sin(y) * t
        terms = jax.grad(log_density)(t, y, None), v @ jax.grad(log_density, 1)(t, y, None), jnp.sum(jnp.cos(y)) * t
        return jnp.stack(terms)

    terms = np.asarray(jax.vmap(slow)(ts, ys))
    record = continuity(lambda t, y, args: jnp.sin(y) * t, log_density, ts, ys)
    rms = np.sqrt((terms**2).mean(0))
    np.testing.assert_allclose(record.time_derivative.value, rms[0], rtol=1e-12)
    np.testing.assert_allclose(record.advection.value, rms[1], rtol=1e-12)
    np.testing.assert_allclose(record.divergence.value, rms[2], rtol=1e-12)
    residual = terms.sum(1)
    np.testing.assert_allclose(record.residual.value, np.sqrt((residual**2).mean()), rtol=1e-12)
    np.testing.assert_allclose(record.bias.value, residual.mean(), rtol=1e-10)
    relative = np.sqrt((residual**2).mean() / (terms**2).sum(1).mean())
    np.testing.assert_allclose(record.relative.value, relative, rtol=1e-12)
    error = np.std(residual**2, ddof=1) / np.sqrt(len(ts)) / (2 * record.residual.value)
    np.testing.assert_allclose(record.residual.standard_error, error, rtol=1e-10)


def test_standard_errors_match_the_spread(key):
    def field(t, y, args):
        return jnp.sin(2 * y)

    @jax.jit
    @jax.vmap
    def measure(k):
        record = continuity(field, lambda t, y, args: -0.5 * jnp.sum(y**2), 0.5, jax.random.normal(k, (400, 1)))
        return record.residual, record.relative

    for estimate in measure(jax.random.split(key, 500)):
        np.testing.assert_allclose(np.mean(estimate.standard_error), np.std(estimate.value, ddof=1), rtol=0.15)


def test_gauge_freedom(marginal):
    # A turn along the level sets of p keeps the continuity equation and breaks conservativity: div r = 0, r·∇log p = 0.
    ts, ys = marginal
    skew = np.array([[0.0, 1.0, -2.0], [-1.0, 0.0, 0.5], [2.0, -0.5, 0.0]])

    def turned(t, y, args):
        return velocity(t, y, args) + skew @ jnp.linalg.solve(covariance(t), y - t * MEAN)

    record = continuity(turned, log_density, ts, ys)
    assert record.relative.value < 1e-12
    plain = conservativity(turned, ts, ys, key=jax.random.key(0), probes=16)
    assert plain.pooled_antisymmetry.value > 0.1 and plain.net_work.value > 0.1


def test_pytree_condition_dtype_and_table():
    def field(t, y, args):
        return {"a": args * y["a"], "b": args * y["b"]}

    def density(t, y, args):
        # N(0, e^{2 args t}) on three coordinates
        squares = jnp.sum(y["a"] ** 2) + y["b"] ** 2
        return -0.5 * squares * jnp.exp(-2 * args * t) - 3 * args * t

    ys = {"a": jnp.arange(8.0).reshape(4, 2) / 8, "b": jnp.arange(4.0) / 4}
    record = continuity(field, density, 0.5, ys, jnp.array([0.1, 0.5, 1.0, 2.0]))
    assert record.relative.value < 1e-6
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(record)} == {"float32"}
    assert "residual / terms" in record.table() and "4 samples" in record.table()
