"""Baselines against closed forms, scikit-learn's own density, and data that needs the choice to be right."""

import numpy as np
import pytest

from nablax.app._report._baselines import gaussian_mixture, kernel_density, likelihood


def _two_lumps(generator, count):
    side = generator.integers(0, 2, count)
    return generator.normal(size=(count, 2)) * [0.5, 5.0] + np.where(side, 3.0, -3.0)[:, None] * [1.0, 0.0]


def _two_lumps_log_density(rows):
    from scipy.special import logsumexp
    from scipy.stats import norm

    across = logsumexp([norm.logpdf(rows[:, 0], centre, 0.5) for centre in (-3.0, 3.0)], axis=0) - np.log(2)
    return across + norm.logpdf(rows[:, 1], 0.0, 5.0)


def test_mixture_finds_the_density_it_was_drawn_from():
    generator = np.random.default_rng(0)
    train, held_out = _two_lumps(generator, 3000), _two_lumps(generator, 1000)
    found = gaussian_mixture(train, held_out)
    truth = _two_lumps_log_density(held_out)
    assert found.log_density.shape == (1000,)
    # A missing Jacobian of the standardisation would be log(3.04 * 5) = 2.7 nats away.
    assert abs(found.mean - truth.mean()) < 0.03
    assert np.std(found.log_density - truth) < 0.3
    assert found.standard_error == pytest.approx(np.std(found.log_density, ddof=1) / np.sqrt(1000))
    one = gaussian_mixture(train, held_out)
    np.testing.assert_array_equal(one.log_density, found.log_density)


def test_kernel_density_is_scikit_learns():
    from sklearn.neighbors import KernelDensity

    generator = np.random.default_rng(1)
    train, held_out = _two_lumps(generator, 800), _two_lumps(generator, 200)
    found = kernel_density(train, held_out)
    scale = np.ones(2)
    fitting = train[np.random.default_rng(0).permutation(800)[160:]]
    if found.settings["scale"] == "each column its own":
        scale = fitting.std(axis=0)
    else:
        scale = np.full(2, np.sqrt(np.mean(fitting.var(axis=0))))
    h = found.settings["bandwidth"]  # rounded in the record
    theirs = KernelDensity(bandwidth=h).fit(train / scale).score_samples(held_out / scale) - np.log(scale).sum()
    np.testing.assert_allclose(found.log_density, theirs, atol=0.02)
    assert abs(found.mean - _two_lumps_log_density(held_out).mean()) < 0.15


def test_scores_move_with_the_unit_of_the_columns():
    generator = np.random.default_rng(2)
    train, held_out = generator.normal(size=(400, 3)), generator.normal(size=(100, 3))
    factor = np.array([1e-3, 1.0, 1e4])
    for baseline in (gaussian_mixture, kernel_density):
        plain, scaled = baseline(train, held_out), baseline(train * factor, held_out * factor)
        assert scaled.mean == pytest.approx(plain.mean - np.log(factor).sum(), abs=0.05)


@pytest.mark.slow
def test_digits_in_bits_per_dimension():
    from sklearn.datasets import load_digits

    generator = np.random.default_rng(0)
    pixels = load_digits().data
    order = generator.permutation(len(pixels))
    rows = pixels[order] + generator.uniform(size=pixels.shape)
    mixture = likelihood(
        "mixture", gaussian_mixture(rows[:1437], rows[1437:]).log_density, unit="bits/dim", dimension=64
    )
    kernel = likelihood("kernel", kernel_density(rows[:1437], rows[1437:]).log_density, unit="bits/dim", dimension=64)
    # The usual settings get 2.78 and 3.19; a weaker baseline would flatter every model beside it.
    assert 2.5 < mixture.mean < 2.70
    assert 2.9 < kernel.mean < 3.10


def test_bits_per_dimension_of_the_uniform():
    # 256 equally likely values: 8 bits whatever the number of columns.
    nats = np.full(10, -3 * np.log(256.0))
    score = likelihood("uniform", nats, unit="bits/dim", dimension=3)
    assert score.mean == pytest.approx(8.0)
    assert score.standard_error == pytest.approx(0.0, abs=1e-12)


def test_wide_rows_are_bounded_and_said_so(monkeypatch):
    from nablax.app._report import _baselines

    monkeypatch.setattr(_baselines, "WORK", 1e6)
    monkeypatch.setattr(_baselines, "MAX_ROWS", 100)
    rows = np.random.default_rng(3).normal(size=(300, 30))
    found = gaussian_mixture(rows[:250], rows[250:])
    assert "100 of 250" in found.note and "left out" in found.note
    assert np.isfinite(found.log_density).all()


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        (np.zeros((50, 2)), np.zeros((5, 3))),
        (np.zeros((5, 2)), np.zeros((5, 2))),
        (np.full((50, 2), np.nan), np.zeros((5, 2))),
    ],
)
def test_unusable_rows_are_refused(train, held_out):
    for baseline in (gaussian_mixture, kernel_density):
        with pytest.raises(ValueError, match="expected"):
            baseline(train, held_out)
