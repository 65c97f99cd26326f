"""One step against NumPy, the closed form of the consensus of a normal, and a minimum behind barriers."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from nablax import optimize


def bowl(x):
    return jnp.sum(jnp.array([1.0, 4.0]) * x**2) / 2


def agreed(loss, start, sharpness, key):
    """The consensus: a step of length 1 without noise puts every particle there."""
    found = optimize.consensus(loss, start, steps=1, step_size=1.0, noise=0.0, sharpness=sharpness, key=key)
    np.testing.assert_allclose(found.particles, jnp.broadcast_to(found.params[None], start.shape), rtol=1e-9)
    return found.params


def test_the_consensus_of_a_normal_is_a_proximal_step(x64, key):
    """x/(1 + αks²) for each coordinate of curvature k, within five standard errors of so many particles."""
    x, spread, sharpness = jnp.array([1.0, -2.0]), 0.5, 2.0
    start = x[None] + spread * jax.random.normal(key, (100_000, 2))
    shrunk = 1 + sharpness * np.array([1.0, 4.0]) * spread**2
    np.testing.assert_allclose(agreed(bowl, start, sharpness, key), x / shrunk, atol=5 * spread / np.sqrt(20_000))


def test_a_loss_is_what_it_is_above_its_minimum(x64, key):
    start = jax.random.normal(key, (50, 2))
    plain = agreed(bowl, start, 30.0, key)
    np.testing.assert_allclose(agreed(lambda x: bowl(x) + 1e4, start, 30.0, key), plain, rtol=1e-6)
    # At an infinite sharpness, of which e^(-αE) is 0 throughout, it is the best particle.
    values = jax.vmap(bowl)(start)
    np.testing.assert_allclose(agreed(bowl, start, 1e9, key), start[jnp.argmin(values)], rtol=1e-9)
    # Where the loss is no number a particle has no say.
    here = agreed(lambda x: jnp.where(x[0] > 0, jnp.nan, bowl(x)), start, 30.0, key)
    left = start[start[:, 0] <= 0]
    np.testing.assert_allclose(here, agreed(bowl, left, 30.0, key), rtol=1e-9)


@pytest.mark.parametrize(("anisotropic", "dtype"), [(True, np.float64), (False, np.float64), (True, np.float32)])
def test_one_step_moves_and_shakes_each_particle_by_itself(x64, key, anisotropic, dtype):
    start = jax.random.normal(key, (4000, 2), dtype)
    settings = {"step_size": 0.04, "drift": 1.5, "noise": 3.0, "sharpness": 2.0, "anisotropic": anisotropic}
    found = optimize.consensus(bowl, start, steps=1, key=key, **settings)
    weights = np.exp(-2.0 * jax.vmap(bowl)(start))
    away = np.asarray(start - (weights @ start / np.sum(weights))[None])
    reach = away if anisotropic else np.linalg.norm(away, axis=1, keepdims=True)
    drawn = np.asarray(found.particles - start + 1.5 * 0.04 * away) / (3.0 * 0.2 * reach)
    # Independent standard normals, five standard errors about: mean 0, variance 1, fourth moment 3, no correlation.
    assert abs(drawn.mean()) < 5 / np.sqrt(8000) and abs(np.mean(drawn**2) - 1) < 5 * np.sqrt(2 / 8000)
    assert abs(np.mean(drawn**4) - 3) < 5 * np.sqrt(96 / 8000)
    assert abs(np.mean(drawn[:, 0] * drawn[:, 1])) < 5 / np.sqrt(4000)
    assert abs(np.mean(drawn[:-1] * drawn[1:])) < 5 / np.sqrt(8000)
    assert found.particles.dtype == dtype
    np.testing.assert_allclose(
        found.values[0], np.min(jax.vmap(bowl)(start)), rtol=1e-9 if dtype == np.float64 else 1e-5
    )
    assert found.evaluations == 8000


def test_a_minimum_behind_barriers_away_from_zero(key):
    """Rastrigin's, of five numbers, of which descent ends within a barrier of 20 from nearly every start."""

    def rastrigin(tree):
        x = jnp.append(tree["a"], tree["b"]) - jnp.array([1.3, -0.7, 0.2, 2.1, -1.6])
        return jnp.sum(x**2 + 10 * (1 - jnp.cos(2 * jnp.pi * x)))

    one, two = jax.random.split(key)
    start = {"a": jax.random.uniform(one, (300, 4), minval=-3, maxval=3), "b": jax.random.normal(two, (300,))}
    found = optimize.consensus(rastrigin, start, steps=1500, sharpness=lambda step: 10.0 + step / 10, key=key)
    np.testing.assert_allclose(found.params["a"], [1.3, -0.7, 0.2, 2.1], atol=0.02)
    np.testing.assert_allclose(found.params["b"], -1.6, atol=0.02)
    assert found.values.shape == (1501,) and found.values[-1] < 0.2 < 10 < found.values[0]
    assert found.result == optimistix.RESULTS.successful


def test_what_cannot_be_is_refused(key):
    start = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="particles, at least 2, on a leading axis"):
        optimize.consensus(bowl, start[:1], steps=1, key=key)
    with pytest.raises(ValueError, match="particles, at least 2, on a leading axis"):
        optimize.consensus(lambda t: bowl(t[0]), (start, start[:2]), steps=1, key=key)
    with pytest.raises(ValueError, match="sharpness above 0"):
        optimize.consensus(bowl, start, steps=1, sharpness=0.0, key=key)
    with pytest.raises(ValueError, match="a loss that returns one real number"):
        optimize.consensus(lambda x: x, start, steps=1, key=key)
    nowhere = lambda x: jnp.log(-jnp.sum(x**2) - 1)  # noqa: E731
    found = optimize.consensus(nowhere, start, steps=2, key=key, throw=False)
    assert found.result != optimistix.RESULTS.successful
    with pytest.raises(RuntimeError, match="iverge"):
        jax.block_until_ready(optimize.consensus(nowhere, start, steps=2, key=key).params)


def test_a_particle_that_is_nowhere_has_no_say(x64, key):
    start = jax.random.normal(key, (50, 2))
    settings = {"steps": 1, "step_size": 1.0, "noise": 0.0, "sharpness": 2.0, "key": key}
    among = optimize.consensus(bowl, start.at[0].set(jnp.array([jnp.nan, jnp.inf])), **settings)
    np.testing.assert_allclose(among.params, agreed(bowl, start[1:], 2.0, key), rtol=1e-9)


def test_settings_of_double_precision_leave_single_precision_what_it_is(x64, key):
    start = jax.random.normal(key, (20, 2), jnp.float32)
    settings = {"step_size": 0.01, "drift": 1.0, "noise": 7.0, "sharpness": 100.0}
    plain = optimize.consensus(bowl, start, steps=3, key=key, **settings)
    wide = optimize.consensus(bowl, start, steps=3, key=key, **{k: np.float64(v) for k, v in settings.items()})
    assert wide.particles.dtype == jnp.float32
    np.testing.assert_allclose(wide.particles, plain.particles, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [jnp.ones((5, 2), int), {"a": jnp.ones((5, 2)), "b": jnp.arange(5)}, [[1.0], [2.0]]])
def test_particles_of_other_than_floats_are_refused(key, start):
    with pytest.raises(ValueError, match="particles of real floating-point numbers"):
        optimize.consensus(lambda x: jnp.sum(x), start, steps=1, key=key)
