"""What a paper claims, and what came of checking it."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from .._core import fault
from . import _shown
from ._contrast import Contrast, Why, pooled

_WIDTH = 110
_NEW = ("contrasts", "moved_from", "why")
_GRAVEST_FIRST: tuple[Why, ...] = ("contradicts", "no effect here", "effect too small to see")
_RENDERED = ("measured", "criterion", "holds", "baseline")


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
        read: the most that was read for the method here: "code", the authors' or, where the docstring of the method
            names it, others' who follow the text; the paper's "text"; or its "abstract".

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
    """One claim of a paper, put to the method and, under the same criterion, to the baselines that should fail it.

    A claim holds where each of its contrasts does; what was measured, what the baselines gave and what decides are
    rendered from them. Claims that are not contrasts yet say all of it in words.

    Attributes:
        statement: the claim, in our words.
        stated: the figure that the paper gives and where, or "stated in words".
        measured: what the method gave here, with unit and spread.
        criterion: what decides, written before the numbers were seen.
        holds: whether the method meets the criterion and no baseline does.
        baseline: what the baselines gave, named.
        expected: False for a claim that is listed as not reproducing.
        tried: for such a claim, what was tried.
        figure: draws the check's curves or its cloud on a matplotlib ``Axes``; called when a picture is asked for and
            never otherwise. It is no part of the outcome: it is not compared, and records do not keep it. By default
            the contrasts', where they have several keys or a curve.
        contrasts: one or several, all of which the claim needs.
        moved_from: the criterion that stood first, in words, where it was moved after numbers had been seen.
        why: for a claim that does not hold, the word that numbers cannot give: "protocol out of reach"; any of the
            words where there are no contrasts.

    Raises:
        ValueError: neither contrasts nor an outcome; a word beside contrasts that they say themselves.

    Example:
        >>> from nablax.papers import Check, Contrast
        >>> seconds = Contrast("time, s", {"new": [3.0], "plain": [8.0]}, "lower", ratio=0.5)
        >>> check = Check("It is faster.", "stated in words", contrasts=seconds)
        >>> check.verdict, check.criterion
        ('holds', "at most 0.5 times the best baseline's")
    """

    statement: str
    stated: str
    measured: str = ""
    criterion: str = ""
    holds: bool = None  # type: ignore[assignment]  # known once the contrasts are looked at
    baseline: str = ""
    expected: bool = True
    tried: str = ""
    figure: Callable[[Any], None] | None = dataclasses.field(default=None, compare=False, repr=False)
    contrasts: Sequence[Contrast] | Contrast = ()
    moved_from: str = ""
    why: Why = ""

    def __post_init__(self) -> None:
        contrasts = (self.contrasts,) if isinstance(self.contrasts, Contrast) else tuple(self.contrasts)
        derived: dict[str, Any] = {"contrasts": contrasts}
        if contrasts:
            if self.why not in ("", "protocol out of reach"):
                raise fault(
                    expected='"protocol out of reach" or nothing beside contrasts',
                    got=repr(self.why),
                    fix="The numbers say the other words.",
                )
            derived |= {name: getattr(_shown, name)(contrasts) for name in ("measured", "criterion", "baseline")}
            derived["holds"] = all(one.holds for one in contrasts)
            if self.figure is None and any(one.count > 1 or one.curve for one in contrasts):
                derived["figure"] = partial(_shown.draw, contrasts)
        elif self.holds is None:
            raise fault(expected="contrasts", got="none, and no outcome", fix="papers.Contrast holds the numbers.")
        else:
            # Comparisons of arrays give scalars of NumPy's or JAX's own.
            derived["holds"] = bool(self.holds)
        for name, value in derived.items():
            object.__setattr__(self, name, value)

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

    @property
    def reason(self) -> Why:
        """The word for why it does not hold, of several the gravest; empty where it does, or where none is known."""
        if self.holds:
            return ""
        said = {one.why for one in self._contrasts}
        return self.why or next((word for word in _GRAVEST_FIRST if word in said), "")

    def kept(self) -> dict[str, Any]:
        """What a record keeps of the check: every field but the figure, and none that the contrasts give."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "figure"}
        if not self._contrasts:
            return {name: value for name, value in kept.items() if name not in _NEW or value}
        kept["contrasts"] = [one.kept() for one in self._contrasts]
        return {name: value for name, value in kept.items() if name not in _RENDERED}

    def rows(self) -> list[tuple[str, str]]:
        """The evidence, each part with its name."""
        rows = [("stated", self.stated), ("measured", self.measured), ("baseline", self.baseline)]
        rows += [("difference", _shown.difference(self._contrasts))] if self._contrasts else []
        rows += [("criterion", self.criterion)]
        optional = {"moved from": self.moved_from, "why": self.reason, "tried": self.tried}
        return rows + [(name, text) for name, text in optional.items() if text]

    def tables(self) -> list[list[tuple[str, ...]]]:
        """The numbers of each contrast: a head, and a line for each method."""
        return [_shown.table(one) for one in self._contrasts]

    def table(self) -> str:
        """The claim and its evidence, as text."""
        head = f"{self.verdict}: {self.statement}"
        lines = textwrap.wrap(head, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        for name, text in self.rows():
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"    {name:<11}", subsequent_indent=" " * 15)
        return "\n".join(lines)

    @property
    def _contrasts(self) -> tuple[Contrast, ...]:
        assert isinstance(self.contrasts, tuple)
        return self.contrasts


def check_from(kept: dict[str, Any]) -> Check:
    """Build the check that `Check.kept` kept."""
    return Check(**kept | {"contrasts": [Contrast(**one) for one in kept.get("contrasts", ())]})


def poolable(checks: Sequence[Check]) -> bool:
    """Whether several runs of the checks can be put together: whether all of them are contrasts."""
    return all(check.contrasts for check in checks)


def pooled_checks(runs: Sequence[Sequence[Check]]) -> list[Check]:
    """Put the same contrasts of several runs into one check each; what is said in words is the first run's.

    Args:
        runs: of each run, the paper's checks; `poolable` where there are several.

    Returns:
        Checks over the keys of all runs; those of a single run as they are.
    """
    if len(runs) == 1:
        return list(runs[0])
    return [
        dataclasses.replace(
            alike[0],
            contrasts=[pooled(ones) for ones in zip(*(check._contrasts for check in alike), strict=True)],
            figure=None if isinstance(alike[0].figure, partial) else alike[0].figure,
        )
        for alike in zip(*runs, strict=True)
    ]
