"""Proxy descent: closed forms on quadratics, and what it is where the proxy is the objective or nothing."""

import jax
import numpy as np
import pytest

from nablax import optimize

RANDOM = np.random.default_rng(0)
A = RANDOM.normal(size=(3, 3))
A = A @ A.T + np.eye(3)
B = 0.5 * A + np.diag([0.3, 0.1, 0.2])
START = np.array([1.0, -2.0, 0.5])


def objective(x):
    return x @ A @ x / 2


@pytest.mark.parametrize("proxy", ["objective", "nothing", "another"])
def test_on_quadratics_each_step_is_a_linear_map(x64, proxy):
    """x − (B + I/η)⁻¹Ax: the proximal point where B = A, descent where B = 0."""
    curvature = {"objective": A, "nothing": np.zeros((3, 3)), "another": B}[proxy]
    rate, steps = 0.15, 4
    found = optimize.proxy_descent(
        objective, lambda x: x @ curvature @ x / 2, START, rate=rate, steps=steps, inner_steps=15
    )
    x = START
    for step in range(steps):
        np.testing.assert_allclose(found.values[step], objective(x), rtol=1e-6)
        x = x - np.linalg.solve(curvature + np.eye(3) / rate, A @ x)
    np.testing.assert_allclose(found.params, x, atol=1e-6)
    assert found.converged and np.all(found.left < 1e-5)
    if proxy == "objective":
        np.testing.assert_allclose(x, np.linalg.matrix_power(np.linalg.inv(np.eye(3) + rate * A), steps) @ START)


def test_the_objective_may_be_of_a_batch_drawn_with_a_key(x64, key):
    def noisy(x, *, key):
        return objective(x) + jax.random.normal(key, (3,)) @ x

    def run(key):
        return optimize.proxy_descent(noisy, lambda x: 0 * x[0], START, rate=0.1, steps=3, inner_steps=3, key=key)

    x, found = START, run(key)
    for k in jax.random.split(key, 3):
        x = x - 0.1 * (A @ x + np.asarray(jax.random.normal(k, (3,))))
    np.testing.assert_allclose(found.params, x, atol=1e-8)
    with pytest.raises(ValueError, match="a key for the objective's batches"):
        run(None)


def test_few_inner_steps_are_told_and_so_is_what_diverges(x64):
    short = optimize.proxy_descent(objective, objective, START, rate=10.0, steps=2, inner_steps=1)
    assert np.all(short.left > 0.01)
    settings = {"rate": 1e6, "steps": 60, "inner_steps": 3}
    assert not optimize.proxy_descent(objective, lambda x: 0 * x[0], START, throw=False, **settings).converged
    with pytest.raises(Exception, match="expected values of the objective that stay finite"):
        optimize.proxy_descent(objective, lambda x: 0 * x[0], START, **settings).values.block_until_ready()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.proxy_descent(objective, 3, START, rate=0.1, steps=1), "proxy"),
        (lambda: optimize.proxy_descent(objective, objective, START, rate=0.0, steps=1), "rate above 0"),
        (lambda: optimize.proxy_descent(objective, objective, np.arange(3), rate=0.1, steps=1), "start"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
