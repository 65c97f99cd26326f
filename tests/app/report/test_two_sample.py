"""The two-sample test: exact in one dimension, calibrated under the null, sharp off it."""

import numpy as np
import pytest

from nablax.app._report import _two_sample
from nablax.app._report._telling import Telling, telling
from nablax.app._report._two_sample import comparable, two_sample


def _no_classifier(monkeypatch):
    monkeypatch.setattr(_two_sample, "telling", lambda *_: Telling(0.5, 0.0, 0.5))


def test_energy_distance_is_twice_the_area_between_the_distribution_functions(monkeypatch):
    # In one dimension the energy distance is 2 ∫ (F − G)² dx: no distance between points enters.
    _no_classifier(monkeypatch)
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=37), generator.normal(0.4, 1.7, size=53)
    found = two_sample(left[:, None], right[:, None], permutations=9)
    pooled = np.concatenate([left, right])
    left, right = ((side - pooled.mean()) / pooled.std() for side in (left, right))
    points = np.sort(np.concatenate([left, right]))
    gap = np.searchsorted(np.sort(left), points, "right") / 37 - np.searchsorted(np.sort(right), points, "right") / 53
    assert found.energy_distance == pytest.approx(2 * np.sum(gap[:-1] ** 2 * np.diff(points)), rel=1e-10)


def test_p_values_are_uniform_under_the_null(monkeypatch):
    from scipy.stats import kstest

    _no_classifier(monkeypatch)
    generator = np.random.default_rng(1)
    values = [
        two_sample(rows[:30], rows[30:], seed=repeat, permutations=99).p_value
        for repeat in range(300)
        for rows in [generator.standard_t(3, size=(70, 3))]
    ]
    assert kstest(values, "uniform").pvalue > 0.01
    assert abs(np.mean(np.array(values) <= 0.05) - 0.05) < 0.04


def test_shifts_and_ties_are_found(monkeypatch):
    _no_classifier(monkeypatch)
    generator = np.random.default_rng(2)
    hits = 0
    for repeat in range(50):
        rows = generator.normal(size=(200, 3))
        tied = generator.multivariate_normal(np.zeros(3), np.eye(3) * 0.1 + 0.9, size=200)
        shifted = two_sample(rows, generator.normal(size=(200, 3)) + 0.5, seed=repeat, permutations=99)
        # The marginals agree and only the dependence differs.
        hits += shifted.p_value <= 0.05 and two_sample(rows, tied, seed=repeat, permutations=99).p_value <= 0.05
    assert hits >= 48


def test_classifier_measures_the_difference():
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(900, 4))
    same = two_sample(rows[:300], rows[300:600], permutations=99)
    assert abs(same.accuracy - 0.5) < 4 * same.accuracy_standard_error
    # The best any classifier does against a shift of 2 along one axis is Φ(1) = 0.841.
    moved = two_sample(rows[:300], rows[600:] + np.array([2.0, 0, 0, 0]), permutations=99)
    assert 0.78 < moved.accuracy < 0.841 + 3 * moved.accuracy_standard_error
    # Unequal sides: calling everything a sample must not look like skill.
    uneven = two_sample(rows[:60], rows[300:], permutations=99)
    assert abs(uneven.accuracy - 0.5) < 0.12


def test_missing_cells_are_part_of_the_distribution(monkeypatch):
    _no_classifier(monkeypatch)
    generator = np.random.default_rng(4)
    left, right = generator.normal(size=(2, 150, 2))
    left[:75, 0] = np.nan
    assert two_sample(left, right, permutations=99).p_value == 0.01
    rejected = 0
    for repeat in range(40):  # holes on both sides alike are no difference
        rows = generator.normal(size=(160, 2))
        rows[generator.random(160) < 0.5, 0] = np.nan
        rejected += two_sample(rows[:80], rows[80:], seed=repeat, permutations=99).p_value <= 0.05
    assert rejected <= 6


def test_comparable_marks_missing_cells():
    rows = comparable(np.array([[1.0, 0.0], [3.0, np.nan]]), np.array([[np.nan, 5.0], [3.0, np.nan]]))
    np.testing.assert_allclose(rows, [[0.0, 5.0, 0.0], [1.0, 0.0, 1.0]])


def test_same_seed_same_answer():
    rows = np.random.default_rng(5).normal(size=(1200, 2))
    first, second = (two_sample(rows[:1050], rows[1050:], seed=7, permutations=99) for _ in range(2))
    assert (first.p_value, first.accuracy, first.rows) == (second.p_value, second.accuracy, (1000, 150))
    # Of samples no more than three to a held-out row.
    assert two_sample(rows[:100], rows[100:], permutations=9).rows == (100, 300)


def test_the_classifier_is_as_sure_as_it_says_under_the_null():
    generator = np.random.default_rng(6)
    found = [telling(generator.normal(size=(n + m, 3)), n, seed, None) for seed in range(40) for n, m in ((40, 120),)]
    scores = np.array([(told.accuracy - 0.5) / told.standard_error for told in found])
    assert 0.6 < scores.std() < 1.3 and abs(scores.mean()) < 0.6
    assert sum(told.p_value < 0.05 for told in found) <= 5


def test_the_columns_that_give_samples_away_are_ranked():
    generator = np.random.default_rng(7)
    data, samples = generator.normal(size=(2, 400, 5))
    samples[:, 3] += 1.5  # b tells most, c somewhat, and a nothing
    samples[:, 4] += 0.7
    samples[:200, 0] = np.nan  # what is missing more often tells too
    found = two_sample(data, samples, groups={"holes": [0], "a": [1, 2], "b": [3], "c": [4]}, permutations=19)
    by_name = {gap.name: gap for gap in found.columns}
    assert [gap.lost for gap in found.columns] == sorted((gap.lost for gap in found.columns), reverse=True)
    for name in ("holes", "b"):
        assert by_name[name].lost > 4 * by_name[name].standard_error > 0
    assert by_name["b"].lost > by_name["c"].lost > by_name["a"].lost
    assert abs(by_name["a"].lost) < 3 * by_name["a"].standard_error
    # Shuffled all at once, the columns say nothing: accuracy falls to chance.
    everything = two_sample(data, samples, groups={"all": [0, 1, 2, 3, 4]}, permutations=19)
    assert everything.columns[0].lost == pytest.approx(everything.accuracy - 0.5, abs=0.04)


def test_unusable_rows_are_refused():
    with pytest.raises(ValueError, match="one width"):
        two_sample(np.zeros((20, 2)), np.zeros((20, 3)))
    with pytest.raises(ValueError, match="at least 10 rows"):
        two_sample(np.zeros((20, 2)), np.zeros((9, 2)))
