"""Run the papers' checks, and say what came of them."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax

from .._core import Key, check_count, fault, require
from ._catalogue import available, module
from ._code import code_that_runs, digests_of_all
from ._evidence import record as keep
from ._pictures import draw
from ._records import Check, Paper, poolable, pooled_checks


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of running some papers.

    Attributes:
        papers: those that were run, in order.
        checks: their claims, by slug.
        errors: the message of the error that stopped a paper, by slug.
    """

    papers: tuple[Paper, ...]
    checks: dict[str, list[Check]]
    errors: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether every claim came out as it is listed, and no paper stopped with an error."""
        return not self.errors and not any(check.surprise for checks in self.checks.values() for check in checks)

    def summary(self) -> str:
        """One line of counts."""
        checks = [check for checks in self.checks.values() for check in checks]
        counts = (
            (sum(c.expected and c.holds for c in checks), "hold"),
            (sum(not c.expected and not c.holds for c in checks), "listed as not reproducing"),
            (sum(c.expected and not c.holds for c in checks), "FAIL"),
            (sum(not c.expected and c.holds for c in checks), "HOLD though listed as not reproducing"),
            (len(self.errors), "stopped with an error"),
        )
        # The first two are always said; the others only when there is something to fix.
        parts = [f"{count} {words}" for i, (count, words) in enumerate(counts) if count or i < 2]
        papers = f"{len(self.papers)} paper" + "s" * (len(self.papers) != 1)
        return f"{papers}, {len(checks)} claim{'s' * (len(checks) != 1)}: {', '.join(parts)}"

    def table(self) -> str:
        """Every claim with its evidence, and the line of counts at the end."""
        blocks = []
        for paper in self.papers:
            head = f"{paper.slug}: {paper.title} ({paper.year}), {paper.link}"
            body = [check.table() for check in self.checks.get(paper.slug, [])]
            if paper.slug in self.errors:
                body.append(f"  stopped with an error: {self.errors[paper.slug]}")
            blocks.append("\n".join([head, *body]))
        return "\n\n".join([*blocks, self.summary()])


def run(slug: str, *, key: Key, full: bool = False) -> list[Check]:
    """Run the checks of one paper.

    Args:
        slug: the paper's short name, as `available` gives it.
        key: of all randomness.
        full: the paper's own protocol, or as near as the machine allows (minutes to hours); by default a scale that
            takes seconds.

    Returns:
        One `Check` for each claim; those with something to show carry a ``figure``.

    Raises:
        ValueError: no paper has this slug.

    Example:
        >>> import jax
        >>> from nablax import papers
        >>> checks = papers.run("multisample-couplings", key=jax.random.key(0))  # doctest: +SKIP

    Cost:
        The paper's; see its module.
    """
    (paper,) = _chosen([slug])
    return module(paper).checks(key, full=full)


def run_all(
    slugs: Sequence[str] | None = None,
    *,
    key: Key,
    keys: int = 1,
    full: bool = False,
    progress: Callable[[str], None] | None = None,
    record: bool = False,
    figures: Path | None = None,
) -> Outcome:
    """Run several papers; one that stops with an error does not keep the others from running.

    Args:
        slugs: short names; by default every paper.
        key: of all randomness; the same for each paper, so that a paper's result does not depend on its company.
        keys: how many keys to run each paper at, this one and others folded into it; a claim is decided by the
            contrasts over all of them. A paper with claims that are no contrasts runs at the first alone.
        full: as in `run`.
        progress: called with the slug before each paper.
        record: keep each paper's outcome, and digests of the code that ran, as soon as it has finished, for `recorded`
            to read. The files are those that ship with the package: it is meant for a checkout of the project.
        figures: folder to `draw` each paper's figures in as soon as it has finished (needs the extra ``app``).

    Returns:
        An `Outcome`; ``table()`` prints it and ``ok`` says whether every claim came out as listed.

    Raises:
        ValueError: no paper has one of the slugs, or there is no key; nothing has been run then.
        ImportError: figures are asked for and matplotlib is absent; nothing has been run then.

    Example:
        >>> import jax
        >>> from nablax import papers
        >>> papers.run_all([], key=jax.random.key(0)).summary()
        '0 papers, 0 claims: 0 hold, 0 listed as not reproducing'

    Cost:
        The sum of the papers', times ``keys``. Recording clears the caches of compiled programs before each paper, and
        on Python 3.11 tracing takes up to a third longer.
    """
    chosen = _chosen(slugs)
    check_count(keys, what="keys")
    if figures is not None:
        require("matplotlib", extra="app")
    checks: dict[str, list[Check]] = {}
    errors: dict[str, str] = {}
    before = digests_of_all() if record else {}
    for paper in chosen:
        slug = paper.slug
        if progress is not None:
            progress(slug)
        try:
            claims, runs = module(paper), []
            watch: AbstractContextManager[set[str]] = code_that_runs() if record else nullcontext(set())
            with watch as ran:
                # Nothing of this file starts in here, or a change of it would make all evidence stale.
                for number in range(keys):
                    runs.append(claims.checks(jax.random.fold_in(key, number) if number else key, full=full))
                    if not poolable(runs[0]):
                        break
            checks[slug] = pooled_checks(runs)
            if record:
                keep(slug, checks[slug], ran, before=before, key=key, keys=len(runs), full=full)
            if figures is not None:
                draw(slug, checks[slug], figures)
        except Exception as error:  # reported, counted and fails the run; the other papers still speak
            errors[slug] = f"{type(error).__name__}: {error}"
    return Outcome(tuple(chosen), checks, errors)


def _chosen(slugs: Sequence[str] | None) -> list[Paper]:
    papers = {paper.slug: paper for paper in available()}
    if slugs is None:
        return list(papers.values())
    if unknown := [slug for slug in slugs if slug not in papers]:
        raise fault(
            expected=f"some of {', '.join(papers)}", got=", ".join(unknown), fix="papers.available() lists them."
        )
    return [papers[slug] for slug in slugs]


__all__ = ["Outcome", "run", "run_all"]
