"""The width of draws given others: a change of variables that is exact, and slopes found on unseen rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.app._model._along import codes_of, drawn_values, value_log_density
from nablax.app._model._calibrated import CalibratedField, fit_slopes, share_given
from nablax.app._model._values import ValueField, condition
from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport

ROWS, STEPS = 4096, jnp.asarray(32)
SLOPES = np.array([-0.6, 0.4, 0.9])


def calibrated(slopes):
    # Untrained, its network is zero: it carries the normal to the normal.
    field = ValueField((1, 3, 1, 1), 3, width=8, depth=1, key=jax.random.key(0))
    field = CalibratedField(field, jnp.asarray(slopes, jnp.float32), (0, 2, 3))
    return Transport(field, Linear(), Normal((3,)), Euclidean((3,)))


def conditions(free):
    return condition(jnp.zeros((ROWS, 4), jnp.int32), jnp.tile(jnp.array(free), (ROWS, 1)), jnp.zeros((ROWS, 3)))


@pytest.mark.parametrize("free", [(True, True, True), (True, False, True), (False, True, False)])
def test_what_is_drawn_given_others_has_the_width_that_was_fitted_and_its_own_density(free):
    args, transport = conditions(free), calibrated(SLOPES)
    drawn = drawn_values(transport, args, STEPS, jax.random.key(1))
    share = 1.0 - np.mean(free)
    width = np.where(free, np.exp(SLOPES * share), 1.0)
    at = np.flatnonzero(free)
    noise = jax.random.normal(jax.random.key(1), (ROWS, 3))
    np.testing.assert_allclose(drawn[:, at], (noise * width[None])[:, at], rtol=2e-3, atol=2e-3)
    points = jnp.where(jnp.array(free)[None], drawn, 0.0)[:64]
    found = value_log_density(transport, points, args[:64], STEPS)[0]
    wanted = np.sum(-0.5 * np.log(2 * np.pi) - np.log(width)[None] - 0.5 * np.square(points / width[None]), axis=1)
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_cells_that_are_missing_count_as_neither_given_nor_free():
    states = jnp.array([[0, 1, 0, 2]])  # the last column's cell is not there
    free = jnp.array([[True, False, False]])
    there = free | (states[:, np.array([0, 2, 3])] == 0)
    assert float(share_given(free, there)[0, 0]) == 0.5
    vector = condition(states, free, jnp.zeros((1, 3)))
    drawn = drawn_values(calibrated(SLOPES), jnp.tile(vector, (2, 1)), STEPS, jax.random.key(1))
    noise = jax.random.normal(jax.random.key(1), (2, 3))
    np.testing.assert_allclose(drawn[:, 0], noise[:, 0] * np.exp(0.5 * SLOPES[0]), rtol=2e-3)


def test_codes_are_where_draws_come_from():
    args, transport = conditions((True, False, True)), calibrated(SLOPES)
    drawn = drawn_values(transport, args, STEPS, jax.random.key(1))
    noise = jax.random.normal(jax.random.key(1), (ROWS, 3))
    np.testing.assert_allclose(codes_of(transport, drawn, args, STEPS)[:, [0, 2]], noise[:, [0, 2]], atol=2e-3)


def codes(rows, key, slopes):
    generator = np.random.default_rng(key)
    free = generator.random((rows, 3)) < generator.random((rows, 1))
    given = 1.0 - free.mean(axis=1)
    return generator.normal(size=(rows, 3)) * np.exp(slopes * given[:, None]), free, given


def test_slopes_are_found_and_codes_that_ran_away_move_them_little():
    parts = codes(40_000, 0, SLOPES)
    found = fit_slopes(*parts, 1.0)
    np.testing.assert_allclose(found, SLOPES, atol=0.05)
    for away in (1e9, -np.inf, np.nan):
        parts[0][np.flatnonzero(parts[1][:, 0])[:20], 0] = away
        np.testing.assert_allclose(fit_slopes(*parts, 1.0), found, atol=0.02)


def mean_slopes(rows, slopes, keys):
    return np.mean([fit_slopes(*codes(rows, key, np.array(slopes)), 1.0) for key in range(keys)], axis=0)


def test_few_rows_move_little_and_all_columns_together_more_than_one():
    found = [fit_slopes(*codes(50, key, np.zeros(3)), 1.0) for key in range(40)]
    assert np.sqrt(np.mean(np.square(found))) < 0.1  # 0.5 where a slope is what its own codes say
    together, alone = mean_slopes(200, [-0.6, -0.6, -0.6], 40).mean(), mean_slopes(200, [-0.6, 0.0, 0.0], 40)[0]
    assert -0.6 < together < -0.3 and together + 0.05 < alone < -0.2
    np.testing.assert_allclose(mean_slopes(8000, [-0.6, 0.0, 0.3], 4), [-0.6, 0.0, 0.3], atol=0.05)
    assert np.all(
        fit_slopes(np.zeros((0, 3)), np.zeros((0, 3), bool), np.zeros(0), 1.0) == pytest.approx(0.0, abs=1e-6)
    )
