"""A contrast is decided by its numbers: Student's interval of the paired gain, and what the claim asks for."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from nablax import papers
from nablax.papers import Check, Contrast, Curve, Outcome, Paper, _evidence, _runner
from nablax.papers._contrast import pooled
from nablax.papers._shown import difference, with_error

NEW, PLAIN = [1.0, 3.0, 2.0, 1.5], [4.0, 5.0, 6.0, 4.0]


def contrast(new=NEW, *plain, direction="lower", **decides):
    values = {"new": new} | {f"plain {number}": one for number, one in enumerate(plain or [PLAIN])}
    return Contrast("error", values, direction, **decides)


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_the_interval_is_that_of_the_paired_t_test(direction):
    one = contrast(direction=direction)
    test = scipy.stats.ttest_rel(*((PLAIN, NEW) if direction == "lower" else (NEW, PLAIN)))
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose(one.interval, (low, high), rtol=1e-12)
    np.testing.assert_allclose(one.gain / one.gain_error, test.statistic, rtol=1e-12)
    assert one.holds is (direction == "lower") is bool(low > 0)


def test_the_best_baseline_by_its_mean_is_what_is_beaten():
    worse, better = [9.0, 9.0, 9.0, 9.0], [1.5, 3.5, 2.4, 2.1]
    one = contrast(NEW, worse, better)
    assert one.baseline == "plain 1" and one.baselines == ("plain 0", "plain 1")
    assert one.gain == pytest.approx(0.5) and one.holds
    assert contrast(NEW, worse, better, direction="higher").baseline == "plain 0"


@pytest.mark.parametrize(
    ("direction", "decides", "holds"),
    [
        ("lower", {"margin": 2.8}, True),  # the gain is 2.875
        ("lower", {"margin": 2.9}, False),
        ("lower", {"ratio": 0.4}, True),  # 1.875 of 4.75 is 0.395
        ("lower", {"ratio": 0.39}, False),
        ("lower", {"threshold": 1.9}, True),
        ("lower", {"threshold": 1.8}, False),
        ("lower", {"threshold": 4.8}, False),  # the baseline meets it too
        ("lower", {"margin": 2.8, "ratio": 0.4, "threshold": 1.9}, True),
        ("lower", {"margin": 2.8, "ratio": 0.39, "threshold": 1.9}, False),
        ("higher", {}, False),
    ],
)
def test_what_the_claim_asks_for(direction, decides, holds):
    assert contrast(direction=direction, **decides).holds is holds


@pytest.mark.parametrize(
    ("decides", "holds"),
    [({"margin": 2.8}, True), ({"ratio": 2.5}, True), ({"ratio": 2.6}, False), ({"threshold": 4.7}, True)],
)
def test_higher_is_better_likewise(decides, holds):
    assert contrast(PLAIN, NEW, direction="higher", **decides).holds is holds


def test_a_gain_beyond_what_is_asked_that_is_not_resolved_does_not_hold():
    one = contrast([0.0, 0.0, 0.0], [10.0, -1.0, 0.1], margin=1.0)
    assert one.gain > 1 and one.interval[0] < 0 and not one.holds
    assert one.why == "effect too small to see" and one.detectable > one.gain
    # Two standard errors would have been enough for a normal law; three keys have Student's 4.3.
    narrow = contrast([0.0, 0.0, 0.0], [1.0, 2.0, 4.0])
    assert narrow.gain > 2 * narrow.gain_error and not narrow.holds


def test_a_negative_mean_is_not_beaten_by_a_ratio():
    # Half of -2 is -1, and twice it -4: either would be met by what is hardly better.
    assert contrast([-2.1, -2.2], [-2.0, -2.1]).gain > 0
    assert not contrast([-2.1, -2.15, -2.1], [-2.0, -2.05, -2.0], ratio=0.5).holds
    assert not contrast([-1.9, -1.95, -1.9], [-2.0, -2.05, -2.0], direction="higher", ratio=2.0).holds
    # Nothing is half of nothing, and anything more than twice nothing.
    assert not contrast(0.0, 0.0, ratio=0.5).holds and contrast(0.1, 0.0, direction="higher", ratio=2.0).holds


def test_one_number_is_taken_as_exact():
    one = contrast(1e-12, 3e-2, threshold=1e-10)
    assert one.holds and one.count == 1
    assert one.interval == (one.gain, one.gain) and np.isnan(one.detectable) and np.isnan(one.gain_error)
    assert not contrast(1e-9, 3e-2, threshold=1e-10).holds
    assert contrast(np.float32(2.96), 1.95, direction="higher", margin=1.0).holds


@pytest.mark.parametrize(
    ("new", "plain", "decides", "why"),
    [
        ([1.0, 1.1, 0.9], [3.0, 3.1, 3.2], {}, ""),
        ([3.0, 3.1, 3.2], [1.0, 1.1, 0.9], {}, "contradicts"),
        ([1.0, 1.1, 0.9], [1.0, 1.12, 0.89], {"margin": 0.5}, "no effect here"),  # so much is excluded
        ([1.0, 1.1, 0.9], [0.9, 1.3, 0.65], {}, "no effect here"),  # does not even point there
        ([1.0, 1.1, 0.9], [0.1, 3.0, 1.0], {"margin": 0.5}, "effect too small to see"),
        ([1.0, 1.1, 0.9], [0.0, 2.0, 0.9], {"margin": 0.5}, "effect too small to see"),  # nor is it excluded
        ([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], {}, "no effect here"),
        ([1.0, 1.1, 0.9], [1.5, 1.61, 1.4], {"ratio": 0.5}, "effect too small to see"),  # seen, less than asked
        ([1.0, 1.1, 0.9], [1.5, 1.61, 1.4], {"threshold": 2.0}, "no effect here"),  # all meet it
        ([2.0], [1.0], {"margin": 0.5}, "contradicts"),
    ],
)
def test_why_it_does_not_hold(new, plain, decides, why):
    assert contrast(new, plain, **decides).why == why


@pytest.mark.parametrize("count", [3, 8])
def test_so_large_a_gain_is_resolved_four_times_in_five(count):
    unit = contrast(np.zeros(count), np.concatenate([[np.sqrt(count - 1) * np.sqrt(count)], np.zeros(count - 1)]))
    # In units of the standard error of the mean, whose law the simulation has at deviation 1.
    effect = unit.detectable / unit.gain_error / np.sqrt(count)
    draws = np.random.default_rng(0).normal(effect, 1.0, (4000, count))
    resolved = [contrast(np.zeros(count), draw).interval[0] > 0 for draw in draws]
    assert abs(np.mean(resolved) - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 4000)


@pytest.mark.parametrize("decides", [{}, {"threshold": 0.0}, {"ratio": 1.0}])
def test_noise_alone_holds_as_seldom_as_the_interval_says(decides):
    generator = np.random.default_rng(1)
    runs = 2000
    held = sum(contrast(*generator.normal(size=(2, 3)), **decides).holds for _ in range(runs))
    # One side of a 95 % interval: 2.5 %, and four standard deviations of so many tries.
    assert held / runs < 0.025 + 4 * np.sqrt(0.025 * 0.975 / runs)
    if not decides:
        assert held / runs > 0.025 - 4 * np.sqrt(0.025 * 0.975 / runs)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_however_many_baselines_noise_alone_seldom_holds_and_seldom_contradicts(count):
    generator = np.random.default_rng(2)
    tries = 1000
    outcomes = [contrast(*generator.normal(size=(1 + count, 4))) for _ in range(tries)]
    most = 0.025 + 4 * np.sqrt(0.025 * 0.975 / tries)
    assert np.mean([one.holds for one in outcomes]) < most
    assert np.mean([one.why == "contradicts" for one in outcomes]) < most


def test_a_noisy_baseline_that_looks_worse_by_chance_does_not_lend_the_win_to_an_easy_one():
    generator = np.random.default_rng(3)
    tries = 1000
    new, equal, noise = generator.normal(size=(3, tries, 4))
    # No better than the first baseline, and resolved against the second, which is a little worse on each key.
    easy = new + 0.1 + 0.01 * noise
    held = np.mean([contrast(*three).holds for three in zip(new, equal, easy)])
    assert held < 0.025 + 4 * np.sqrt(0.025 * 0.975 / tries)


def test_the_interval_is_the_lowest_over_baselines_and_the_power_says_what_it_takes():
    new, noisy, steady = [0.0, 0.0, 0.0], [1.0, 3.0, 8.0], [1.0, 1.1, 1.2]
    one = contrast(new, noisy, steady)
    below, above = scipy.stats.t.ppf([0.975, 1 - 0.025 / 2], 2)
    errors = {"noisy": np.std(noisy, ddof=1) / 3**0.5, "steady": 0.1 / 3**0.5}
    assert one.baseline == "plain 1"
    np.testing.assert_allclose(one.interval, (4 - below * errors["noisy"], 1.1 + above * errors["steady"]), rtol=1e-9)
    assert not one.holds and one.why == "effect too small to see"
    assert "better than plain 1 by 1.10" in difference([one]) and "over the best of 2" in difference([one])
    alone = contrast(new, noisy)
    # The noisy one lies 2.9 further off already.
    np.testing.assert_allclose(one.detectable, alone.detectable - 2.9, rtol=1e-9)
    # At a baseline far enough away nothing but the best counts.
    far = contrast(new, [101.0, 103.0, 108.0], steady)
    np.testing.assert_allclose(far.detectable, contrast(new, steady).detectable, rtol=1e-9)
    assert far.holds


@pytest.mark.parametrize("count", [2, 3, 30])
def test_the_power_is_that_of_the_noncentral_t(count):
    numbers = np.random.default_rng(4).normal(size=count)
    one = contrast(np.zeros(count), numbers)
    critical = scipy.stats.t.ppf(0.975, count - 1)
    assert scipy.stats.nct.sf(critical, count - 1, one.detectable / one.gain_error) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "decides", "said"),
    [
        ({"new": [1.0]}, {"margin": 1.0}, "a method and a baseline"),
        ({"new": [1.0, 2.0], "plain": [1.0]}, {}, "one number a key"),
        ({"new": [], "plain": []}, {}, "one number a key"),
        ({"new": [1.0, 2.0], "plain": [1.0, np.inf]}, {}, "finite.*plain"),
        ({"new": [1.0, np.nan], "plain": [1.0, 2.0]}, {}, "finite.*new"),
        ({"new": [[1.0, 2.0]], "plain": [[1.0, 2.0]]}, {}, "one number a key.*shape"),
        ({"new": 1.0, "plain": 2.0}, {}, "a margin, a ratio or a threshold"),
        ({"new": 1.0, "plain": 2.0}, {"ratio": 2.0}, "0 to 1"),
    ],
)
def test_what_cannot_be_decided_is_refused(values, decides, said):
    with pytest.raises(ValueError, match=said):
        Contrast("error", values, "lower", **decides)


def test_other_directions_are_refused():
    with pytest.raises(ValueError, match="'lower' or 'higher'"):
        contrast(direction="down")


def test_numbers_are_kept_as_they_decide():
    one = contrast(np.float64([1 / 3, 2 / 3]), [1.0, 1e-10 / 3])
    assert one.values["new"] == (0.3333333, 0.6666667) and one.values["plain 0"][1] == 3.333333e-11
    assert Contrast(**one.kept()) == one and hash(Contrast(**one.kept())) == hash(one)


def test_runs_are_pooled_key_by_key():
    first = contrast([1.0, 2.0], [3.0, 3.0], settings={"new": ["0.1"]}, seconds={"new": 1.0}, passes={"new": 10})
    second = contrast([0.0, 1.0], [2.0, 5.0], settings={"new": ["0.3"]}, seconds={"new": 2.0}, passes={"new": 20})
    both = pooled([first, second])
    assert both.values == {"new": (1.0, 2.0, 0.0, 1.0), "plain 0": (3.0, 3.0, 2.0, 5.0)}
    assert both.settings == {"new": ("0.1", "0.3")} and both.seconds == {"new": 1.5} and both.passes == {"new": 15}
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _runner.pooled_checks([[Check("a", "b", contrasts=first)], []])


def test_what_does_not_depend_on_the_key_is_one_number_however_often_it_is_run():
    exact = contrast(1.0, 2.0, margin=0.5)
    assert pooled([exact, exact, exact]) == exact and exact.count == 1
    assert pooled([exact, contrast(1.0, 2.1, margin=0.5)]).count == 2


@pytest.mark.parametrize("other", [contrast(1.0, 2.0, margin=0.6), contrast(1.0, 2.0, 3.0, margin=0.5)])
def test_runs_that_ask_for_something_else_are_not_pooled(other):
    with pytest.raises(ValueError, match="same methods and criterion"):
        pooled([contrast(1.0, 2.0, margin=0.5), other])


def test_of_several_words_the_gravest_is_said():
    small, worse = contrast([1.0, 1.1, 0.9], [1.5, 1.61, 1.4], ratio=0.5), contrast(PLAIN, NEW)
    assert Check("a", "b", contrasts=[small, worse]).reason == "contradicts"
    assert Check("a", "b", contrasts=[small, contrast()]).reason == small.why == "effect too small to see"


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.123456789, 1.2e-7, "0.12345679 ± 1.2e-07"),
        (12345.0, 678.0, "1.234e+04 ± 6.8e+02"),
        (2e-9, 3e-8, "2e-09 ± 3e-08"),
    ],
)
def test_a_number_is_shown_to_the_second_digit_of_its_error(value, error, said):
    assert with_error(value, error) == said


def test_a_check_says_what_its_contrasts_say():
    held, missed = contrast(margin=1.0), contrast([1.0, 1.1, 0.9], [1.5, 1.61, 1.4], ratio=0.5)
    check = Check("it falls", "in words", contrasts=[held, missed], moved_from="a margin of 2")
    assert check.holds is False and check.reason == "effect too small to see" and check.surprise
    rows = dict(check.rows())
    assert rows["moved from"] == "a margin of 2" and rows["why"] == check.reason
    assert "new 1.88 ± 0.43, 4 keys" in rows["measured"] and "plain 0 4.75 ± 0.48" in rows["baseline"]
    assert "better than plain 0 by 2.88 ± 0.43" in rows["difference"] and "would have been seen" in rows["difference"]
    assert "by 1 or more" in rows["criterion"] and "at most 0.5 times" in rows["criterion"]
    assert all(text in check.table().replace("\n" + " " * 15, " ") for text in rows.values())
    assert check.tables()[0][1:] == [("new", "1.88", "0.43"), ("plain 0", "4.75", "0.48")]
    one = Check("it falls", "in words", contrasts=held)
    assert one.holds is True and one.reason == "" and "moved from" not in dict(one.rows()) and hash(one)
    assert dataclasses.replace(one, contrasts=missed).holds is False


def test_words_that_the_numbers_say_are_not_given_beside_them():
    with pytest.raises(ValueError, match="protocol out of reach"):
        Check("a", "b", contrasts=contrast(), why="no effect here")
    missed = contrast(PLAIN, NEW)
    assert Check("a", "b", contrasts=missed, why="protocol out of reach").reason == "protocol out of reach"
    assert Check("a", "b", contrasts=contrast(), why="protocol out of reach").reason == ""
    assert Check("a", "b", "c", "d", False, "e", why="contradicts").reason == "contradicts"
    with pytest.raises(ValueError, match="expected contrasts"):
        Check("a", "b", "c", "d")


def test_a_check_draws_its_contrasts_unless_it_has_a_picture_of_its_own(tmp_path):
    curve = Curve("step", [0, 1], {"new": [[2.0, 1.0], [2.0, 1.2]], "plain": [[2.0, 1.9], [2.0, 1.8]]})
    checks = [
        Check("a", "b", contrasts=contrast(threshold=2.0)),
        Check("a", "b", contrasts=contrast(1.0, 2.0, margin=0.5)),
        Check("a", "b", contrasts=contrast(1.0, 2.0, margin=0.5, curve=curve)),
        Check("a", "b", contrasts=contrast(), figure=lambda axes: axes.set(title="its own")),
    ]
    written = papers.draw("a-paper", checks, tmp_path)
    assert [path.name for path in written] == ["a-paper-1.svg", "a-paper-3.svg", "a-paper-4.svg"]
    texts = [path.read_text() for path in written]
    assert "plain 0" in texts[0] and "lower is better" in texts[0]
    assert "step" in texts[1] and "its own" in texts[2]


PAPER = Paper("a-paper", "A Paper", 2020, "https://example.org", ("transport",), 1, "text")


class FakeModule:
    """Two gains in a hundred thousand by the key's own bits."""

    def __init__(self, words):
        self.words, self.keys = words, []

    def checks(self, key, *, full=False):
        self.keys.append(tuple(jax.random.key_data(key).tolist()))
        new = float(jax.random.uniform(key))
        found = [Check("a", "b", contrasts=contrast(new, new + 1 + 0.01 * len(self.keys), margin=0.5))]
        return found + ([Check("a", "b", "c", "d", True, "e")] if self.words else [])


def test_several_keys_decide_together_and_words_are_of_one(monkeypatch, tmp_path):
    key = jax.random.key(5)
    monkeypatch.setattr(_evidence, "_FOLDER", tmp_path)
    monkeypatch.setattr(_runner, "available", lambda: [PAPER])
    for words, used in ((False, 3), (True, 1)):
        fake = FakeModule(words)
        monkeypatch.setattr(_runner, "module", lambda paper, fake=fake: fake)
        outcome = papers.run_all(key=key, keys=3, record=not words)
        assert isinstance(outcome, Outcome) and len(set(fake.keys)) == used and fake.keys[0] == (0, 5)
        assert outcome.checks["a-paper"][0].contrasts[0].count == used
    evidence = papers.recorded()["a-paper"]
    assert evidence.keys == 3 and evidence.checks[0].contrasts[0].count == 3
    # What runs the papers, keeps and shows what came of them is no part of the evidence.
    assert set(evidence.code) <= {"papers/_records.py", "papers/_contrast.py", "_core/_errors.py"}
    with pytest.raises(ValueError, match="keys"):
        papers.run_all(key=key, keys=0)
