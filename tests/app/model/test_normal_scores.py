"""The maps to normal scores: monotone, undone exactly, with the slope that automatic differentiation finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.app._model._normal_scores import fit_normal_scores

RANDOM = np.random.default_rng(0)
COLUMNS = {
    "normal": RANDOM.normal(size=3000),
    "lognormal": np.exp(1.5 * RANDOM.normal(size=3000)),
    "Student, 2 degrees": RANDOM.standard_t(2, 3000),
    "two bumps": np.where(RANDOM.random(3000) < 0.3, -4.0, 4.0) + 0.3 * RANDOM.normal(size=3000),
    "uniform": RANDOM.random(3000),
    "nearly all alike": np.where(RANDOM.random(3000) < 0.9, 0.0, RANDOM.normal(size=3000)),
    "few": RANDOM.normal(size=7),
    "none": np.zeros(0),
}


@pytest.fixture(scope="module")
def scores():
    return fit_normal_scores(list(COLUMNS.values()))


def spread(scores):
    """Points from far below the first knot to far above the last, for every column."""
    x = np.asarray(scores.x)
    reach = x[:, -1:] - x[:, :1]
    return jnp.asarray((x[:, :1] - reach + 3 * reach * np.linspace(0, 1, 400)).T)


def test_the_maps_rise_and_are_undone(scores):
    x = spread(scores)
    z, _ = scores.forward(x)
    assert np.all(np.diff(np.asarray(z), axis=0) > 0)
    reach = np.asarray(scores.x[:, -1] - scores.x[:, 0])
    assert np.all(np.abs(np.asarray(scores.inverse(z) - x)) < 1e-4 * reach)


def test_the_slope_is_the_derivative(scores):
    # Beside the knots, where the derivative of a clipped coordinate is no derivative.
    x = spread(scores)[::7] + 1e-3 * (scores.x[:, -1] - scores.x[:, 0])[None]
    _, slope = scores.forward(x)
    tangent = jax.jvp(lambda x: scores.forward(x)[0], (x,), (jnp.ones_like(x),))[1]
    np.testing.assert_allclose(np.exp(slope), tangent, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["normal", "lognormal", "Student, 2 degrees", "uniform"])
def test_normal_draws_come_back_with_the_columns_own_quantiles(scores, name):
    place, cells = list(COLUMNS).index(name), COLUMNS[name]
    z = np.random.default_rng(1).normal(size=(200_000, len(COLUMNS)))
    drawn = np.asarray(scores.inverse(jnp.asarray(z, jnp.float32)))[:, place]
    for share in (0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999):
        again = [np.quantile(RANDOM.choice(cells, len(cells)), share) for _ in range(300)]
        low, high = np.quantile(again, [0.005, 0.995])
        assert low <= np.quantile(drawn, share) <= high


def test_the_density_that_they_imply_is_one(scores):
    # The normal density times the slope integrates to one over each column's own axis.
    x = np.asarray(scores.x)
    reach = x[:, -1:] - x[:, :1]
    grid = np.concatenate(
        [
            x[:, :1] - 3 * reach + 3 * reach * np.linspace(0, 1, 4000) ** 0.25,
            x[:, :1] + reach * np.linspace(0, 1, 200_000),
            x[:, -1:] + 3 * reach * np.linspace(0, 1, 4000) ** 4,
        ],
        axis=1,
    )
    z, slope = scores.forward(jnp.asarray(grid.T, jnp.float32))
    density = np.exp(np.asarray(slope - 0.5 * z**2, np.float64)) / np.sqrt(2 * np.pi)
    total = np.trapezoid(density, grid.T, axis=0)
    np.testing.assert_allclose(total, 1.0, atol=0.01)


def test_groups_that_lie_apart_do_not_touch(scores):
    cells = COLUMNS["two bumps"]
    x = np.zeros((len(cells), len(COLUMNS)), np.float32)
    x[:, list(COLUMNS).index("two bumps")] = cells
    z = np.asarray(scores.forward(jnp.asarray(x))[0])[:, list(COLUMNS).index("two bumps")]
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    low, high = z[cells < 0], z[cells > 0]
    assert high.min() - low.max() > 0.6
    # Nothing of the kind where there is no gap: normal scores stay normal.
    assert float(scores.z[0, -1] - scores.z[0, 0]) == pytest.approx(2 * 3.59, abs=0.05)


def test_two_extremes_side_by_side_do_not_make_the_tail_steep():
    cells = np.concatenate([np.random.default_rng(2).normal(size=1000), [6.0, 6.0001]])
    z, _ = fit_normal_scores([cells]).forward(jnp.array([[7.0]]))
    assert 3.0 < float(z[0, 0]) < 6.0


def test_ties_spread_over_their_cells_become_normal():
    # Whole numbers from 0 to 5, each cell uniform over its own width: the scores of fresh rows are standard normal.
    counts = RANDOM.binomial(5, 0.4, 4000)
    placed = np.concatenate([counts + RANDOM.random(4000) - 0.5 for _ in range(4)])
    scores = fit_normal_scores([placed], repeats=4)
    fresh = RANDOM.binomial(5, 0.4, 20_000) + RANDOM.random(20_000) - 0.5
    z = np.asarray(scores.forward(jnp.asarray(fresh[:, None], jnp.float32))[0])[:, 0]
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05
