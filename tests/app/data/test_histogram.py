"""Levels made normal by their own histogram: exact there and back, and an exact density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.app._data._histogram import count_levels


@pytest.fixture(scope="module")
def levels():
    # The second pixel is nearly always zero, the third constant.
    random = np.random.default_rng(0)
    rare = np.where(random.random(4000) < 0.99, 0, random.integers(1, 17, 4000))
    return np.stack([random.binomial(16, 0.4, 4000), rare, np.zeros(4000, int)], axis=1)


def test_levels_come_back(levels):
    histogram = count_levels(levels, 17)
    every = np.tile(np.arange(17)[:, None], (200, 3))
    y, _ = histogram.spread(jnp.asarray(every), jax.random.key(0))
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(histogram.levels_of(np.asarray(y, np.float64)), every)


def test_data_become_standard_normal(levels):
    y, _ = count_levels(levels, 17).spread(jnp.asarray(levels), jax.random.key(1))
    np.testing.assert_allclose(np.mean(y, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.std(y, axis=0), 1, atol=0.03)


def test_independent_normals_give_the_histogram_its_own_probabilities(levels):
    """Under a standard normal for y, the bound is exact: log P(level) is the log of its share."""
    histogram = count_levels(levels, 17)
    rows = jnp.asarray(np.array([[k, 0, 0] for k in range(17)] + [[6, 5, 3]]))
    y, correction = histogram.spread(rows, jax.random.key(2))
    log_normal = jnp.sum(-0.5 * jnp.square(y) - 0.5 * np.log(2 * np.pi), axis=1)
    truth = np.log(histogram.mass[np.arange(3)[None], np.asarray(rows)]).sum(axis=1)
    found = np.asarray(log_normal + correction, np.float64)
    # A rare level's cell is narrow: what its noise keeps off the edges costs up to a hundredth of a nat.
    np.testing.assert_allclose(found, truth, atol=0.02)
    assert np.all(found < truth + 1e-4)
    common = np.all(histogram.mass[np.arange(3)[None], np.asarray(rows)] > 0.01, axis=1)
    np.testing.assert_allclose(found[common], truth[common], atol=2e-4)
