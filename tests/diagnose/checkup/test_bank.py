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
    made, judged = ({(*run,) for run in zip(*(h.columns[n] for n in ("model", "optimizer", "seed")))} for h in halves)
    assert not made & judged
    trainings = sum(len(np.unique(np.stack([h.columns["seed"], h.columns["rate"]]), axis=1).T) for h in halves)
    assert trainings >= 100


@pytest.mark.parametrize(
    ("name", "sign", "bound"),
    [
        ("precision of any fault", 1, 0.9),
    ],
)
def test_what_is_promised_of_the_judging_half(rules, halves, name, sign, bound):
    made, judged = halves
    assert sign * rules.figures(judged, made)[name] >= sign * bound


def test_the_risk_is_the_fit_to_the_making_half(rules):
    """No weight was moved by hand."""
    from nablax.diagnose._checkup._risk import WEIGHTS

    fitted = rules.fit()
    assert fitted.keys() == WEIGHTS.keys()
    np.testing.assert_allclose(list(WEIGHTS.values()), list(fitted.values()), atol=2e-3)


def test_the_guide_has_these_tables(rules):
    page = rules.GUIDE.read_text(encoding="utf-8")
    assert page.split(rules.BEGIN)[1].split(rules.END)[0] == rules.text()


def test_ranks_count_ties_by_half(rules):
    assert rules.area(np.array([0.0, 1.0, 1.0, 2.0]), np.array([False, False, True, True])) == 0.875
