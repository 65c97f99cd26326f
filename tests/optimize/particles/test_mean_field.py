"""The fixed point of a game with entropy, solved on a grid; a linear game's normal law; circles without noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from nablax import optimize


def payoff(x, y):
    return jnp.cos(x - y) + 0.5 * jnp.sin(2 * x) + 0.7 * jnp.cos(y)


def test_the_crowds_come_to_the_fixed_point_on_a_grid(key):
    """μ ∝ exp(-β∫K dν), ν ∝ exp(β∫K dμ); at a time scale of 4, so that noise of the wrong size would show."""
    beta, grid = 2.0, np.linspace(0, 2 * np.pi, 200, endpoint=False)
    table = np.cos(grid[:, None] - grid) + 0.5 * np.sin(2 * grid)[:, None] + 0.7 * np.cos(grid)
    mu = nu = np.full(200, 1 / 200)
    for _ in range(2000):
        first, second = np.exp(-beta * table @ nu), np.exp(beta * table.T @ mu)
        mu, nu = 0.9 * mu + 0.1 * first / first.sum(), 0.9 * nu + 0.1 * second / second.sum()
    np.testing.assert_allclose(mu, first / first.sum(), atol=1e-9)

    def moments(x):
        return np.stack([np.cos(x), np.sin(x), np.cos(2 * x), np.sin(2 * x)])

    exact = moments(grid) @ np.stack([mu, nu], axis=1)
    starts = tuple(jax.random.uniform(k, (6, 150), maxval=2 * np.pi) for k in jax.random.split(key))

    def play(xs, ys, key):
        return optimize.mean_field_descent_ascent(
            payoff, (xs, ys), steps=500, step_size=0.02, sharpness=beta, timescale=4.0, key=key
        )

    found = jax.vmap(play)(*starts, jax.random.split(key, 6))
    for crowd, wanted in zip(found.params, exact.T):
        each = moments(np.asarray(crowd)).mean(axis=2)  # by moment and run
        error = each.std(axis=1, ddof=1) / np.sqrt(6) + 1 / np.sqrt(2 * 900)
        assert np.all(np.abs(each.mean(axis=1) - wanted) < 3 * error + 0.02), (each.mean(axis=1), wanted)
    assert found.evaluations == 500 * 300


def test_one_step_is_the_mean_gradient_of_all_pairs_and_noise_of_its_size(x64, key):
    """Of a payoff with neither symmetry nor equal crowds; the drift by differences, the noise by its variance."""
    cubic = lambda x, y: x["a"] ** 2 * y + jnp.sin(x["b"] * y)  # noqa: E731
    one, two, three = jax.random.split(key, 3)
    xs = {"a": jax.random.normal(one, (3,)), "b": jax.random.normal(two, (3,))}
    ys = jax.random.normal(three, (5,))
    cold = {"steps": 1, "step_size": 1e-3, "sharpness": 1e30, "timescale": 7.0, "key": key}
    found = optimize.mean_field_descent_ascent(cubic, (xs, ys), **cold)
    a, b, y = (np.asarray(v) for v in (xs["a"], xs["b"], ys))
    down = (2 * a[:, None] * y, y * np.cos(b[:, None] * y))
    np.testing.assert_allclose((found.params[0]["a"] - a) / 1e-3, -down[0].mean(axis=1), atol=1e-9)
    np.testing.assert_allclose((found.params[0]["b"] - b) / 1e-3, -down[1].mean(axis=1), atol=1e-9)
    up = a[:, None] ** 2 + b[:, None] * np.cos(b[:, None] * y)
    np.testing.assert_allclose((found.params[1] - y) / 7e-3, up.mean(axis=0), atol=1e-9)
    flat = lambda x, y: 0.0 * x * y  # noqa: E731
    crowds = (jnp.zeros(4000), jnp.zeros(4000))
    hot = optimize.mean_field_descent_ascent(
        flat, crowds, steps=1, step_size=0.1, sharpness=2.0, timescale=9.0, key=key
    )
    for crowd, variance in zip(hot.params, (0.1, 0.9)):
        assert abs(np.var(crowd) / variance - 1) < 5 * np.sqrt(2 / 4000)


def test_without_noise_crowds_circle(key):
    """Matching pennies on a circle has no pure equilibrium: the payoff keeps on going round."""
    angles = (jnp.array([0.3]), jnp.array([1.1]))
    rolling = lambda x, y: jnp.cos(x - y)  # noqa: E731
    found = optimize.mean_field_descent_ascent(rolling, angles, steps=300, step_size=0.1, sharpness=1e30, key=key)
    assert abs(float(found.params[0][0]) - 0.3) > 3  # they chase each other round and round


def test_what_cannot_be_is_refused(key):
    with pytest.raises(ValueError, match="two crowds"):
        optimize.mean_field_descent_ascent(payoff, jnp.ones(3), steps=1, key=key)
    with pytest.raises(ValueError, match="timescale above 0"):
        optimize.mean_field_descent_ascent(payoff, (jnp.ones(3), jnp.ones(3)), steps=1, timescale=0.0, key=key)
    with pytest.raises(ValueError, match="particles, at least 1, on a leading axis"):
        optimize.mean_field_descent_ascent(payoff, (jnp.ones(()), jnp.ones(3)), steps=1, key=key)
    broken = lambda x, y: jnp.log(-1 - x**2 - y**2)  # noqa: E731
    found = optimize.mean_field_descent_ascent(broken, (jnp.ones(2), jnp.ones(2)), steps=1, key=key, throw=False)
    assert found.result != optimistix.RESULTS.successful


def test_settings_of_double_precision_leave_single_precision_what_it_is(x64, key):
    start = (jnp.ones(3, jnp.float32), jnp.ones(2, jnp.float32))
    settings = {"step_size": 0.01, "timescale": 2.0, "sharpness": 3.0}
    plain = optimize.mean_field_descent_ascent(payoff, start, steps=3, key=key, **settings)
    settings = {name: np.float64(value) for name, value in settings.items()}
    wide = optimize.mean_field_descent_ascent(payoff, start, steps=3, key=key, **settings)
    for one, other in zip(wide.params, plain.params):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-5)
    with pytest.raises(ValueError, match="crowds of real floating-point numbers"):
        optimize.mean_field_descent_ascent(payoff, (jnp.ones(3), jnp.ones(2, int)), steps=1, key=key)
