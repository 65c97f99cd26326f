"""The chain over states: probabilities that sum to one whatever is given, and draws that follow them."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from nablax.app._model._gaussian import Gaussian
from nablax.app._model._masks import drawn_before, given_cells
from nablax.app._model._normal_scores import fit_normal_scores
from nablax.app._model._states import StateNetwork
from nablax.app._model._table import Cells, TableModel
from nablax.app._model._values import ValueField

SIZES = (3, 2, 20)  # the last has an embedding
ROWS = np.array(list(itertools.product(*map(range, SIZES))))


def made(sizes, valued=(), key=0):
    """A model with weights that nothing has trained, none of them zero."""
    values = max(1, len(valued))
    shares = [np.arange(1.0, size + 1) for size in sizes]
    network = StateNetwork(shares, values, width=16, depth=2, key=jax.random.key(key))
    leaves, tree = jax.tree.flatten(eqx.filter(network, eqx.is_array))
    keys = jax.random.split(jax.random.key(key + 1), len(leaves))
    noisy = [leaf + 0.5 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys)]
    network = eqx.combine(jax.tree.unflatten(tree, noisy), network)
    field = ValueField(tuple(sizes), values, width=8, depth=1, key=jax.random.key(key))
    return TableModel(
        network,
        field,
        fit_normal_scores([np.zeros(0)] * len(valued)),
        leaning(sizes, valued),
        jnp.zeros(len(valued)),
        valued,
    )


def leaning(sizes, valued):
    """A Gaussian in which all states of numbers but the first are atoms, and those of the others have effects."""
    random, gaussian = np.random.default_rng(0), Gaussian(sizes, valued, [sizes[j] for j in valued])
    values = max(1, len(valued))
    effects = random.normal(size=gaussian.effects.shape)
    for j in valued:
        effects[gaussian.offsets[j] :][: sizes[j]] = 0.0
    parts = effects, 0.5 * np.eye(values) + 0.5, random.normal(size=gaussian.atoms.shape)
    parts = tuple(jnp.asarray(part, jnp.float32) for part in parts)
    return eqx.tree_at(lambda g: (g.effects, g.covariance, g.atoms), gaussian, parts)


def cells(states, values=1):
    nothing = jnp.zeros((len(states), values))
    return Cells(jnp.asarray(states), nothing > 0, nothing, nothing)


@pytest.mark.parametrize("given", [(), (0,), (2,), (0, 2), (1, 2)])
def test_probabilities_sum_to_one_given_any_columns(given):
    marks = jnp.asarray(np.tile(np.isin(np.arange(3), given), (len(ROWS), 1)))
    log_prob = np.asarray(made(SIZES).state_log_prob(cells(ROWS), marks), np.float64)
    for states in set(map(tuple, ROWS[:, given])):
        here = np.all(ROWS[:, given] == states, axis=1)
        assert np.exp(log_prob[here]).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("sizes", [(3,), (20,), (2, 2), (17, 30), (1, 4)])
def test_tables_of_few_or_of_many_states_alone(sizes):
    rows = np.array(list(itertools.product(*map(range, sizes))))
    nothing = jnp.zeros(rows.shape, bool)
    log_prob = made(sizes).state_log_prob(cells(rows), nothing)
    assert np.exp(np.asarray(log_prob, np.float64)).sum() == pytest.approx(1.0, abs=1e-5)


def test_draws_follow_the_probabilities():
    model, count = made(SIZES), 40_000
    rows, marks = np.tile([1, 0, 7], (count, 1)), np.tile([False, False, True], (count, 1))
    allowed = np.arange(20) < np.array(SIZES)[:, None]
    drawn = np.asarray(model.draw_states(cells(rows), jnp.asarray(marks), jnp.asarray(allowed), jax.random.key(0)))
    assert np.all(drawn[:, 2] == 7)
    small = np.array(list(itertools.product(range(3), range(2))))
    small = np.column_stack([small, np.full(6, 7)])
    chances = np.exp(np.asarray(model.state_log_prob(cells(small), jnp.asarray(marks[:6])), np.float64))
    found = np.bincount(drawn[:, 0] * 2 + drawn[:, 1], minlength=6)
    statistic = np.sum((found - count * chances) ** 2 / (count * chances))
    assert statistic < chi2.ppf(0.999, 5)


def test_what_is_not_allowed_is_not_drawn():
    model, count = made(SIZES), 500
    allowed = np.arange(20) < np.array(SIZES)[:, None]
    allowed[2, :15] = False
    nothing = jnp.zeros((count, 3), bool)
    drawn = model.draw_states(cells(np.zeros((count, 3), int)), nothing, jnp.asarray(allowed), jax.random.key(0))
    assert int(drawn[:, 2].min()) >= 15 and int(drawn[:, 2].max()) < 20


def test_hidden_states_and_values_are_not_looked_at():
    model = made((3, 4), valued=(1,))
    one = Cells(jnp.array([[1, 0]]), jnp.array([[True]]), jnp.array([[0.7]]), jnp.zeros((1, 1)))
    other = Cells(jnp.array([[1, 0]]), jnp.array([[True]]), jnp.array([[-3.0]]), jnp.zeros((1, 1)))
    given = jnp.array([[True, False]])
    assert float(model.state_log_prob(one, given)[0]) == float(model.state_log_prob(other, given)[0])
    known = jnp.array([[False, True]])  # the value is given with its state
    assert float(model.state_log_prob(one, known)[0]) != float(model.state_log_prob(other, known)[0])


def test_a_cell_that_is_not_given_shows_nothing_to_the_field():
    # Whatever stood in the rows that are to be drawn: an atom is at its own score, another cell where it is expected.
    model, count = made((3, 4), valued=(0, 1)), 300
    scores = 5.0 * jax.random.normal(jax.random.key(0), (count, 2))
    allowed = np.tile(np.arange(4) < np.array([3, 4])[:, None], (count, 1, 1))
    allowed[::2, 1, 1:], allowed[1::2, 1, 0] = False, False  # values and atoms in turn
    given = jnp.tile(jnp.array([True, False]), (count, 1))

    def drawn(scores):
        rows = Cells(jnp.zeros((count, 2), int), jnp.ones((count, 2), bool), scores, jnp.zeros((count, 2)))
        return np.asarray(model.drawn_states(rows, given, jnp.asarray(allowed), jax.random.key(1)))

    vectors = drawn(scores)
    np.testing.assert_array_equal(vectors, drawn(scores.at[:, 1].set(7.0)))
    states, free, shown = vectors[:, :2].astype(int), vectors[:, 2:4], vectors[:, 4:]
    assert (states[:, 1] != 0).any() and (states[:, 1] == 0).any()
    np.testing.assert_array_equal(free[:, 1], states[:, 1] == 0)
    np.testing.assert_array_equal(shown[:, 0], scores[:, 0])
    expected = 0.5 * np.asarray(scores)[:, 0]  # correlation 1/2, variance 1
    atoms = np.asarray(model.gaussian.atoms)[1, states[:, 1]]
    np.testing.assert_allclose(shown[:, 1], np.where(states[:, 1] == 0, expected, atoms), atol=1e-5)
    assert not free[:, 0].any()


def test_masks_leave_a_third_of_the_rows_without_a_given_cell_and_show_most_cells_of_the_others():
    given = np.asarray(given_cells(jax.random.key(0), 20_000, 6))
    # Of the others, so many draw the empty subset: the integral of (1 - √u)^6, a beta function.
    assert np.mean(~given.any(axis=1)) == pytest.approx(1 / 3 + 2 / 3 / 28, abs=0.012)
    assert np.mean(given) == pytest.approx(2 / 3 * 2 / 3, abs=0.01)
    known, turn = (np.asarray(part) for part in drawn_before(jax.random.key(1), jnp.asarray(given)))
    assert np.all(turn.sum(axis=1) == ~given.all(axis=1)) and not (known & turn).any()
    assert np.all(known[given])
    # Each of six turns is as likely where nothing is given, and all columns before it are known.
    free = ~given.any(axis=1)
    at = turn[free].argmax(axis=1)
    assert np.bincount(at, minlength=6) / len(at) == pytest.approx(np.full(6, 1 / 6), abs=0.02)
    assert np.array_equal(known[free], np.arange(6) < at[:, None])


def test_frozen_values_add_nothing():
    # Every value given: the corrections cancel the prior, and the flow's own log-density is that of zeros, unmoved.
    model = made((2, 3), valued=(0, 1))
    rows = Cells(jnp.zeros((4, 2), int), jnp.ones((4, 2), bool), jnp.ones((4, 2)), jnp.full((4, 2), 5.0))
    points, args, correction = model.points(rows, jnp.ones((4, 2), bool))
    found = model.transport.log_prob(points, args)
    np.testing.assert_allclose(found.value + correction, 0.0, atol=1e-5)
