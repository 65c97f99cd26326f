"""Whether to trust a model, from the evidence: clear thresholds, plain words."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..._core import Finding, Level, gravest_first
from . import _judge_model, _judge_samples
from ._evidence import Evidence

HEADLINES: dict[Level, str] = {
    "good": "You can trust this model",
    "warning": "Trust this model with care",
    "fault": "Do not trust this model yet",
    "unknown": "There is not enough evidence to trust this model",
}


@dataclass(frozen=True)
class Verdict:
    """What to make of the model.

    Attributes:
        level: the gravest level found; unknown when an essential check is missing and nothing is a fault.
        headline: one line.
        reasons: the findings that decided it, then the most telling good one.
        findings: every check, in the report's order.
    """

    level: Level
    headline: str
    reasons: tuple[Finding, ...]
    findings: tuple[Finding, ...]

    @property
    def paragraph(self) -> str:
        """Headline, reasons and what to do, as one paragraph of text."""
        said = [f"{self.headline}."]
        for index, finding in enumerate(self.reasons):
            said.append(finding.text)
            if finding.fix and index < 2:  # two things to do are what a reader takes away
                said.append(finding.fix)
        return " ".join(said)


def verdict(evidence: Evidence) -> Verdict:
    """Weigh the evidence of a run.

    A field need not be conservative to sample or to score rightly, so conservativity takes no part.

    Args:
        evidence: what was measured; a check whose evidence is missing is unknown, and likelihood, two-sample
            test and memorisation are essential: without one of them the verdict is no better than unknown.

    Returns:
        Level, headline, reasons and all findings.
    """
    findings = tuple(finding for check in _CHECKS for finding in check(evidence))
    level: Level = gravest_first(findings)[0].level
    reasons = [f for f in gravest_first(findings) if f.level != "good"]
    essential = [f for f in findings if f.level == "good" and f.topic in ("Likelihood", "Samples", "Memorised rows")]
    # What is not in the samples at all, or no check at all, is said whatever else there is to say.
    always = [finding for finding in findings if finding.topic in ("Columns", "Fresh rows")]
    rest = [finding for finding in reasons if finding not in always]
    said = always + rest[:3] + (essential if level == "good" else essential[:2])
    return Verdict(level, HEADLINES[level], tuple(said), findings)


_CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    _judge_model.columns,
    _judge_model.training,
    _judge_model.likelihood,
    _judge_samples.fresh,
    _judge_samples.samples,
    _judge_samples.relations,
    _judge_samples.memorised,
    _judge_samples.privacy,
    _judge_model.hidden,
    _judge_model.numbers,
)
