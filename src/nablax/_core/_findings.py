"""What a measurement comes to, in words, and how grave it is: one vocabulary for check-ups and reports."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Level = Literal["fault", "unknown", "warning", "note", "good"]

# The gravest first.
LEVELS: tuple[Level, ...] = ("fault", "unknown", "warning", "note", "good")


class Finding(NamedTuple):
    """One thing that a check-up or a report has to say.

    Attributes:
        level: "fault" (fix it now), "unknown" (what ought to be known was not measured), "warning", "note", or "good"
            (a check that was passed).
        topic: what it is about, in a word or two, such as "learning rate" or "batch".
        text: a sentence or two, with the numbers, and in a check-up what to do.
        rule: that set the level; empty where the text says it.
        fix: what to do, where the text does not say it.
    """

    level: Level
    topic: str
    text: str
    rule: str = ""
    fix: str = ""


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by level, those of one level in the order given."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
