"""Every claim of every paper comes out as it is listed."""

import jax
import pytest

from nablax import papers

KEY = jax.random.key(0)
SLUGS = [paper.slug for paper in papers.available()]


def test_slugs_rows_and_modules_are_distinct():
    rows = [paper.row for paper in papers.available()]
    assert len(set(SLUGS)) == len(SLUGS) and len(set(rows)) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("slug", SLUGS)
def test_every_claim_comes_out_as_listed(slug):
    outcome = papers.run_all([slug], key=KEY)
    assert outcome.ok, outcome.table()
    assert outcome.checks[slug]
