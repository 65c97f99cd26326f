"""What a paper claims, and what came of checking it."""

import dataclasses
import textwrap

_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper whose claims run.

    Attributes:
        slug: short name, words joined by hyphens; the module is named likewise with underscores.
        title: as published.
        year: of the version that was read.
        link: where to read it.
        rooms: parts of the library that the method lives in.
        row: number in the project's list of papers.

    Example:
        >>> from nablax.papers import Paper
        >>> Paper("a-paper", "A Paper", 2022, "https://arxiv.org/abs/2209.03003", ("transport",), 0).slug
        'a-paper'
    """

    slug: str
    title: str
    year: int
    link: str
    rooms: tuple[str, ...]
    row: int


@dataclasses.dataclass(frozen=True)
class Check:
    """One claim of a paper, put to the method and, under the same criterion, to the baseline that should fail it.

    Attributes:
        statement: the claim, in our words.
        stated: the figure that the paper gives and where, or "stated in words".
        measured: what the method gave here, with unit and spread.
        criterion: what decides, written before the numbers were seen.
        holds: whether the method meets the criterion and the baseline does not.
        baseline: what the baseline gave, named.
        expected: False for a claim that is listed as not reproducing.
        tried: for such a claim, what was tried.

    Example:
        >>> from nablax.papers import Check
        >>> check = Check("faster", "stated in words", "3 s", "at most half the baseline's time", True, "plain: 8 s")
        >>> check.verdict
        'holds'
    """

    statement: str
    stated: str
    measured: str
    criterion: str
    holds: bool
    baseline: str
    expected: bool = True
    tried: str = ""

    def __post_init__(self) -> None:
        # Comparisons of arrays give scalars of NumPy's or JAX's own.
        object.__setattr__(self, "holds", bool(self.holds))

    @property
    def surprise(self) -> bool:
        """Whether the outcome differs from the one listed."""
        return self.holds != self.expected

    @property
    def verdict(self) -> str:
        """The outcome beside the one listed, in a few words."""
        if self.expected:
            return "holds" if self.holds else "FAILS, listed as holding"
        return "HOLDS, listed as not reproducing" if self.holds else "does not reproduce, as listed"

    def table(self) -> str:
        """The claim and its evidence, as text."""
        rows = [("stated", self.stated), ("measured", self.measured), ("baseline", self.baseline)]
        rows += [("criterion", self.criterion)] + ([("tried", self.tried)] if self.tried else [])
        head = f"{self.verdict}: {self.statement}"
        lines = textwrap.wrap(head, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        for name, text in rows:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"    {name:<11}", subsequent_indent=" " * 15)
        return "\n".join(lines)


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
        # The first two are always said; the others only when there is something to mend.
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
