"""The bank of tables: its figures against closed forms and brute force, its stored cells, and what the pages show of them."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks import _table_density as density  # noqa: E402
from benchmarks import _table_figures as figures  # noqa: E402
from benchmarks import _table_report as report  # noqa: E402
from benchmarks import _tables, tables  # noqa: E402

sys.path.remove(str(ROOT))


def normal(rows, columns=1, seed=0, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(rows, columns)) + shift
    return pl.DataFrame({f"c{j}": x[:, j] for j in range(columns)})


def test_the_classifiers_area_is_that_of_two_normals():
    """Φ(d / √2) is the best that can be had of a shift by d."""
    same, error = figures.auc(normal(500), normal(500, seed=1))
    assert abs(same - 0.5) < 3 * error < 0.06
    apart, error = figures.auc(normal(500), normal(500, seed=1, shift=1.0))
    best = 0.5 * (1 + math.erf(0.5))
    assert best - 0.06 < apart < best + 3 * error


def test_text_and_missing_cells_give_samples_away():
    real = pl.DataFrame({"x": [1.0, None] * 100, "t": ["a", "b"] * 100})
    assert figures.auc(real, real.with_columns(pl.col("x").fill_null(1.0)))[0] > 0.7
    assert figures.auc(real, real.with_columns(pl.lit("new").alias("t")))[0] > 0.99


def test_distances_of_columns():
    real = pl.DataFrame(
        {"x": np.arange(100.0), "t": ["a"] * 75 + ["b"] * 25, "day": pl.Series(range(100)).cast(pl.Date)}
    )
    made = real.with_columns(pl.col("x") + 30.0, pl.lit("a").alias("t"), pl.col("day") + pl.duration(days=50))
    assert figures.marginals(real, made) == pytest.approx({"x": 0.3, "t": 0.25, "day": 0.5})


def test_correlations_that_are_gone():
    x = np.arange(500.0)
    real = pl.DataFrame({"x": x, "y": x**3, "z": -x})
    assert figures.correlation_error(real, real) == 0.0
    mixed = pl.DataFrame({n: np.random.default_rng(j).permutation(x) for j, n in enumerate("xyz")})
    assert figures.correlation_error(real, mixed) == pytest.approx(1.0, abs=0.1)


def test_shares_of_values_that_recur():
    train = pl.DataFrame({"x": [0.0] * 300 + list(np.linspace(1, 2, 700))})
    made = pl.DataFrame({"x": [0.0] * 350 + [1e-3] * 50 + list(np.linspace(1, 2, 600))})
    ((place, (p, q, errors)),) = figures.atoms(train, made).items()
    assert place == ("x", 0.0) and (p, q) == (0.3, 0.35)
    assert errors == pytest.approx(0.05 / math.sqrt(0.3 * 0.7 * 2 / 1000))


def test_light_tails_are_seen():
    x = np.random.default_rng(0).pareto(2.0, 4000)
    assert all(
        low <= q <= high for q, _, low, high in figures.tails(pl.DataFrame({"x": x}), pl.DataFrame({"x": x})).values()
    )
    ((q, _, low, _),) = figures.tails(pl.DataFrame({"x": x}), pl.DataFrame({"x": np.minimum(x, 5.0)})).values()
    assert q == 5.0 < low


def test_a_predictor_of_noise_has_lost_all():
    x = np.random.default_rng(0).normal(size=600)
    train = pl.DataFrame({"x": x, "y": np.where(x > 0, "a", "b")})
    held_out = train[:200]
    assert figures.trained_on_samples(train, held_out, train, "y") == 0.0
    noise = train.with_columns(pl.col("y").shuffle(seed=0))
    assert figures.trained_on_samples(train, held_out, noise, "y") > 0.3


@pytest.mark.parametrize("coarse", [False, True])
def test_copies_are_nearer_than_fresh_rows(coarse):
    frames = [normal(800, 3, seed) for seed in range(3)]
    if coarse:  # distances of zero everywhere
        frames = [f.select(pl.all().round().cast(pl.String)) for f in frames]
    train, held_out, fresh = frames
    assert figures.copies(train, held_out, fresh) == pytest.approx(0.5, abs=0.05)
    assert figures.copies(train, held_out, train) > (0.5 if coarse else 0.99)


def test_coverage_is_exact_where_draws_are_few_and_numbers_recur():
    """An interval between two of the draws, ends included, holds nearly all of what is zero or one."""
    random = np.random.default_rng(0)
    for truth, draws in [(random.normal(size=4000), random.normal(size=(4000, 5)))] + [
        (1.0 * (random.random(4000) < 0.3), 1.0 * (random.random((4000, m)) < 0.3)) for m in (5, 64)
    ]:
        frame = pl.DataFrame({"x": truth})
        found = figures.imputation(frame, np.ones((4000, 1), bool), frame, {"x": draws})
        for nominal in (80, 90):
            band = 2.6 * math.sqrt(nominal / 100 * (1 - nominal / 100) / 4000)
            assert abs(found[f"coverage_{nominal}"] - nominal / 100) < band
    low, high = np.quantile(draws, [0.1, 0.9], axis=1)
    assert np.mean((low <= truth) & (truth <= high)) > 0.99
    sure = figures.imputation(frame, np.ones((4000, 1), bool), frame, {"x": draws * 0})
    assert sure["coverage_80"] < 0.75


def test_errors_of_what_was_filled_in():
    truth = pl.DataFrame({"x": [0.0, 2.0, 4.0, 6.0], "t": ["a", "b", "c", "d"]})
    filled = pl.DataFrame({"x": [0.0, 2.0, 5.0, 3.0], "t": ["a", "x", "c", "x"]})
    gone = np.array([[False, False], [False, True], [True, True], [True, True]])
    draws = np.random.default_rng(0).normal(size=(4, 7))
    found = figures.imputation(truth, gone, filled, {"x": draws})
    assert found["nrmse"] == pytest.approx(math.sqrt((1 + 9) / 2) / math.sqrt(5))
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert (found["numbers"], found["categories"]) == (2, 3)
    brute = []
    for row, x in ((2, 4.0), (3, 6.0)):
        pairs = [abs(a - b) for i, a in enumerate(draws[row]) for j, b in enumerate(draws[row]) if i != j]
        brute.append(np.mean(np.abs(draws[row] - x)) - 0.5 * np.mean(pairs))
    assert found["crps"] == pytest.approx(np.mean(brute) / math.sqrt(5))


def test_a_cell_has_the_width_of_its_column():
    frame = pl.DataFrame({"whole": [3, 8, 23], "fives": [0.05, 0.15, 0.2], "none": [0.1, math.pi, math.e]})
    assert density.steps(frame) == pytest.approx({"whole": 5.0, "fives": 0.05, "none": 1.0})


def test_probabilities_of_all_cells_are_one_in_sum(tmp_path):
    """Of a Gaussian mixture and of leaves alike: the unit is that of ours, a probability of what is written."""
    whole = np.random.default_rng(0).normal(20.0, 5.0, size=400).round()
    pl.DataFrame({"x": whole / 2}).write_csv(tmp_path / "train.csv")
    every = np.arange(-20.0, 60.0) / 2
    pl.DataFrame({"x": every}).write_csv(tmp_path / "held_out.csv")
    assert np.exp(density.mixture(tmp_path, 0)).sum() == pytest.approx(1.0, abs=0.02)
    column = lambda *values: np.array(values, float)[:, None]  # noqa: E731
    nats = density.leaves_nats(
        every[:, None], np.array([0.5]), np.array([0.25, 0.5, 0.25]),
        column(4.0, 11.0, 15.0), column(2.0, 3.0, 0.0), column(-math.inf, 9.25, -math.inf), column(9.25, math.inf, math.inf),
    )  # fmt: skip
    assert np.exp(nats).sum() == pytest.approx(1.0, abs=1e-3)
    assert np.exp(nats[every == 15.0]) > 0.25 > 0.05 > np.exp(nats[every == 14.5])


def test_holes_are_where_cells_were_and_nowhere_else():
    frame = normal(500, 4).with_columns(pl.when(pl.col("c0") > 0).then(pl.col("c1")).alias("c1"))
    made, gone = _tables.holes(frame, 0.2, 0)
    assert not gone[frame["c1"].is_null().to_numpy(), 1].any()
    for j, name in enumerate(frame.columns):
        left = ~gone[:, j] & frame[name].is_not_null().to_numpy()
        assert (made[name].is_not_null().to_numpy() == left).all()
        assert (made[name].drop_nulls() == frame[name].filter(pl.Series(left))).all()
    assert gone[:, 0].mean() == pytest.approx(0.2, abs=0.06)


def test_tables_come_back_from_their_files(tmp_path):
    frame = pl.DataFrame(
        {
            "x": [1, None, 3],
            "t": ["a", "NA", None],
            "b": [True, False, True],
            "d": pl.Series([1, None, 3]).cast(pl.Date),
        }
    )
    frame.write_csv(tmp_path / "t.csv")
    train = _tables.read(tmp_path / "t.csv")
    assert train.equals(frame)
    again = _tables.read(tmp_path / "t.csv", train)
    assert again.select(pl.exclude("x")).equals(frame.select(pl.exclude("x")))
    assert again["x"].to_list() == [1.0, None, 3.0]


def test_what_a_kill_leaves_of_a_row_is_lost_alone(tmp_path):
    file = tmp_path / "tables.csv"
    row = {"table": "nmes", "seed": 0, "method": "arf", "code": "arfpy 1", "outcome": "done", "auc": 0.5}
    tables.append(row, file)
    whole = file.read_bytes()
    tables.append({**row, "seed": 1, "outcome": "stopped: a, b\nc"}, file)
    added = file.read_bytes()[len(whole) :]
    for cut in range(len(added)):
        file.write_bytes(whole + added[:cut])
        assert tables.stored(file).keys() == {("nmes", 0, "arf")}
        tables.append({**row, "seed": 2}, file)
        assert tables.stored(file).keys() == {("nmes", 0, "arf"), ("nmes", 2, "arf")}
    tables.append({**row, "auc": 0.75, "code": "arfpy 2"}, file)
    last = tables.stored(file)["nmes", 0, "arf"]
    assert (last["auc"], last["code"]) == ("0.75", "arfpy 2")


def test_cells_that_tell_most_come_first():
    order = tables.cells(dict.fromkeys(tables.METHODS, ""))
    assert len(order) == len(set(order)) == len(tables.METHODS) * len(tables.SEEDS) * len(_tables.TABLES)
    assert order[:3] == [("penguins", 0, "nablax"), ("penguins", 0, "arf"), ("penguins", 0, "copula")]
    assert order.index(("economics", 0, "nablax")) < order.index(("penguins", 1, "nablax"))
    assert order.index(("economics", 2, "nablax")) < order.index(("penguins", 0, "ctgan"))


def test_a_process_is_ended_at_its_limit():
    with pytest.raises(tables.Stopped, match="over 1 CPU s"):
        tables.capped([sys.executable, "-c", "while True: pass"], dict(os.environ), 1)
    with pytest.raises(tables.Stopped, match="ValueError: no"):
        tables.capped([sys.executable, "-c", "raise ValueError('no')"], dict(os.environ), 9)
    assert tables.capped([sys.executable, "-c", "print('x'); print('RESULT {\"a\": 1}')"], dict(os.environ), 9) == {
        "a": 1
    }


def stand(*rows):
    names = dict.fromkeys(tables.NAMES, "")
    return {
        (r["table"], r["seed"], r["method"]): {**names, "outcome": "done", **{n: str(v) for n, v in r.items()}}
        for r in rows
    }


def test_ranks_and_spreads():
    rows = stand(
        *({"table": t, "seed": s, "method": m, "auc": a + s / 10} for s in (0, 1) for t, m, a in [
            ("nmes", "nablax", 0.7), ("nmes", "arf", 0.6), ("nmes", "copula", 0.7),
            ("wage", "nablax", 0.5), ("wage", "arf", 0.6), ("wage", "copula", 0.7), ("wage", "tvae", 0.1),
            ("cps", "nablax", 0.3), ("cps", "arf", 0.35), ("cps", "copula", 0.7),  # what is below a half is chance
        ]),
    )  # fmt: skip
    figure = report.DRAWING["auc"]
    assert report.ranks(rows, figure) == {"nablax": [2.5, 1.0, 1.5], "arf": [1.0, 2.0, 1.5], "copula": [2.5, 3.0, 3.0]}
    assert report.gather(rows, figure)["nmes", "arf"][:2] == pytest.approx((0.65, 0.1 / math.sqrt(2)))


def test_what_is_beaten_is_shown_as_beaten():
    rows = stand(
        {"table": "nmes", "seed": 0, "method": "nablax", "auc": 0.7, "auc_error": 0.02, "nrmse": 1.0, "coverage_80": 0.7, "numbers": 400},
        {"table": "nmes", "seed": 0, "method": "arf", "auc": 0.6, "auc_error": 0.02},
        {"table": "nmes", "seed": 0, "method": "neighbours", "nrmse": 0.9, "numbers": 400},
    )  # fmt: skip
    text = report.whole(rows)
    assert "| nmes | 0.70 ± 0.02 | **0.60** ± 0.02 |" in text
    assert "| nmes | 1.000 | **0.900** |" in text
    assert "| nmes | 0.700 † |" in text
    assert "Not run yet: copula, mixture," in text
    beside = {"table": "nmes", "seed": 0, "method": "copula", "auc": 0.65, "auc_error": 0.02}
    said = "\n".join(report.asked(rows | stand(beside)))
    assert "shares | in 0 of 1 |" in said and "| last 1 of 1 times |" in said
    assert "| AUC on nmes at most 0.60 | 0.70 ± 0.02 |" in said
    assert "least error, on every table | 0 of 1 tables |" in said
    assert "coverage at 80 % within the binomial band, on every table | 0 of 1 tables |" in said


def test_ours_is_set_beside_a_peer_at_the_seeds_of_both():
    row = {"table": "cps", "numbers": 100}
    rows = stand(
        *({**row, "seed": s, "method": "nablax", "nrmse": e, "nats": -e} for s, e in enumerate([0.4, 0.9, 0.8])),
        {**row, "seed": 0, "method": "miceforest", "nrmse": 0.5, "nats": -0.5},
        *({**row, "seed": s, "method": "neighbours", "nrmse": 0.6, "nats": -0.6} for s in (1, 2)),
    )
    pairs = report.beside(rows, report.FILLING["nrmse"])
    assert pairs == {("cps", "miceforest"): (0.4, 0.5), ("cps", "neighbours"): (pytest.approx(0.85), 0.6)}
    said = "\n".join(report.asked(rows))
    assert "least error, on every table | 0 of 1 tables |" in said and "of numbers | 0 of 1 tables |" in said
    del rows["cps", 1, "neighbours"], rows["cps", 2, "neighbours"]
    said = "\n".join(report.asked(rows))
    assert "least error, on every table | 1 of 1 tables |" in said and "of numbers | 1 of 1 tables |" in said


@pytest.mark.parametrize("page, text", [(report.GUIDE, report.summary), (report.README, report.whole)])
def test_the_pages_have_the_stored_tables(page, text):
    shown = page.read_text(encoding="utf-8").split(report.BEGIN)[1].split(report.END)[0]
    assert shown == text(tables.stored())
