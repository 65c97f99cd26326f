"""Each threshold moves the verdict, and nothing else does."""

from dataclasses import replace

import numpy as np
import pytest

from nablax.app._report._baselines import Likelihood
from nablax.app._report._evidence import ConservativityCurve, Evidence, SolverCurve, Training
from nablax.app._report._memorised import Memorised
from nablax.app._report._privacy import Membership
from nablax.app._report._telling import ColumnGap
from nablax.app._report._two_sample import TwoSample
from nablax.app._report._verdict import verdict

STEPS = np.arange(0, 1000, 10)
TRAINING = Training(STEPS, np.full(100, 1.0), STEPS[::10], np.full(10, 1.05), best_step=900)
FELL = 1.05 + np.array([0.9, 0.5, 0.3, 0.1, 0.05, 0.02, 0.01, 0.01, 0.0, 0.0])
FALLING = 1.05 + np.linspace(0.9, 0.0, 10)
TEST = TwoSample(0.1, 0.4, 0.52, 0.02, np.full(99, 0.1), (300, 300), 0.2)
GAPS = (ColumnGap("age", 0.11, 0.02), ColumnGap("sex", 0.01, 0.02))
COPIES = Memorised(np.ones(100), np.ones(100), 0.5, 0.01, 0.01, 0.6, 0.0, 0.0, 0.0, 1.0, np.zeros((0, 2), int))


def _evidence(**changes):
    good = Evidence(
        name="table",
        rows=1000,
        columns=2,
        model="flow",
        when="today",
        data={"x": np.zeros(3)},
        samples={"x": np.zeros(3)},
        held_out_rows=300,
        training=TRAINING,
        likelihoods=[Likelihood("this model", -2.0, 0.05), Likelihood("Gaussian mixture", -2.5, 0.05)],
        train_likelihood=Likelihood("train", -1.95, 0.05),
        two_sample=TEST,
        memorised=COPIES,
        solver_curve=SolverCurve(np.array([8, 16]), np.array([0.1, 0.005]), 16, 0.005),
        clipped_fraction=0.001,
        round_trip_error=1e-3,
    )
    return replace(good, **changes)


def _scores(model, mixture, error=0.05):
    return [Likelihood("this model", model, error), Likelihood("Gaussian mixture", mixture, error)]


def test_good_evidence_is_trusted():
    judged = verdict(_evidence())
    assert judged.level == "good" and judged.paragraph.startswith("You can trust this model.")
    assert all(finding.level == "good" for finding in judged.findings)
    assert "0.50" in judged.paragraph and "52%" in judged.paragraph


