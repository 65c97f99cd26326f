"""Two papers' claims, checked here and now: what was said, what came of it, and what the baseline did."""

import jax

from nablax import papers

known = {paper.slug: paper for paper in papers.available()}
print(f"{len(known)} papers are there; two that take seconds:")
for slug in ("noether", "matrix-square-root"):
    print(f"\n== {known[slug].title} ({known[slug].year}), {known[slug].link}")
    for check in papers.run(slug, key=jax.random.key(0)):
        print(check.table(), "\n")
        assert check.holds
