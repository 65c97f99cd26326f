"""The straight part of the values: conditional normal distributions in closed form, and what is fitted to rows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, t

from nablax.app._model import _gaussian
from nablax.app._model._along import STEPS, value_log_density
from nablax.app._model._fit_gaussian import fit_gaussian
from nablax.app._model._gaussian import Gaussian
from nablax.app._model._normal_scores import NormalScores
from nablax.app._model._states import StateNetwork
from nablax.app._model._table import Cells, TableModel
from nablax.app._model._values import ValueField

RANDOM = np.random.default_rng(0)
SIZES, VALUED, LEVELS = (
    (3, 1, 3, 1, 2),
    (1, 2, 3, 4),
    (1, 3, 1, 1),
)  # a category, and four numbers: two atoms, one missing
ROOT = RANDOM.normal(size=(4, 4))
COVARIANCE = ROOT @ ROOT.T + 0.2 * np.eye(4)
INTERCEPT, EFFECTS = RANDOM.normal(size=4), RANDOM.normal(size=(sum(SIZES), 4))
ATOMS = np.array([[np.nan] * 3, [np.nan, 0.7, -1.3], [np.nan] * 3, [np.nan] * 3])


def known():
    parts = (INTERCEPT, EFFECTS, COVARIANCE, ATOMS)
    parts = tuple(jnp.asarray(part, jnp.float32) for part in parts)
    return eqx.tree_at(
        lambda g: (g.intercept, g.effects, g.covariance, g.atoms), Gaussian(SIZES, VALUED, LEVELS), parts
    )


def mean_of(states):
    return INTERCEPT + EFFECTS[np.cumsum([0, *SIZES[:-1]]) + states].sum(axis=0)


# states, free, given, what is known by value
ROWS = {
    "nothing given": ([2, 0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]),
    "one given": ([0, 0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]),
    "the last ones given": ([1, 0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]),
    "an atom": ([1, 0, 2, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]),
    "an atom, one given, one missing": ([0, 0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]),
}


@pytest.mark.parametrize(("states", "free", "given", "known_ones"), ROWS.values(), ids=ROWS)
def test_every_conditional_is_the_normal_distributions_own(states, free, given, known_ones):
    states, free, given, known_ones = np.array(states), *(np.array(m, bool) for m in (free, given, known_ones))
    scores = RANDOM.normal(size=4)
    value = np.where(known_ones & ~given, np.nan_to_num(ATOMS)[np.arange(4), np.minimum(states[1:], 2)], scores)
    expected, factor, residuals = (
        np.asarray(part, np.float64)
        for part in known().conditioned(*(jnp.asarray(p) for p in (states, free, given, scores.astype(np.float32))))
    )
    mean, f, g = mean_of(states), np.flatnonzero(free), np.flatnonzero(known_ones)
    gain = COVARIANCE[np.ix_(f, g)] @ np.linalg.inv(COVARIANCE[np.ix_(g, g)])
    np.testing.assert_allclose(expected[f], mean[f] + gain @ (value - mean)[g], atol=2e-5)
    np.testing.assert_allclose(expected[g], value[g], atol=1e-6)
    spread = COVARIANCE[np.ix_(f, f)] - gain @ COVARIANCE[np.ix_(g, f)]
    np.testing.assert_allclose((factor @ factor.T)[np.ix_(f, f)], spread, atol=2e-5)
    np.testing.assert_allclose((expected + factor @ residuals)[f], scores[f], atol=2e-5)
    assert not residuals[~free].any() and not expected[~free & ~known_ones].any()
    others = np.ix_(~free, ~free)
    np.testing.assert_array_equal(factor[others], np.eye(len(free))[others])


def model():
    shares = [np.ones(size) for size in SIZES]
    network = StateNetwork(shares, 4, width=8, depth=1, key=jax.random.key(0))
    line = jnp.tile(jnp.linspace(-3.0, 3.0, 5), (4, 1))
    scores = NormalScores(line, line, jnp.ones_like(line))  # the identity, but for the tails
    return TableModel(
        network, ValueField(SIZES, 4, width=8, depth=1, key=jax.random.key(1)), scores, known(), jnp.zeros(4), VALUED
    )


def test_before_training_every_conditional_density_is_the_gaussians():
    rows = 6
    states = np.stack([RANDOM.integers(0, 3, rows), *np.zeros((4, rows), int)], axis=1)
    states[0, 2], states[1, 4] = 1, 1
    carries = np.ones((rows, 4), bool)
    carries[0, 1] = carries[1, 3] = False
    scores = np.where(carries, RANDOM.normal(size=(rows, 4)), 0.0)
    given = RANDOM.random((rows, 5)) < 0.4
    cells = Cells(
        *(jnp.asarray(p) for p in (states, carries, scores.astype(np.float32), np.zeros((rows, 4), np.float32)))
    )
    made = model()
    points, vectors, correction = made.points(cells, jnp.asarray(given))
    value, _ = value_log_density(made.transport, points, vectors, jnp.asarray(STEPS))
    for row in range(rows):
        atom = np.isfinite(ATOMS[np.arange(4), states[row, 1:]]) & (states[row, 1:] < LEVELS) & ~carries[row]
        at = np.where(atom, np.nan_to_num(ATOMS[np.arange(4), states[row, 1:]]), scores[row])
        free, held = carries[row] & ~given[row, 1:], (carries[row] & given[row, 1:]) | atom

        def density(of, at=at, row=row):
            where = np.flatnonzero(of)
            if not len(where):
                return 0.0
            return multivariate_normal.logpdf(at[where], mean_of(states[row])[where], COVARIANCE[np.ix_(where, where)])

        assert float(value[row] + correction[row]) == pytest.approx(density(free | held) - density(held), abs=2e-4)
    # Back to the rows they were.
    back, coordinates = made.rows(np.asarray(points), np.asarray(vectors))
    np.testing.assert_array_equal(back, states)
    np.testing.assert_allclose(np.where(carries, coordinates[:, 1:], 0.0), scores, atol=1e-4)


def fitted(states, scores, carries=None, atoms=None, *, sizes=(1,), valued=None, levels=None):
    columns = scores.shape[1]
    valued = tuple(range(len(sizes) - columns, len(sizes))) if valued is None else valued
    levels = (1,) * columns if levels is None else levels
    carries = np.ones(scores.shape, bool) if carries is None else carries
    atoms = np.full((columns, max(levels)), np.nan) if atoms is None else atoms
    return fit_gaussian(Gaussian(sizes, valued, levels), states, carries, scores, atoms)


def student(x, mean, spread):
    return t.logpdf((x - mean) / spread, 4) - np.log(spread)


def test_the_atoms_of_a_number_are_likelier_where_regression_expects_them():
    """Of the second number, whose atoms are at 0.7 and -1.3: given nothing, a category, and the third number."""
    # As it is fitted: a number's atoms have no effects of their own, for they are known by their scores.
    made = eqx.tree_at(lambda g: g.effects, known(), known().effects.at[4:7].set(0.0))
    scores = jnp.asarray(RANDOM.normal(size=4), jnp.float32)
    states, nothing = jnp.array([2, 0, 1, 0, 0]), jnp.zeros(4, bool)
    before = student(np.array([0.7, -1.3]), INTERCEPT[1], np.sqrt(COVARIANCE[1, 1]))
    np.testing.assert_allclose(made.leaning(states, jnp.zeros(5, bool), nothing, scores), 0.0, atol=1e-5)
    seen = jnp.array([True, False, False, False, False])
    found = np.asarray(made.leaning(states, seen, nothing, scores))
    mean = INTERCEPT + EFFECTS[2]
    after = student(np.array([0.7, -1.3]), mean[1], np.sqrt(COVARIANCE[1, 1]))
    np.testing.assert_allclose(found[2, 1:3], after - before, atol=1e-4)
    assert np.count_nonzero(np.abs(found) > 1e-6) == 2
    found = np.asarray(made.leaning(states, seen.at[3].set(True), nothing.at[2].set(True), scores))
    mean = mean + EFFECTS[7]
    slope = COVARIANCE[1, 2] / COVARIANCE[2, 2]
    at, spread = mean[1] + slope * (float(scores[2]) - mean[2]), np.sqrt(COVARIANCE[1, 1] - slope * COVARIANCE[2, 1])
    np.testing.assert_allclose(found[2, 1:3], student(np.array([0.7, -1.3]), at, spread) - before, atol=1e-4)


def test_before_training_states_have_their_shares_times_what_regression_says():
    made = model()
    states, given = jnp.array([[1, 0, 0, 0, 0]]), jnp.array([[True, False, False, True, False]])
    scores = jnp.asarray(RANDOM.normal(size=(1, 4)), jnp.float32)
    cells = Cells(states, jnp.ones((1, 4), bool), scores, jnp.zeros((1, 4)))
    allowed = jnp.ones((5, 3), bool)
    vectors = jax.vmap(lambda key: made.drawn_states(cells, given, allowed, key)[0])(random_keys(4000))
    shares = np.bincount(np.asarray(vectors)[:, 2].astype(int), minlength=3) / 4000
    seen = given[0].at[1].set(True)  # whose turn comes before
    leaning = np.asarray(made.gaussian.leaning(states[0], seen, jnp.array([False, False, True, False]), scores[0]))
    expected = np.exp(leaning[2]) / np.exp(leaning[2]).sum()
    np.testing.assert_allclose(shares, expected, atol=0.04)
    assert 0.5 * np.abs(expected - 1 / 3).sum() > 0.1


def random_keys(count):
    return jax.random.split(jax.random.key(2), count)


def test_columns_that_follow_from_one_another_are_not_shrunk_apart():
    """A sum of two with a little noise among ten columns, 250 rows: shrinking all correlations alike loses it."""
    x = RANDOM.normal(size=(250, 9))
    x = np.concatenate([x, (x[:, :1] + x[:, 1:2]) / np.sqrt(2) + 0.1 * RANDOM.normal(size=(250, 1))], axis=1)
    found = np.asarray(fitted(np.zeros((250, 10), int), x, sizes=(1,) * 10).covariance, np.float64)
    left = found[9, 9] - found[9, :9] @ np.linalg.solve(found[:9, :9], found[:9, 9])
    assert np.sqrt(left) == pytest.approx(0.1, rel=0.15)


def test_columns_that_have_nothing_to_do_with_each_other_are():
    x = RANDOM.normal(size=(60, 12))
    found = np.asarray(fitted(np.zeros((60, 12), int), x, sizes=(1,) * 12).covariance)
    off = ~np.eye(12, dtype=bool)
    assert np.abs(found[off]).max() < 0.5 * np.abs(np.cov(x.T)[off]).max()


def test_effects_of_states_are_found_and_those_of_none_are_shrunk_away():
    kind, noise = RANDOM.integers(0, 4, 900), RANDOM.integers(0, 15, 900)
    x = np.array([0.0, 1.0, -2.0, 0.5])[kind] + 0.5 * RANDOM.normal(size=900)
    states = np.stack([kind, noise, np.zeros(900, int)], axis=1)
    found = fitted(states, x[:, None], sizes=(4, 15, 1))
    means = [float(found.mean(jnp.array([k, 3, 0]), jnp.ones(3, bool))[0]) for k in range(4)]
    np.testing.assert_allclose(means, [0.0, 1.0, -2.0, 0.5], atol=0.15)
    assert float(found.mean(jnp.array([2, 3, 0]), jnp.zeros(3, bool))[0]) == pytest.approx(x.mean(), abs=1e-4)
    least_squares = [x[noise == k].mean() for k in range(15)]
    assert np.std(np.asarray(found.effects)[4:19, 0]) < 0.5 * np.std(least_squares)
    assert float(found.covariance[0, 0]) == pytest.approx(0.25, rel=0.15)


def test_heaps_are_known_by_their_place_and_zeros_below_the_counts_by_their_state():
    x = RANDOM.normal(size=(600, 2)) @ np.linalg.cholesky([[1.0, 0.9], [0.9, 1.0]]).T
    heaped = np.abs(x[:, 0]) < 0.5
    states = np.stack([heaped.astype(int), np.zeros(600, int)], axis=1)
    carries = np.stack([~heaped, np.ones(600, bool)], axis=1)
    scores = np.where(carries, x, 0.0)
    for at, among in ((0.0, True), (-4.0, False)):
        atoms = np.array([[np.nan, at], [np.nan, np.nan]])
        found = fitted(states, scores, carries, atoms, sizes=(2, 1), valued=(0, 1), levels=(2, 1))
        assert bool(np.isfinite(np.asarray(found.atoms)[0, 1])) == among
        assert bool(np.asarray(found.effects)[1].any()) != among
        correlation = float(found.covariance[0, 1] / np.sqrt(found.covariance[0, 0] * found.covariance[1, 1]))
        assert correlation == pytest.approx(0.9, abs=0.05)


def test_cells_missing_here_and_there_leave_a_positive_definite_covariance():
    x = RANDOM.normal(size=(80, 6)) @ RANDOM.normal(size=(6, 6))
    carries = RANDOM.random(x.shape) < 0.35
    found = np.asarray(fitted(np.where(carries, 0, 1), np.where(carries, x, 0.0), carries, sizes=(2,) * 6).covariance)
    assert np.linalg.eigvalsh(found / np.sqrt(np.outer(np.diag(found), np.diag(found)))).min() > 1e-5


def test_of_very_many_columns_only_the_means_are_taken(monkeypatch):
    monkeypatch.setattr(_gaussian, "WIDEST", 3)
    states, free, given = jnp.array([2, 0, 0, 0, 0]), jnp.array([1, 1, 0, 1], bool), jnp.array([0, 0, 1, 0], bool)
    scores = jnp.asarray(RANDOM.normal(size=4), jnp.float32)
    expected, factor, residuals = known().conditioned(states, free, given, scores)
    np.testing.assert_allclose(expected, np.where(free, mean_of(np.array(states)), scores), atol=1e-5)
    np.testing.assert_allclose(np.diag(factor)[[0, 1, 3]], np.sqrt(np.diag(COVARIANCE))[[0, 1, 3]], rtol=1e-5)
    np.testing.assert_allclose((expected + factor @ residuals)[free], scores[free], atol=1e-5)


def test_given_numbers_lean_to_a_state_by_the_ratio_of_their_densities_in_it():
    """Of a category, two scores given of which one is an atom: Gaussian densities of both, whatever the others are."""
    made, scores = known(), jnp.asarray(RANDOM.normal(size=4), jnp.float32)
    states, seen = jnp.array([0, 0, 1, 0, 1]), jnp.array([False, False, True, True, True])
    found = np.asarray(made.leaning(states, seen, jnp.array([False, False, True, False]), scores))
    here, x = [1, 2], np.array([0.7, float(scores[2])])
    offsets = np.cumsum([0, *SIZES[:-1]])
    mean = INTERCEPT + EFFECTS[offsets[[2, 3, 4]] + np.array([1, 0, 1])].sum(axis=0)

    def density(mean):
        return multivariate_normal(mean[here], COVARIANCE[np.ix_(here, here)]).logpdf(x)

    expected = [density(mean + EFFECTS[state]) - density(mean) for state in range(3)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)
    assert np.ptp(expected) > 1.0
