"""Convex training of ReLU networks: all patterns, a closed form, equality of both objectives, a bound that bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

RANDOM = np.random.default_rng(0)
POINTS = np.concatenate([RANDOM.normal(size=(7, 2)), np.ones((7, 1))], axis=1)
TARGETS = np.sin(2 * POINTS[:, 0]) + 0.3 * POINTS[:, 1]
PENALTY = 0.1


@pytest.mark.parametrize(("rows", "dim"), [(5, 1), (6, 2), (7, 3), (12, 3), (7, 4)])
def test_all_patterns_are_found_each_once_and_drawn_ones_are_among_them(key, rows, dim):
    x = np.random.default_rng(rows).normal(size=(rows, dim))
    found = optimize.relu_patterns(x)
    number = 2 * sum(math.comb(rows - 1, k) for k in range(dim))
    # With a unit that is on for all rows there is its opposite, which is off for all and left out.
    assert len(found) == number - int(found.all(axis=1).any()) and found.any(axis=1).all()
    assert len(np.unique(found, axis=0)) == len(found)
    drawn = optimize.relu_patterns(x, 200, key=key)
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in found}


@pytest.fixture(scope="module")
def solved():
    with jax.enable_x64(True):
        patterns = optimize.relu_patterns(POINTS)
        return optimize.convex_relu(POINTS, TARGETS, patterns, penalty=PENALTY, tolerance=1e-5), patterns


def objective(net):
    weights, outputs = net
    left = jax.nn.relu(POINTS @ weights.T) @ outputs - TARGETS
    return jnp.sum(left**2) / 2 + PENALTY / 2 * (jnp.sum(weights**2) + jnp.sum(outputs**2))


def test_the_value_is_the_networks_and_the_bound_is_just_below(x64, solved):
    net, _ = solved
    np.testing.assert_allclose(net.value, objective((net.weights, net.outputs)), rtol=1e-12)
    np.testing.assert_allclose(net(POINTS), jax.nn.relu(POINTS @ net.weights.T) @ net.outputs, rtol=1e-12)
    assert net.converged and 0 <= net.value - net.bound <= 1e-5 * net.value


def test_the_residual_at_the_optimum_meets_the_dual_condition_for_random_units(x64, solved):
    """max |rᵀ(Xu)₊| over units of length one is β: no unit that could be added would help."""
    net, _ = solved
    left = TARGETS - np.asarray(net(POINTS))
    units = np.random.default_rng(1).normal(size=(20_000, 3))
    gains = np.maximum(POINTS @ (units / np.linalg.norm(units, axis=1, keepdims=True)).T, 0).T @ left
    assert 0.9 * PENALTY < np.abs(gains).max() < 1.02 * PENALTY


def test_no_descent_goes_below_the_bound_and_many_starts_come_near(x64, solved):
    net, _ = solved

    def trained(key):
        first, second = jax.random.split(key)
        params = jax.random.normal(first, (20, 3)) * 0.5, jax.random.normal(second, (20,)) * 0.5
        rule = optax.adam(0.03)

        def step(carry, _):
            params, state = carry
            updates, state = rule.update(jax.grad(objective)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, rule.init(params)), length=3000)
        return objective(params)

    values = np.asarray(jax.jit(jax.vmap(trained))(jax.random.split(jax.random.key(0), 10)))
    assert np.all(values > net.bound) and values.min() < 1.02 * net.value


def test_fewer_patterns_give_no_less_and_what_is_known_of_all_bounds_it(x64, solved):
    net, patterns = solved
    some = optimize.convex_relu(POINTS, TARGETS, patterns[::6], penalty=PENALTY, tolerance=1e-4)
    assert some.value > net.value and some.bound > net.bound and some.converged


def test_one_row_has_a_closed_form(x64):
    """½(|x|·c − y)² + βc has its least at c = (|x|y − β)/|x|², a single unit along x."""
    x, y, penalty = np.array([[3.0, 4.0]]), np.array([2.0]), 0.5
    net = optimize.convex_relu(x, y, np.array([[True]]), penalty=penalty, tolerance=1e-8)
    c = (5 * 2.0 - penalty) / 25
    np.testing.assert_allclose(net.value, 0.5 * (5 * c - 2) ** 2 + penalty * c, rtol=1e-7)
    unit = np.sum(net.weights, axis=0)
    np.testing.assert_allclose(unit / np.linalg.norm(unit), [0.6, 0.8], atol=1e-4)


def test_where_the_penalty_is_too_large_nothing_is_the_best_network(x64):
    net = optimize.convex_relu(POINTS, TARGETS, optimize.relu_patterns(POINTS), penalty=1e3, tolerance=1e-6)
    assert not np.any(net.weights) and net.converged
    np.testing.assert_allclose([net.value, net.bound], np.sum(TARGETS**2) / 2, rtol=1e-6)


def test_too_few_rounds_are_told(x64, solved):
    _, patterns = solved
    short = optimize.convex_relu(POINTS, TARGETS, patterns, penalty=PENALTY, steps=25, throw=False)
    assert not short.converged and short.steps == 25 and short.bound <= short.value
    with pytest.raises(Exception, match=r"expected a gap of at most 0\.001 of the value after 25 rounds"):
        optimize.convex_relu(POINTS, TARGETS, patterns, penalty=PENALTY, steps=25).value.block_until_ready()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.relu_patterns(np.ones((4, 2))), "rows in general position"),
        (lambda: optimize.relu_patterns(RANDOM.normal(size=(100, 5))), "few of both"),
        (lambda: optimize.relu_patterns(POINTS, 3), "a key to draw patterns with"),
        (lambda: optimize.convex_relu(POINTS, TARGETS, np.ones((1, 7)), penalty=1.0), "patterns as booleans"),
        (lambda: optimize.convex_relu(POINTS, TARGETS, np.ones((1, 7), bool), penalty=0.0), "penalty above 0"),
        (lambda: optimize.convex_relu(POINTS, TARGETS[:3], np.ones((1, 7), bool), penalty=1.0), "targets"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
