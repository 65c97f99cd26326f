"""What the claims about rectified flow and multisample couplings rest on: their sets and distances."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from nablax.papers._problems import _plane
from nablax.papers.transport import _plane_table
from nablax.transport import independent_coupling

KEY = jax.random.key(0)


def test_wasserstein_is_exact():
    generator = np.random.default_rng(0)
    left, right = _plane.normal(generator, 300), _plane.ring(generator, 300)
    costs = ((left[:, None].astype(float) - right[None]) ** 2).sum(-1)
    assert _plane.wasserstein(left, right) == pytest.approx(np.sqrt(costs[linear_sum_assignment(costs)].mean()))
    assert _plane.wasserstein(left, left[::-1]) == pytest.approx(0, abs=1e-6)
    assert _plane.wasserstein(left, left + np.float32([3, 4])) == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize(
    ("sampler", "mean", "second"),
    [
        (_plane.normal, (0, 0), 2),
        (_plane.ring, (0, 0), 25 + 2),
        (_plane.moons, (0, 0.5), None),
        (_plane.s_curve, (0, 0), None),
        (_plane.wide_ring, (0, 0), 144 + 2 * 1.5**2),
    ],
)
def test_sets_have_the_moments_they_should(sampler, mean, second):
    points = sampler(np.random.default_rng(0), 40_000)
    assert points.shape == (40_000, 2) and points.dtype == np.float32
    np.testing.assert_allclose(points.mean(0), mean, atol=0.15)
    if second is not None:
        assert (points.astype(float) ** 2).sum(1).mean() == pytest.approx(second, rel=0.02)
    assert not np.array_equal(points[:5], sampler(np.random.default_rng(1), 40_000)[:5])


def test_wide_moons_are_standardised():
    points = _plane.wide_moons(np.random.default_rng(0), 1000)
    assert points.mean() == pytest.approx(0, abs=1e-4) and points.std() == pytest.approx(7, rel=1e-4)


def test_sets_are_those_of_scikit_learn():
    sets = pytest.importorskip("sklearn.datasets")
    moons = 2 * sets.make_moons(800, noise=0.05, random_state=0)[0] - [1, 0]
    curve = 1.5 * sets.make_s_curve(800, noise=0.05, random_state=0)[0][:, [0, 2]]
    generator = np.random.default_rng(0)
    for ours, theirs in ((_plane.moons, moons), (_plane.s_curve, curve)):
        distance = _plane.wasserstein(ours(generator, 800), theirs)
        assert distance < 2.5 * _plane.wasserstein(ours(generator, 800), ours(generator, 800))
        assert distance < 0.3 < _plane.wasserstein(ours(generator, 800), theirs + 0.5)


def test_smoothing_moves_whole_segments():
    data = _plane.ring(np.random.default_rng(0), 500)
    sharp = _plane.coupled(data, independent_coupling, 50, key=KEY)(3, 4)
    smooth = _plane.coupled(data, independent_coupling, 50, key=KEY, smoothing=0.5)(3, 4)
    shift = smooth["data"] - sharp["data"]
    np.testing.assert_allclose(shift, smooth["noise"] - sharp["noise"], atol=1e-5)
    assert shift.std() == pytest.approx(0.5, rel=0.15)


def test_a_pool_repeats_its_batches_and_nothing_else():
    data = _plane.ring(np.random.default_rng(0), 500)
    pooled = _plane.coupled(data, independent_coupling, 50, key=KEY, pool=3)
    batches = pooled(0, 9)["data"]
    np.testing.assert_array_equal(batches[:3], batches[3:6])
    np.testing.assert_array_equal(pooled(4, 1)["data"][0], batches[1])
    assert not np.array_equal(batches[0], batches[1])


def test_pairs_stay_together():
    pairs = {"noise": np.arange(100.0)[:, None], "data": 2 * np.arange(100.0)[:, None]}
    source = _plane.together(pairs, 20, key=KEY)
    batch = source(5, 3)
    np.testing.assert_array_equal(batch["data"], 2 * batch["noise"])
    np.testing.assert_array_equal(source(7, 1)["data"][0], batch["data"][2])


def test_networks_trained_side_by_side_are_those_trained_alone_in_kind():
    """Each network learns its own source and none of its neighbour's."""
    sources = [
        _plane.coupled(np.full((64, 2), value, np.float32), independent_coupling, 32, key=KEY) for value in (2.0, -2.0)
    ]
    networks = _plane.learn(sources, key=KEY, batch_size=32, steps=300)
    starts = _plane.normal(np.random.default_rng(0), 64)
    for network, value in zip(networks, (2.0, -2.0), strict=True):
        np.testing.assert_allclose(np.asarray(_plane.follow_euler(network, starts, 10)).mean(0), value, atol=0.5)


def test_the_table_runs_small():
    size = _plane_table.Size(seeds=2, points=200, steps=100, batch=64, pool=20, euler=20)
    column = "normal → s-curve"
    seen = []
    cells = _plane_table.table(KEY, columns=[column], methods=["OT-CFM", "FM"], size=size, report=seen.append)
    assert [(cell.method, cell.column) for cell in cells] == [("OT-CFM", column), ("FM", column)]
    assert seen == cells
    for cell in cells:
        assert cell.distance.shape == cell.energy.shape == (2,)
        assert np.all(cell.distance > 0.3)  # after so few steps nothing fits
    assert "stated 0.144 ± 0.028" in cells[0].line()


def test_the_table_tells_a_right_number_from_a_wrong_one(monkeypatch):
    """Cells made up from the stated numbers hold; with one of them displaced, that one fails and no other."""

    def cells(key, *, size=None, report=None, displaced=None):
        made = []
        for method, row in _plane_table.STATED.items():
            for column, stated in zip(_plane_table.COLUMNS, row, strict=True):
                if stated is not None:
                    values = [mean + np.array([-0.5, 0.5]) * error for mean, error in stated]
                    if (method, column) == displaced:
                        values[0] = values[0] + 4 * stated[0][1]
                    made.append(_plane_table.Cell(method, column, *values))
        return made

    monkeypatch.setattr(_plane_table, "table", cells)
    checks = _plane_table.checks(KEY)
    assert len(checks) == 30 and all(check.holds for check in checks)
    contrast = [check for check in checks if "no contrast" not in check.baseline]
    assert len(contrast) >= 18
    monkeypatch.setattr(_plane_table, "table", lambda *a, **k: cells(*a, **k, displaced=("OT-CFM", "normal → moons")))
    failed = [check.statement for check in _plane_table.checks(KEY) if not check.holds]
    assert failed == ["OT-CFM, normal → moons: W2"]
