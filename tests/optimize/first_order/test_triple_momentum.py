"""Triple momentum: the paper's three sequences, the rate of its theorem, and where heavy ball goes round in circles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

LARGEST, SMALLEST = 25.0, 1.0


def path(rule, gradient, start, steps, read=lambda state, x: x):
    def step(carry, _):
        x, state = carry
        update, state = rule.update(gradient(x), state, x)
        x = optax.apply_updates(x, update)
        return (x, state), read(state, x)

    return np.asarray(jax.jit(lambda x: jax.lax.scan(step, (x, rule.init(x)), length=steps)[1])(start))


def proper(state, x):
    return optimize.triple_momentum_eval_params(state, x, 1 / LARGEST, SMALLEST)


def test_it_is_the_papers_three_sequences(x64):
    """By hand from the rate of contraction, on a function that is no quadratic."""

    def gradient(x):
        return SMALLEST * x + (LARGEST - SMALLEST) * jnp.tanh(x)

    rho = 1 - np.sqrt(SMALLEST / LARGEST)
    alpha, beta = (1 + rho) / LARGEST, rho**2 / (2 - rho)
    gamma, delta = rho**2 / ((1 + rho) * (2 - rho)), rho**2 / (1 - rho**2)
    start = jnp.array([2.0, -0.3])
    rule = optimize.triple_momentum(1 / LARGEST, SMALLEST)
    found = path(rule, gradient, start, 12, lambda state, y: jnp.stack([y, proper(state, y)]))
    xi = before = np.asarray(start)
    for y_found, x_found in found:
        y = (1 + gamma) * xi - gamma * before
        xi, before = (1 + beta) * xi - beta * before - alpha * np.asarray(gradient(y)), xi
        np.testing.assert_allclose(y_found, (1 + gamma) * xi - gamma * before, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(x_found, (1 + delta) * xi - delta * before, rtol=1e-9, atol=1e-13)


def test_on_quadratics_the_rates_are_those_of_the_theorems(x64):
    """Triple momentum and Nesterov 1 − 1/√κ = 0.8 on the worst of them; heavy ball, tuned for them, (√κ − 1)/(√κ + 1)."""
    curvature = jnp.linspace(SMALLEST, LARGEST, 13)
    root = np.sqrt(LARGEST / SMALLEST)
    beta = (root - 1) / (root + 1)
    rules = [
        (0.8, 1, optimize.triple_momentum(1 / LARGEST, SMALLEST)),
        (0.8, 2, optax.sgd(1 / LARGEST, beta, nesterov=True)),
        (beta, 2, optax.sgd(4 / (np.sqrt(LARGEST) + np.sqrt(SMALLEST)) ** 2, beta**2)),
    ]
    for rate, roots, rule in rules:
        distances = np.linalg.norm(path(rule, lambda x: curvature * x, jnp.ones(13), 600), axis=1)
        # Of a double root the distance is as the number of steps, times the power.
        observed = (distances[599] / distances[299] / roots) ** (1 / 300)
        np.testing.assert_allclose(observed, rate, atol=1e-3)


def test_where_heavy_ball_goes_round_in_a_cycle_of_three_the_other_two_come_to_rest(x64):
    def gradient(x):
        return jnp.where(x < 1, 25 * x, jnp.where(x < 2, x + 24, 25 * x - 24))

    start = jnp.array(3.3)
    ball = path(optax.sgd(1 / 9, 4 / 9), gradient, start, 300)
    np.testing.assert_allclose(np.sort(ball[-3:]), [-1.8024, 0.6465, 2.1159], atol=1e-4)
    np.testing.assert_allclose(ball[-3:], ball[-6:-3], atol=1e-10)
    triple = path(optimize.triple_momentum(1 / LARGEST, SMALLEST), gradient, start, 300, proper)
    nesterov = path(optax.sgd(1 / LARGEST, 2 / 3, nesterov=True), gradient, start, 300)
    assert abs(triple[-1]) < 1e-20 and abs(nesterov[-1]) < 1e-20
    # The theorem is of this function too: a constant times 0.8 a step.
    assert np.all(np.abs(triple) <= 60 * 0.8 ** np.arange(1, 301))


def test_of_one_curvature_it_is_there_in_a_step(x64):
    rule, x = optimize.triple_momentum(0.5, 2.0), jnp.array([3.0, -1.0])
    update, state = rule.update(2 * x, rule.init(x), x)
    assert not np.any(x + update)
    assert not np.any(optimize.triple_momentum_eval_params(state, x + update, 0.5, 2.0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.triple_momentum(0.1, 11.0), "learning_rate times mu above 0, at most 1"),
        (lambda: optimize.triple_momentum(0.1, 0.0), "mu above 0"),
        (lambda: optimize.triple_momentum(optax.constant_schedule(0.1), 1.0), "a number for learning_rate"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
