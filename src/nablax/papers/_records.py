"""What a paper claims, and what came of checking it."""

import dataclasses
import textwrap
from collections.abc import Callable
from typing import Any, Literal

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
        read: the most that was read for the method here: the authors' "code", the paper's "text", or its "abstract".

    Example:
        >>> from nablax.papers import Paper
        >>> Paper("a-paper", "A Paper", 2022, "https://arxiv.org/abs/2209.03003", ("transport",), 0, "text").slug
        'a-paper'
    """

    slug: str
    title: str
    year: int
    link: str
    rooms: tuple[str, ...]
    row: int
    read: Literal["text", "code", "abstract"]


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
        figure: draws the check's curves or its cloud on a matplotlib ``Axes``; called when a picture is asked for and
            never otherwise. It is no part of the outcome: it is not compared, and records do not keep it.

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
    figure: Callable[[Any], None] | None = dataclasses.field(default=None, compare=False, repr=False)

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

    def kept(self) -> dict[str, str | bool]:
        """What a record keeps of the check: every field but the figure."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "figure"}

    def table(self) -> str:
        """The claim and its evidence, as text."""
        rows = [("stated", self.stated), ("measured", self.measured), ("baseline", self.baseline)]
        rows += [("criterion", self.criterion)] + ([("tried", self.tried)] if self.tried else [])
        head = f"{self.verdict}: {self.statement}"
        lines = textwrap.wrap(head, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        for name, text in rows:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"    {name:<11}", subsequent_indent=" " * 15)
        return "\n".join(lines)
