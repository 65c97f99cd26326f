"""The stored bank of runs, judged again: a rule that gets worse fails here."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def rules():
    sys.path.insert(0, str(ROOT))
    from benchmarks import checkup_rules

    sys.path.remove(str(ROOT))
    return checkup_rules


@pytest.fixture(scope="module")
def halves(rules):
    return rules.halves()


def test_the_halves_share_no_run(halves):
    made, judged, seen = (
        {(*run,) for run in zip(*(h.columns[n] for n in ("model", "optimizer", "seed")))} for h in halves
    )
    assert not made & judged and not made & seen and not judged & seen
    names = ("model", "optimizer", "seed", "rate")
    assert sum(len({(*run,) for run in zip(*(h.columns[n] for n in names))}) for h in halves) >= 1400


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("precision of any fault", 0.94),
        ("recall of any fault", 0.80),
        ("area under the curve of the risk", 0.944),
        ("suggested rate better or equal, of runs with a fault of the rate", 0.95),
        ("precision of no progress, by the watch at step 200", 0.97),
        ("recall of it among the check-ups there", 0.86),
    ],
)
def test_what_was_reached_on_the_judging_half_stays(rules, halves, name, least):
    made, judged, _ = halves
    assert rules.figures(judged, made)[name] >= least


def test_healthy_runs_stay_as_quiet_as_they_were(rules, halves):
    made, judged, _ = halves
    found = rules.figures(judged, made)
    assert found["healthy runs with a fault or a warning"] <= 0.088
    assert found["healthy runs to which another rate is suggested"] <= 0.04
    # Five of six are one dead network that ends a little below the loss from which a run counts as stuck.
    assert found["false faults at first steps of Adam and its kin"] <= 0.045
    assert found["false faults at first steps behind a head of zeros"] <= 0.043


def test_the_risk_says_more_than_the_rate_and_than_the_base(rules, halves):
    made, judged, _ = halves
    found = rules.figures(judged, made)
    assert found["area under the curve of the risk"] > found["area by the learning rate alone"] + 0.09
    assert found["Brier score of the risk"] < 0.5 * found["Brier score of the base rate"]


def test_the_risk_is_the_fit_to_the_making_half(rules):
    """No weight was moved by hand."""
    from nablax.diagnose._checkup._risk import WEIGHTS

    fitted = rules.fit()
    assert fitted.keys() == WEIGHTS.keys()
    np.testing.assert_allclose(list(WEIGHTS.values()), list(fitted.values()), atol=2e-3)


def test_stuck_is_the_same_for_the_risk_as_for_the_bank(rules):
    from nablax.diagnose._checkup._risk import STUCK

    assert sys.modules[rules.outcome.__module__].STUCK == STUCK


def test_a_run_is_held_out_with_its_setting(rules, halves):
    """Coefficients that saw a setting's other check-ups would know it: what is held out scores no better than they do."""
    made, held = halves[0], rules.held_out()
    assert (held.fails == made.fails).all() and not np.allclose(held.risk, made.risk, atol=1e-3)
    assert rules.area(held.risk, held.fails) < rules.area(made.risk, made.fails)


def test_the_guide_has_these_tables(rules):
    page = rules.GUIDE.read_text(encoding="utf-8")
    assert page.split(rules.BEGIN)[1].split(rules.END)[0] == rules.text()


def test_levels_follow_the_thresholds_that_are_given(rules):
    from nablax.diagnose import Signs, Thresholds
    from nablax.diagnose._checkup._verdict import levels

    nothing = Signs(**dict.fromkeys(Signs._fields, np.nan))
    healthy = nothing._replace(
        heart=-0.5, late=-0.2, rise=-0.5, cut=0.4, dead=0.0, fresh=0.0, gain=0.05, best=0.25, elasticity=1.0
    )
    assert levels(healthy) == {}
    assert levels(healthy, Thresholds(cut=0.3)) == {"dead": "fault"}
    lower = healthy._replace(chance=0.9, heart=-0.2, rise=-0.2, gain=0.2)
    assert levels(lower, Thresholds(fault=1.0)) == {}
    assert levels(lower, Thresholds(fault=0.0)) == {"too high": "fault"}
    assert levels(lower, Thresholds(fault=0.0, gain=0.3)) == {"flat": "fault"}


def test_ranks_count_ties_by_half(rules):
    assert rules.area(np.array([0.0, 1.0, 1.0, 2.0]), np.array([False, False, True, True])) == 0.875
