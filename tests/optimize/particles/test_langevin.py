"""Brownian motion on the sphere where there is no loss, and the density of a linear and a quadratic one."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from nablax import optimize


def runs(loss, key, *, dim, count=64, **settings):
    """Independent runs from random starts."""

    def one(key):
        start_key, key = jax.random.split(key)
        return optimize.averaged_langevin(loss, jax.random.normal(start_key, (dim,)), key=key, **settings)

    return jax.vmap(one)(jax.random.split(key, count))


def test_without_a_loss_it_is_brownian_motion(key):
    """Mean 0, covariance I/d; correlation over time e^(-(d-1)t/2), of the drift that keeps it on the sphere."""
    found = runs(lambda x: 0.0 * x[0], key, dim=4, steps=2000, step_size=0.01, even=True)
    np.testing.assert_allclose(jnp.linalg.norm(found.last, axis=1), 1, atol=1e-5)
    mean = np.asarray(found.average).mean(axis=0)
    error = np.asarray(found.average).std(axis=0) / 8
    assert np.all(np.abs(mean - np.eye(4) / 4) < 5 * error + 1e-3)
    together = []
    for steps in (20, 60):  # a time of 0.2 and of 0.6
        starts = jax.vmap(lambda k: jax.random.normal(jax.random.split(k)[0], (4,)))(jax.random.split(key, 2000))
        last = runs(lambda x: 0.0 * x[0], key, dim=4, count=2000, steps=steps, step_size=0.01).last
        begun = starts / jnp.linalg.norm(starts, axis=1, keepdims=True)
        together.append(float(jnp.mean(jnp.sum(last * begun, axis=1))))
    np.testing.assert_allclose(together, np.exp([-0.3, -0.9]), atol=5 * 0.5 / np.sqrt(2000))


def test_averages_are_those_of_the_density(key):
    """Of dθ = -ε∇L dt + dW it is e^(-2εL); in three dimensions cos is then tilted by coth(κ) - 1/κ at κ = 2ε."""
    found = runs(lambda x: -x[2], key, dim=3, steps=4000, step_size=0.01, strength=0.75)
    along = np.asarray(found.average)[:, 2]
    kappa = 1.5
    expected = 1 / np.tanh(kappa) - 1 / kappa
    assert abs(along.mean() - expected) < 5 * along.std() / 8 + 0.01
    # An even loss: E cos² under e^(κ cos²), by quadrature.
    found = runs(lambda x: -(x[2] ** 2), key, dim=3, steps=4000, step_size=0.01, strength=1.0, even=True)
    u = np.linspace(-1, 1, 20_001)
    weights = np.exp(2 * u**2)
    second = np.asarray(found.average)[:, 2, 2]
    assert abs(second.mean() - np.sum(weights * u**2) / np.sum(weights)) < 5 * second.std() / 8 + 0.01
    assert np.mean(np.abs(np.asarray(found.params)[:, 2])) > 0.9


def test_the_average_knows_what_no_state_does(key):
    """A planted cube with a pull so weak that states are as good as random."""
    planted = jnp.eye(20)[3]
    tensor = lambda x: -((x @ planted) ** 3)  # noqa: E731
    found = runs(tensor, key, dim=20, count=8, steps=40_000, step_size=0.005, strength=5.0)
    assert np.mean(np.asarray(found.params)[:, 3]) > 0.85
    assert np.mean(np.abs(np.asarray(found.last)[:, 3])) < 0.35


def test_what_cannot_be_is_refused(key):
    linear = lambda x: x[0]  # noqa: E731
    with pytest.raises(ValueError, match="start"):
        optimize.averaged_langevin(linear, jnp.ones((2, 2)), steps=1, step_size=0.1, key=key)
    with pytest.raises(ValueError, match="step_size above 0"):
        optimize.averaged_langevin(linear, jnp.ones(2), steps=1, step_size=0.0, key=key)
    with pytest.raises(ValueError, match="strength of 0 or more"):
        optimize.averaged_langevin(linear, jnp.ones(2), steps=1, step_size=0.1, strength=-1.0, key=key)
    broken = lambda x: jnp.log(-1 - x[0] ** 2)  # noqa: E731
    found = optimize.averaged_langevin(broken, jnp.ones(2), steps=2, step_size=0.1, key=key, throw=False)
    assert found.result != optimistix.RESULTS.successful


def test_halves_are_computed_with_in_single_precision_and_settings_may_be_double(x64, key):
    settings = {"step_size": 0.01, "strength": 1.0}
    runs = [
        optimize.averaged_langevin(lambda x: -x[0], start, steps=50, key=key, **given)
        for start, given in [
            (jnp.ones(3, jnp.float32), settings),
            (jnp.ones(3, jnp.bfloat16), settings),
            (jnp.ones(3, jnp.float32), {k: np.float64(v) for k, v in settings.items()}),
        ]
    ]
    assert all(found.average.dtype == jnp.float32 for found in runs)
    for found in runs[1:]:
        np.testing.assert_allclose(found.average, runs[0].average, rtol=1e-4)


def test_a_start_without_direction_is_refused(key):
    with pytest.raises(RuntimeError, match="the start is zero"):
        optimize.averaged_langevin(lambda x: x[0], jnp.zeros(3), steps=1, step_size=0.1, key=key)
    with pytest.raises(ValueError, match="start of real floating-point numbers, got i32"):
        optimize.averaged_langevin(lambda x: x[0], jnp.ones(3, int), steps=1, step_size=0.1, key=key)
