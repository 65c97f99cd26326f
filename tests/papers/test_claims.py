"""Every claim of every paper comes out as it is listed: those whose code changed, and a tenth of the others, are run.

`NABLAX_CLAIMS=all` runs every claim. They are run at one key, and listed for the mean over several: where one key alone
says otherwise, its numbers decide together with those that are recorded of the other keys.
"""

import dataclasses
import hashlib
import math
import os
import subprocess
from pathlib import Path

import jax
import pytest

from nablax import papers
from nablax.papers._records import pooled_checks

KEY = jax.random.key(0)
SLUGS = [paper.slug for paper in papers.available()]
RECORDED = papers.recorded()


def commit():
    """The commit that is checked out; without git always the same tenth is drawn."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return done.stdout.strip()


def tenth(slugs, commit):
    """A tenth, rounded up, that anyone can draw again: those whose hash with the commit comes first."""
    ranked = sorted(slugs, key=lambda slug: hashlib.sha256(f"{commit} {slug}".encode()).digest())
    return ranked[: math.ceil(len(ranked) / 10)]


def speaks(slug):
    """Whether what is recorded says how the claims come out here: of this code, at this key and this scale."""
    evidence = RECORDED.get(slug)
    here = tuple(jax.random.key_data(KEY).tolist())
    return evidence is not None and not evidence.changes() and evidence.key == here and not evidence.full


def over_all_keys(checks, evidence):
    """Checks of the first key with what is recorded of the others; as they are where there is nothing of the kind."""
    if evidence is None or evidence.keys == 1 or evidence.full or len(evidence.checks) != len(checks):
        return checks

    def others(contrast, keys):
        count = len(contrast.values[contrast.method])
        if count % keys:  # what does not depend on the key stands once
            return contrast
        return dataclasses.replace(
            contrast, values={name: numbers[count // keys :] for name, numbers in contrast.values.items()}
        )

    kept = [
        dataclasses.replace(check, contrasts=[others(contrast, evidence.keys) for contrast in check.contrasts])
        for check in evidence.checks
    ]
    try:
        return pooled_checks([checks, kept])
    except ValueError:  # other methods or another criterion than those recorded
        return checks


FRESH = [slug for slug in SLUGS if speaks(slug)]
EVERY = {"": False, "all": True}[os.environ.get("NABLAX_CLAIMS", "")]
DRAWN = tenth(FRESH, commit())
DUE = [slug for slug in SLUGS if EVERY or slug in DRAWN or slug not in FRESH]


def test_slugs_and_rows_are_distinct():
    rows = [paper.row for paper in papers.available()]
    assert len(set(SLUGS)) == len(SLUGS) and len(set(rows)) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("slug", DUE)
def test_every_claim_comes_out_as_listed_and_its_figures_can_be_drawn(slug, tmp_path):
    outcome = papers.run_all([slug], key=KEY, figures=tmp_path)
    assert not outcome.errors, outcome.table()
    checks = outcome.checks[slug]
    assert outcome.ok or not any(check.surprise for check in over_all_keys(checks, RECORDED.get(slug))), outcome.table()
    assert checks and len(list(tmp_path.iterdir())) == sum(check.figure is not None for check in checks)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_recorded_claim_came_out_as_listed(slug):
    checks = RECORDED[slug].checks
    assert checks
    assert slug not in FRESH or not any(check.surprise for check in checks)


def recorded(gains, keys=3):
    contrast = papers.Contrast("loss", {"new": [1 - gain for gain in gains], "old": [1.0] * len(gains)}, "lower")
    return papers.Evidence((papers.Check("it is less", "", contrasts=contrast),), (0, 0), keys, False, {}, {})


def test_one_key_decides_together_with_what_is_recorded_of_the_others():
    def run(*gains, old="old"):
        contrast = papers.Contrast("loss", {"new": [1 - gain for gain in gains], old: [1.0] * len(gains)}, "lower")
        return [papers.Check("it is less", "", contrasts=contrast)]

    evidence = recorded([0.9, -0.2, 0.5, 0.6, 0.5, 0.6])
    (unclear,) = over_all_keys(run(0.9, -0.2), evidence)
    assert not run(0.9, -0.2)[0].holds and unclear.holds
    assert unclear.contrasts[0].values["new"] == pytest.approx((0.1, 1.2, 0.5, 0.4, 0.5, 0.4))
    (opposite,) = over_all_keys(run(-0.9, -0.8), evidence)
    assert not opposite.holds
    # Of one key, of another baseline, or of nothing, there is nothing to lend.
    for other in (recorded([0.9, -0.2], keys=1), None):
        assert not over_all_keys(run(0.9, -0.2), other)[0].holds
    assert not over_all_keys(run(0.9, -0.2, old="another"), evidence)[0].holds


def test_a_tenth_is_drawn_by_the_commit():
    names = [f"paper-{number}" for number in range(50)]
    one, other = tenth(names, "4f1c"), tenth(names, "4f1d")
    assert len(one) == len(set(one)) == 5 and set(one) < set(names)
    assert one == tenth(names[::-1], "4f1c") and set(one) != set(other)
    assert [len(tenth(names[:count], "4f1c")) for count in (0, 1, 10, 11)] == [0, 1, 1, 2]
    # Over many commits each is drawn a tenth of the time: 400 draws, standard deviation 6.
    counts = dict.fromkeys(names, 0)
    for number in range(400):
        for name in tenth(names, str(number)):
            counts[name] += 1
    assert min(counts.values()) > 15 and max(counts.values()) < 65


def test_what_is_stale_is_due_and_of_what_is_fresh_a_tenth():
    assert set(DUE) >= papers.stale().keys()
    if not EVERY:
        assert len(DUE) == len(SLUGS) - len(FRESH) + math.ceil(len(FRESH) / 10)
