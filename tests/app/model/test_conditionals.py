"""A table whose every conditional is known in closed form, learnt through the command's own functions."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom, norm, poisson

from nablax.app._ask._complete import completions
from nablax.app._ask._sample import sample
from nablax.app._ask._score import encode_frame, scored_frame
from nablax.app._errors import UserError
from nablax.app._runs._config import Choices
from nablax.app._runs._learn import configure, learn
from nablax.app._runs._run import load

SHARES = np.array([0.5, 0.3, 0.2])
CENTRES = np.array([[0.0, 0.0], [3.0, 1.0], [-1.0, 4.0]])
CORRELATION = np.array([0.8, -0.5, 0.0])
NONE, RATE = np.array([0.6, 0.2, 0.4]), np.array([12.0, 25.0, 40.0])  # visits: none, or a Poisson count


def rows(count, seed):
    random = np.random.default_rng(seed)
    kind = random.choice(3, count, p=SHARES)
    z, w = random.normal(size=(2, count))
    rho = CORRELATION[kind]
    x = CENTRES[kind, 0] + z
    y = CENTRES[kind, 1] + rho * z + np.sqrt(1 - rho**2) * w
    visits = np.where(random.random(count) < NONE[kind], 0, random.poisson(RATE[kind]))
    heavy = np.exp(1.5 * random.normal(size=count))
    return pl.DataFrame({"kind": np.array(["a", "b", "c"])[kind], "x": x, "y": y, "visits": visits, "heavy": heavy})


def kinds(frame):
    return np.searchsorted(["a", "b", "c"], frame["kind"].to_numpy())


def log_parts(frame, kind):
    """Log-densities of x given kind, y given x and kind, visits and heavy."""
    x, y, visits, heavy = (frame[name].to_numpy() for name in ("x", "y", "visits", "heavy"))
    rho = CORRELATION[kind]
    zero = NONE[kind] + (1 - NONE[kind]) * poisson.pmf(0, RATE[kind])
    counted = np.where(visits == 0, zero, (1 - NONE[kind]) * poisson.pmf(visits, RATE[kind]))
    return (
        norm.logpdf(x, CENTRES[kind, 0]),
        norm.logpdf(y, CENTRES[kind, 1] + rho * (x - CENTRES[kind, 0]), np.sqrt(1 - rho**2)),
        np.log(counted),
        norm.logpdf(np.log(heavy) / 1.5) - np.log(1.5 * heavy),
    )


def joint(frame):
    return np.log(SHARES)[kinds(frame)] + sum(log_parts(frame, kinds(frame)))


def posterior(frame, *, visits=True):
    """p(kind | the others) [rows, 3]."""
    full = np.full(len(frame), 0)
    logs = [np.log(SHARES[k]) + sum(log_parts(frame, full + k)[: 3 if visits else 2]) for k in range(3)]
    chances = np.exp(np.array(logs).T - np.max(logs, axis=0)[:, None])
    return chances / chances.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    rows(5000, 0).write_parquet(folder / "known.parquet")
    choices = Choices(width=64, depth=2, steps=3000, held_out=0.02, validation=0.1)
    config, opened = configure(str(folder / "known.parquet"), choices=choices)
    return load(learn(config, opened, folder / "run", notice=lambda line: None).path)


@pytest.fixture(scope="module")
def fresh():
    return rows(500, 1)


def nats(model, frame, given=()):
    scored = scored_frame(model, frame, draws=2, given=given)
    return scored.frame["log_likelihood_nats"].to_numpy()


def test_the_joint_log_likelihood_is_the_truth_less_what_was_not_learnt(model, fresh):
    gap = nats(model, fresh) - joint(fresh)
    error = gap.std() / np.sqrt(len(gap))
    assert -0.3 < gap.mean() < 3 * error  # no model is better than the truth, on average


@pytest.mark.parametrize(
    ("given", "truth"),
    [
        (("x", "y", "visits", "heavy"), lambda f: np.log(posterior(f)[np.arange(len(f)), kinds(f)])),
        (("kind", "y", "visits", "heavy"), lambda f: backwards(f)),
        (("kind", "x", "y", "heavy"), lambda f: log_parts(f, kinds(f))[2]),
        (("kind", "x", "visits", "heavy"), lambda f: log_parts(f, kinds(f))[1]),
        (("kind",), lambda f: sum(log_parts(f, kinds(f)))),
    ],
    ids=["category given all", "x given what follows", "visits given all", "y given all", "all given the category"],
)
def test_conditional_log_likelihoods_are_the_truth_within_error(model, fresh, given, truth):
    gap = nats(model, fresh, given) - truth(fresh)
    error = gap.std() / np.sqrt(len(gap))
    assert -0.2 < gap.mean() < 3 * error
    assert np.abs(gap).mean() < 0.25


def backwards(frame):
    """log p(x | kind, y): the same as of y given x with the places exchanged."""
    kind = kinds(frame)
    rho, x, y = CORRELATION[kind], frame["x"].to_numpy(), frame["y"].to_numpy()
    return norm.logpdf(x, CENTRES[kind, 0] + rho * (y - CENTRES[kind, 1]), np.sqrt(1 - rho**2))


def test_what_is_given_and_what_follows_from_it_make_the_whole(model, fresh):
    # log p(all) - log p(the others | kind) = log p(kind), whose shares are known.
    gap = nats(model, fresh) - nats(model, fresh, ("kind",))
    shares = np.array([gap[kinds(fresh) == k].mean() for k in range(3)])
    np.testing.assert_allclose(np.exp(shares), SHARES, atol=0.03)


@pytest.mark.parametrize("name", ["x", "y"])
def test_completions_cover_as_often_as_they_say(model, name):
    frame = rows(500, 2)
    base, _ = encode_frame(model, frame.with_columns(pl.lit(None, pl.Float64).alias(name)), holes=True)
    drawn = np.stack([table[name].to_numpy() for table in completions(model, base, 39, seed=0)], axis=1)
    truth = frame[name].to_numpy()
    below = (drawn < truth[:, None]).sum(axis=1)  # uniform on 0 … 39 where the draws are right
    for nominal, (low, high) in {0.8: (4, 36), 0.9: (2, 38)}.items():
        inside = int(((below >= low) & (below < high)).sum())
        # Two columns at two levels: four bands of 98.75 % hold together in 95 of 100 runs.
        least, most = binom.interval(1 - 0.05 / 4, len(frame), nominal)
        assert least <= inside <= most


def test_categories_are_completed_with_their_chances(model):
    frame = rows(1000, 3)
    base, _ = encode_frame(model, frame.with_columns(pl.lit(None, pl.String).alias("kind")), holes=True)
    drawn = [table["kind"].to_numpy() for table in completions(model, base, 64, seed=0)]
    found = np.stack([np.mean([cells == letter for cells in drawn], axis=0) for letter in "abc"], axis=1)
    assert np.abs(found - posterior(frame)).mean() < 0.06
    # Calibrated: where the model says a chance, that share of the rows has it.
    for k in range(3):
        sure = (found[:, k] > 0.6) & (found[:, k] < 0.95)
        hits = (kinds(frame) == k)[sure]
        assert abs(hits.mean() - found[sure, k].mean()) < 3 * np.sqrt(0.25 / max(sure.sum(), 1)) + 0.03


def test_atoms_and_tails_come_back(model):
    learned = rows(5000, 0)
    drawn = sample(model, 4000, seed=4).frame
    share, found = (np.mean(f["visits"].to_numpy() == 0) for f in (learned, drawn))
    assert abs(found - share) < 2.5 * np.sqrt(share * (1 - share) * (1 / 5000 + 1 / 4000))
    random = np.random.default_rng(5)
    again = [np.quantile(random.choice(learned["heavy"].to_numpy(), 4000), 0.999) for _ in range(400)]
    low, high = np.quantile(again, [0.005, 0.995])
    assert low <= np.quantile(drawn["heavy"].to_numpy(), 0.999) <= high


def test_any_column_conditions_samples_though_none_was_named(model):
    drawn = sample(model, 1500, seed=6, condition={"kind": "b", "y": "1.5"}).frame
    assert set(drawn["kind"]) == {"b"} and set(drawn["y"]) == {1.5}
    # x given y = 1.5 in kind b: mean 3 - 0.5 (1.5 - 1), spread sqrt(1 - 0.25).
    # A shift of 0.25 costs 0.04 nats: the same that scores are held to.
    assert drawn["x"].mean() == pytest.approx(2.75, abs=0.25)
    assert drawn["x"].std() == pytest.approx(np.sqrt(0.75), abs=0.12)
    assert np.mean(drawn["visits"].to_numpy() == 0) == pytest.approx(0.2, abs=0.06)
    given = sample(model, 1500, seed=7, condition={"visits": "0"}).frame
    chances = SHARES * NONE / (SHARES * NONE).sum()
    np.testing.assert_allclose([np.mean(given["kind"].to_numpy() == k) for k in "abc"], chances, atol=0.06)


def test_guides_by_rejection_are_exact_and_rare_ones_are_steered(model):
    drawn = sample(model, 600, seed=8, guide="x > 1.5 and kind == 'a'")
    assert "exact draws" in " ".join(drawn.notices)
    assert drawn.frame["x"].min() > 1.5 and set(drawn.frame["kind"]) == {"a"}
    # The truncated normal's mean.
    assert drawn.frame["x"].mean() == pytest.approx(norm.pdf(1.5) / norm.sf(1.5), abs=0.12)
    rare = sample(model, 50, seed=9, guide="x > 2.6 and kind == 'a'")
    assert "steered" in " ".join(rare.notices) and rare.frame["x"].min() > 2.6


def test_a_rows_score_does_not_depend_on_its_company(model, fresh):
    few = fresh[:8].with_columns(visits=pl.lit(0))  # an atom: nothing is placed at random within a cell
    wild = fresh[8:16].with_columns(visits=pl.lit(0), x=pl.lit(9.0), y=pl.lit(-9.0), heavy=pl.lit(1e-4))
    np.testing.assert_allclose(nats(model, few), nats(model, pl.concat([few, wild]))[:8], atol=1e-3)


def test_nothing_is_left_when_all_is_given(model, fresh):
    with pytest.raises(UserError, match="nothing is left to score"):
        scored_frame(model, fresh, given=tuple(fresh.columns))
