"""The scikit-learn face: its own checks, and a density that is known."""

import math

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from nablax.app import FlowDensity


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks():
    check_estimator(FlowDensity(steps=4, width=4, depth=1, batch_size=16))


@pytest.fixture(scope="module")
def fitted():
    # Correlated normal columns in units far from one: a lost scale or a sign slip is nats away.
    random = np.random.default_rng(0)
    mix = np.array([[30.0, 0.0], [0.02, 0.05]])
    rows = random.standard_normal((2000, 2)) @ mix.T + np.array([100.0, -3.0])
    density = FlowDensity(steps=1500, width=64, depth=2, random_state=0).fit(rows)
    fresh = random.standard_normal((500, 2)) @ mix.T + np.array([100.0, -3.0])
    return density, mix, fresh, np.cov(rows.T)


def test_log_density_of_a_normal(fitted):
    density, mix, fresh, _ = fitted
    whitened = np.linalg.solve(mix, (fresh - np.array([100.0, -3.0])).T)
    truth = -0.5 * np.square(whitened).sum(0) - math.log(2 * math.pi) - np.linalg.slogdet(mix)[1]
    found = density.score_samples(fresh)
    assert abs(found.mean() - truth.mean()) < 0.05
    assert np.corrcoef(found, truth)[0, 1] > 0.97
    assert density.score(fresh) == pytest.approx(found.mean())


def test_samples_have_the_datas_moments(fitted):
    density, mix, _, covariance = fitted
    drawn = density.sample(4000, random_state=1)
    assert np.all(np.abs(drawn.mean(0) - [100.0, -3.0]) < 3 * np.sqrt(np.diag(mix @ mix.T) / 1000))
    # Of the rows it was learnt from: their own sampling error is no fault of the fit.
    np.testing.assert_allclose(np.cov(drawn.T), covariance, rtol=0.15)
    np.testing.assert_array_equal(drawn, density.sample(4000, random_state=1))


def test_the_same_state_gives_the_same_fit():
    rows = np.random.default_rng(0).normal(size=(40, 1))
    estimator = FlowDensity(steps=5, width=4, depth=1, random_state=3)
    first, second = clone(estimator).fit(rows), clone(estimator).fit(rows)
    np.testing.assert_array_equal(first.score_samples(rows), second.score_samples(rows))
    assert first.loss_curve_.shape == (5,)