def test_columns_that_are_not_modelled_stand_in_the_first_lines():
    judged = verdict(_evidence(dropped={"id": "an identifier", "k=1": "left out, as asked"}))
    assert judged.level == "good"
    assert judged.paragraph.startswith("You can trust this model. It says nothing of 'id', 'k=1':")


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"training": replace(TRAINING, result="diverged")}, "fault", "diverged"),
        ({"training": replace(TRAINING, validation=np.full(10, 1.4))}, "warning", "1.40 times"),
        ({"training": replace(TRAINING, validation=FALLING)}, "fault", "not finished learning: 22%"),
        ({"training": replace(TRAINING, step=STEPS // 50, best_step=19)}, "fault", "trained for 19 steps alone"),
        ({"likelihoods": _scores(-2.5, -2.0)}, "fault", "worse than"),
        ({"likelihoods": _scores(-2.15, -2.0)}, "warning", "worse than"),
        ({"likelihoods": _scores(float("nan"), -2.0)}, "fault", "not a number"),
        ({"train_likelihood": Likelihood("train", -1.6, 0.05)}, "warning", "by heart"),
        ({"train_likelihood": Likelihood("train", 1.0, 0.05)}, "fault", "by heart"),
        ({"two_sample": replace(TEST, accuracy=0.7, p_value=0.001)}, "warning", "70%"),
        ({"two_sample": replace(TEST, p_value=0.002)}, "warning", "distances differ (p = 0.002)"),
        ({"two_sample": replace(TEST, accuracy=0.93, p_value=0.001)}, "fault", "easily told"),
        ({"two_sample": replace(TEST, accuracy=0.93, columns=GAPS)}, "fault", "mostly by age."),
        # 6 rows: neither "hard to tell" nor "told".
        ({"two_sample": replace(TEST, accuracy=0.76, accuracy_standard_error=0.15)}, "unknown", "76% ± 15%"),
        ({"left_by_samples": Membership(0.68, 0.02, (300, 300))}, "warning", "0.68 ± 0.02"),
        ({"left_by_scores": Membership(0.91, 0.02, (300, 300))}, "fault", "how likely it finds them"),
        ({"memorised": replace(COPIES, share_close=0.3, p_value=1e-6)}, "fault", "30%"),
        ({"memorised": replace(COPIES, share_close=0.06, p_value=1e-3)}, "warning", "6%"),
        ({"memorised": replace(COPIES, share_copied=0.2, copied_p_value=1e-9)}, "fault", "20.0%"),
        ({"memorised": replace(COPIES, held_out_share_copied=0.9)}, "warning", "90% of the rows that it is checked on"),
        ({"clipped_fraction": 0.05}, "warning", "5.00%"),
        ({"clipped_fraction": 0.2}, "fault", "20.00%"),
        ({"round_trip_error": 0.05}, "warning", "to noise and back"),
        ({"round_trip_error": float("inf")}, "fault", "to noise and back"),
        ({"solver_curve": SolverCurve(np.array([8]), np.array([0.2]), 8, 0.2)}, "fault", "solver steps"),
        ({"held_out_rows": 40}, "warning", "40 held-out rows"),
        ({"likelihoods": []}, "unknown", "not compared"),
        ({"two_sample": None}, "unknown", "not tested"),
        ({"memorised": None}, "unknown", "not checked"),
        ({"two_sample": None, "clipped_fraction": 0.2}, "fault", "20.00%"),
    ],
)
def test_each_fault_is_named(changes, level, words):
    judged = verdict(_evidence(**changes))
    assert judged.level == level
    assert words in judged.paragraph
    assert "You can trust" not in judged.paragraph


def test_what_passes_says_nothing_else():
    """Levels that judge are silent on what is healthy: settled training, a membership area that noise explains."""
    healthy = {
        "training": replace(TRAINING, validation=FELL),
        "left_by_samples": Membership(0.66, 0.09, (40, 30)),
        "left_by_scores": Membership(0.55, 0.01, (900, 900)),
    }
    assert verdict(_evidence(**healthy)).level == "good"
    stopped = replace(TRAINING, validation=FALLING, result="stopped early")
    assert verdict(_evidence(training=stopped)).level == "good"


def test_the_words_name_the_test_whose_number_they_give():
    told = verdict(_evidence(two_sample=replace(TEST, accuracy=0.8, accuracy_p_value=1e-9, p_value=0.891)))
    assert "80% ± 2% of the time (50% is chance; p = 1e-09)" in told.paragraph and "0.891" not in told.paragraph
    assert told.level == "warning"


def test_the_printed_rule_is_the_rule():
    for ahead, level in ((0.3, "good"), (0.05, "good"), (-0.1, "good"), (-0.15, "warning"), (-0.3, "fault")):
        found = verdict(_evidence(likelihoods=_scores(-2.0, -2.0 - ahead)))
        finding = next(f for f in found.findings if f.topic == "Likelihood")
        assert finding.level == level
        assert finding.rule == (
            "no simple baseline is better by 2 standard errors; a fault where one is, by more than 0.1 nats per dimension"
        )


def test_where_a_simple_model_is_the_truth_doing_as_well_is_no_fault():
    judged = verdict(_evidence(likelihoods=_scores(-2.04, -2.0)))
    assert judged.level == "good"
    assert "as well as the best simple baseline (a Gaussian mixture): the difference is 0.04 ± 0.07" in judged.paragraph
    assert "The simpler model does as well" in judged.paragraph


def test_columns_left_out_are_said_whatever_else_is():
    faults = {"clipped_fraction": 0.2, "round_trip_error": 1.0, "likelihoods": _scores(-2.5, -2.0)}
    judged = verdict(_evidence(**faults, dropped={"id": "an identifier"}))
    assert judged.level == "fault" and "It says nothing of 'id'" in judged.paragraph


def test_bits_are_better_when_fewer():
    assert verdict(_evidence(unit="bits/dim", likelihoods=_scores(2.5, 2.8), train_likelihood=None)).level == "good"
    assert verdict(_evidence(unit="bits/dim", likelihoods=_scores(2.8, 2.5), train_likelihood=None)).level == "fault"
    # 0.5 bits are 0.35 nats a dimension.
    overfit = verdict(
        _evidence(unit="bits/dim", likelihoods=_scores(2.5, 2.8), train_likelihood=Likelihood("train", 2.0, 0.1))
    )
    assert overfit.level == "warning" and "0.35 nats" in overfit.paragraph


def test_a_difference_on_the_same_rows_is_paired():
    spread = np.random.default_rng(0).normal(size=400)
    scores = [
        Likelihood("this model", -2.0, 0.5, -2.0 + 10 * spread),
        Likelihood("Kernel density", -2.1, 0.5, -2.1 + 10 * spread + 0.01 * spread[::-1]),
    ]
    assert "better than the best simple baseline" in verdict(_evidence(likelihoods=scores)).paragraph
    unpaired = [replace(score, per_row=None) for score in scores]
    assert "as well as the best simple baseline" in verdict(_evidence(likelihoods=unpaired)).paragraph


def test_a_field_that_turns_is_no_fault():
    turning = ConservativityCurve(np.linspace(0, 1, 3), np.full(3, 0.9), np.full(3, 0.01), 3.0, 0.1)
    assert verdict(_evidence(conservativity=turning)) == verdict(_evidence())
