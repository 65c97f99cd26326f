"""Planted copies are found, fresh rows are not blamed."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from nablax.app._report._judge_samples import fresh
from nablax.app._report._memorised import memorised


def _draw(generator, count, dim=5):
    return generator.normal(size=(count, dim)) @ np.diag([1.0, 2.0, 0.1, 30.0, 1e-3][:dim])


def test_fresh_rows_are_not_flagged_more_often_than_promised():
    generator = np.random.default_rng(0)
    flags = [
        memorised(_draw(generator, 300), _draw(generator, 150), _draw(generator, 150)).p_value < 0.05 for _ in range(60)
    ]
    assert np.mean(flags) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_the_null_is_beta_binomial_exactly():
    # Distances from one continuous law: the count below the r-th smallest of m has a known law.
    from scipy.stats import betabinom

    generator = np.random.default_rng(1)
    counts = np.array([np.sum(generator.random(40) < np.sort(generator.random(250))[1]) for _ in range(20000)])
    for k in range(3):
        assert np.mean(counts >= k + 1) == pytest.approx(betabinom.sf(k, 40, 2, 249), abs=0.01)
    rows = generator.normal(size=(900, 2))
    found = memorised(rows[:400], rows[400:650], rows[650:690])
    close = round(found.share_close * 40)
    assert found.p_value == pytest.approx(betabinom.sf(close - 1, 40, 2, 249))
    assert found.expected_share == pytest.approx(2 / 251)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_planted_copies_are_found(noise):
    generator = np.random.default_rng(2)
    train, held_out, samples = _draw(generator, 500), _draw(generator, 200), _draw(generator, 200)
    samples[:40] = train[:40] + noise * train.std(axis=0) * generator.normal(size=(40, 5))
    found = memorised(train, held_out, samples)
    assert found.p_value < 1e-3
    assert found.share_close == pytest.approx(0.2, abs=0.03)
    assert found.share_copied == (0.2 if noise == 0.0 else 0.0)
    assert (found.copied_p_value < 1e-6) == (noise == 0.0)
    # The pairs named are the planted ones.
    assert np.all(found.closest[:, 0] < 40)
    np.testing.assert_array_equal(found.closest[:, 0], found.closest[:, 1])


def test_distances_are_brute_force():
    generator = np.random.default_rng(3)
    train, held_out, samples = _draw(generator, 60), _draw(generator, 30), _draw(generator, 20)
    found = memorised(train, held_out, samples)
    scale = train.std(axis=0)
    for rows, distance in ((held_out, found.held_out_distance), (samples, found.sample_distance)):
        expected = np.linalg.norm((rows[:, None] - train) / scale, axis=2).min(axis=1)
        np.testing.assert_allclose(distance, expected, rtol=1e-9)


def test_coarse_tables_repeat_themselves_without_blame():
    generator = np.random.default_rng(4)
    train, held_out, samples = (generator.integers(0, 3, size=(n, 3)).astype(float) for n in (300, 150, 150))
    found = memorised(train, held_out, samples)
    assert found.share_copied > 0.9 and found.held_out_share_copied > 0.9
    assert found.copied_p_value > 0.01 and found.p_value > 0.01
    assert found.train_share_copied == pytest.approx(found.held_out_share_copied, abs=0.02)
    assert not list(fresh(SimpleNamespace(memorised=found)))


def test_fresh_rows_that_are_training_rows_are_told():
    generator = np.random.default_rng(4)
    train, samples = generator.normal(size=(2, 300, 3))
    for rows, share in ((train[:200], 1.0), (np.concatenate([train[:50], samples[:150]]), 0.25), (samples, 0.0)):
        found = memorised(train, rows, samples)
        assert (found.held_out_share_copied, found.train_share_copied) == (share, 0.0)
        told = list(fresh(SimpleNamespace(memorised=found)))
        assert [finding.level for finding in told] == ["warning"] * (share > 0)
        assert all(f"{share:.0%} of the rows that it is checked on are training rows" in f.text for f in told)


def test_copies_are_counted_on_the_tables_own_values():
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(90, 1))
    frame = pl.DataFrame({"size": rows[:, 0], "kind": [None, "a", "b"] * 30})
    frames = (frame[:50], frame[50:70], pl.concat([frame[:5], frame[75:]]))
    encoded = (rows[:50], rows[50:70], np.concatenate([rows[:5], rows[75:]]))
    assert memorised(*encoded, values=frames).share_copied == pytest.approx(5 / 20)
    holes = np.array([[1.0, np.nan], [2.0, 0.0], [3.0, 1.0]])
    assert memorised(holes, holes[1:] + 0.5, holes[:1]).share_copied == 1.0


def test_unusable_rows_are_refused():
    with pytest.raises(ValueError, match="one width"):
        memorised(np.zeros((5, 2)), np.zeros((5, 2)), np.zeros((0, 2)))
