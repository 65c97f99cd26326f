"""`nablax papers`: what is implemented, whether its claim holds, and whether the evidence is still that of the code."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from .. import papers
from ._errors import UserError

_KEPT = 3
_RENEW = "nablax papers run --stale --record"


def listing(width: int | None = None) -> str:
    """The papers of each room, a line each: a mark on stale evidence, slug, claims that hold, what was read, title.

    Args:
        width: characters of a line, by default as many as it takes; what is cut off is the title's end.
    """
    recorded, stale = papers.recorded(), papers.stale()
    rows: dict[str, list[tuple[str, ...]]] = {}
    others: dict[str, tuple[str, str]] = {}
    for paper in sorted(papers.available(), key=lambda paper: (paper.rooms[0], paper.slug)):
        claims, reasons = "not recorded", ""
        if evidence := recorded.get(paper.slug):
            held = sum(check.holds for check in evidence.checks)
            claims = f"{held} of {len(evidence.checks)}" + (" at full scale" if evidence.full else "")
            reasons = ", ".join(dict.fromkeys(check.reason for check in evidence.checks if check.reason))
            others |= evidence.other_versions()
        mark = "*" if paper.slug in stale else " "
        row = (mark, paper.slug, claims, reasons, paper.read, f"{paper.title} ({paper.year})")
        rows.setdefault(paper.rooms[0], []).append(row)
    head = (" ", "paper", "hold", "where not", "read", "title")
    widths = [max(len(row[i]) for room in rows.values() for row in (head, *room)) for i in range(6)]

    def line(cells: Sequence[str]) -> str:
        whole = "  ".join(cell.ljust(size) for cell, size in zip(cells, widths)).rstrip()
        return whole if width is None or len(whole) <= width else whole[: width - 1] + "…"

    lines = [line(head)]
    for room, found in rows.items():
        lines += ["", room, *map(line, found)]
    notes = ["nablax papers run SLUG… checks the claims here and now; --all checks them all."]
    if stale:
        notes.append(
            f"* stale, {len(stale)} of {sum(map(len, rows.values()))}: the code that the claims ran through has "
            f"changed since they were recorded.\n  {_RENEW} checks these and keeps what comes of it."
        )
    if others:
        words = ", ".join(f"{name} {then} (here {now})" for name, (then, now) in sorted(others.items()))
        notes.append(f"Some were recorded with other versions of libraries, which does not make them stale: {words}.")
    return "\n".join([*lines, "", *notes])


def run_claims(
    slugs: Sequence[str],
    *,
    everything: bool,
    stale: bool,
    full: bool,
    seed: int,
    keys: int | None,
    record: bool,
    figures: Path | None,
    notice: Callable[[str], None],
) -> bool:
    """Run papers' claims and print what came of them, with one line of counts at the end.

    Args:
        slugs: which papers.
        everything: all of them.
        stale: those whose evidence is stale.
        full: at the papers' own scale.
        seed: of all randomness.
        keys: how many keys to run each paper at; by default one, and three where the outcome is kept.
        record: keep each paper's outcome as soon as it has finished.
        figures: folder for pictures of the claims that have one.
        notice: prints a line.

    Returns:
        Whether every claim came out as it is listed.

    Raises:
        UserError: no paper has such a slug, or none was named.
    """
    known = [paper.slug for paper in papers.available()]
    if bool(slugs) + everything + stale != 1:
        raise UserError("name papers, or give --all or --stale, one of the three; the papers are " + ", ".join(known))
    if unknown := [slug for slug in slugs if slug not in known]:
        raise UserError(f"no paper '{unknown[0]}'; the papers are {', '.join(known)}")
    wanted = known if everything else list(papers.stale()) if stale else list(dict.fromkeys(slugs))
    if figures is not None:
        try:
            figures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write pictures to {figures}: {error.strerror}") from None
    start = time.monotonic()

    def progress(slug: str) -> None:
        done, minutes = wanted.index(slug), (time.monotonic() - start) / 60
        # Papers differ tenfold in cost, so that what remains is a guess, and none is made from the first.
        left = f", {minutes:.0f} min so far, about {minutes / done * (len(wanted) - done):.0f} to go" if done else ""
        notice(f"running {slug} ({done + 1} of {len(wanted)}{left})")

    outcome = papers.run_all(
        wanted,
        key=jax.random.key(seed),
        keys=keys or (_KEPT if record else 1),
        full=full,
        progress=progress,
        record=record,
        figures=figures,
    )
    notice("\n" + outcome.table())
    return outcome.ok


__all__ = ["listing", "run_claims"]
