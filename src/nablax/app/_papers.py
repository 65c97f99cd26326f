"""`nablax papers`: what is implemented, and whether its claim holds."""

from collections.abc import Callable, Sequence

import jax

from .. import papers
from ._errors import UserError


def listing() -> str:
    """One line a paper: its slug, title, rooms, and what came of its claims when they were last recorded."""
    recorded = papers.recorded()
    lines = []
    for paper in papers.available():
        checks = recorded.get(paper.slug, [])
        held = sum(check.holds for check in checks)
        state = f"{held} of {len(checks)} claims hold" if checks else "not recorded"
        lines.append((paper.slug, f"{paper.title} ({paper.year})", ", ".join(paper.rooms), state))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([*rows, "", "nablax papers run SLUG… checks the claims here and now; --all checks them all."])


def run_claims(slugs: Sequence[str], *, everything: bool, full: bool, seed: int, notice: Callable[[str], None]) -> bool:
    """Run papers' claims and print what came of them, with one line of counts at the end.

    Args:
        slugs: which papers.
        everything: all of them.
        full: at the papers' own scale.
        seed: of all randomness.
        notice: prints a line.

    Returns:
        Whether every claim came out as it is listed.

    Raises:
        UserError: no paper has such a slug, or none was named.
    """
    known = [paper.slug for paper in papers.available()]
    if bool(slugs) == everything:
        raise UserError("name papers or give --all, not both or neither; the papers are " + ", ".join(known))
    if unknown := [slug for slug in slugs if slug not in known]:
        raise UserError(f"no paper '{unknown[0]}'; the papers are {', '.join(known)}")
    outcome = papers.run_all(
        None if everything else slugs,
        key=jax.random.key(seed),
        full=full,
        progress=lambda slug: notice(f"running {slug} ({known.index(slug) + 1} of {len(known)})"),
    )
    notice("\n" + outcome.table())
    return outcome.ok


__all__ = ["listing", "run_claims"]
