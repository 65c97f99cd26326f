"""Whether to trust a model, from the evidence: clear thresholds, plain words."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..._core import Finding, Level, gravest_first
from ._evidence import Evidence

# Every judgement of a report is one of these numbers.
FEW_HELD_OUT = 100  # rows: below this no check is sharp
SIGNIFICANT = 0.01  # p-value: with a handful of tests, one chance in a hundred is not yet an accident
WORSE_BY = 2.0  # standard errors by which a baseline must win before it is said to win
ACCURACY = (0.60, 0.85)  # share told apart, warning and fault: 0.5 is chance, and few models reach it
CLOSE_SHARE = 0.10  # samples nearer to a training row than one fresh row in a hundred
COPIED_EXCESS = 0.05  # exact copies beyond what held-out rows show
TRAINING_GAP = (0.10, 0.50)  # nats per dimension by which training rows score above held-out rows
LOSS_GAP = 1.25  # validation loss over training loss at the kept step
CLIPPED = (0.01, 0.10)  # cells moved back into the data's range
SOLVER_ERROR = (0.01, 0.05)  # error of sampling at the evaluations used, in standard deviations of the data
ROUND_TRIP = (0.01, 0.10)  # data to noise and back, in standard deviations of the data

_NAMED = 8  # columns named in the first lines

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
    said = [*_columns(evidence), *reasons[:3], *(essential if level == "good" else essential[:2])]
    return Verdict(level, HEADLINES[level], tuple(said), findings)


def _columns(evidence: Evidence) -> Iterator[Finding]:
    """What the model says nothing of stands in the first lines, whatever the level."""
    if evidence.dropped:
        names = ", ".join(f"'{name}'" for name in list(evidence.dropped)[:_NAMED])
        names += ", …" if len(evidence.dropped) > _NAMED else ""
        yield Finding(
            "good", "Columns", f"It says nothing of {names}: see the notices for why.", "every column modelled"
        )


def _training(evidence: Evidence) -> Iterator[Finding]:
    training = evidence.training
    if training is None:
        return
    if training.result == "diverged":
        sentence = "Training diverged, and what is kept is the last good state before it."
        yield Finding("fault", "Training", sentence, "training must not diverge", "Train again with a lower rate.")
        return
    best = training.best_step
    if best is None or not len(training.validation):
        yield Finding("good", "Training", "Training ran to its end.", "training must not diverge")
        return
    at = int(np.argmin(np.abs(training.validation_step - best)))
    near = training.loss[np.abs(training.step - best) <= max(1, 0.02 * training.step[-1])]
    trained, validated = float(np.mean(near)), float(training.validation[at])
    if not trained > 0:
        return
    ratio = validated / trained
    level: Level = "warning" if ratio > LOSS_GAP else "good"
    sentence = f"The validation loss is {ratio:.2f} times the training loss at the step that was kept"
    sentence += ", so it learned details of its training rows." if level == "warning" else "."
    fix = "More rows or a smaller network would close the gap." if level == "warning" else ""
    yield Finding(level, "Validation gap", sentence, f"ratio at most {LOSS_GAP}", fix)


def _likelihood(evidence: Evidence) -> Iterator[Finding]:
    rule = f"no baseline better by {WORSE_BY:g} standard errors"
    if not any(score.baseline for score in evidence.likelihoods[1:]):
        why = "The likelihood of held-out rows was not compared with a simple baseline."
        yield Finding("unknown", "Likelihood", why, rule)
        return
    bits = evidence.unit.startswith("bits")
    model = evidence.likelihoods[0]
    others = [score for score in evidence.likelihoods[1:] if score.baseline]
    if not math.isfinite(model.mean):
        yield Finding("fault", "Likelihood", "The likelihood of held-out rows is not a number.", rule)
        return
    best = min(others, key=lambda other: other.mean if bits else -other.mean)
    ahead = (best.mean - model.mean) if bits else (model.mean - best.mean)
    error = _difference_error(model.per_row, best.per_row, model.standard_error, best.standard_error)
    amount = f"{abs(ahead):.2f} ± {error:.2f} {evidence.unit}"
    rival = f"the best simple baseline (a {best.name.lower().replace('gaussian', 'Gaussian')})"
    if ahead < -WORSE_BY * error:
        fix = f"Use the {best.name.lower().replace('gaussian', 'Gaussian')} instead, or train longer."
        yield Finding("fault", "Likelihood", f"It explains held-out rows worse than {rival}: by {amount}.", rule, fix)
    elif ahead <= WORSE_BY * error:
        sentence = f"It explains held-out rows no better than {rival}: the difference is {amount}."
        fix = "The simpler model does as well where only densities matter."
        yield Finding("warning", "Likelihood", sentence, rule, fix)
    else:
        yield Finding("good", "Likelihood", f"It explains held-out rows better than {rival}, by {amount}.", rule)
    if evidence.train_likelihood is not None:
        excess = evidence.train_likelihood.mean - model.mean
        per_dimension = -excess * math.log(2) if bits else excess / max(1, evidence.columns)
        level = _grade(per_dimension, TRAINING_GAP)
        sentence = f"Training rows score {max(per_dimension, 0.0):.2f} nats per dimension above held-out rows"
        sentence += ": it has learned its training rows by heart in part." if level != "good" else "."
        fix = "More rows, fewer steps or a smaller network would help." if level != "good" else ""
        yield Finding(level, "Generalisation", sentence, _rule(TRAINING_GAP, " nats per dimension"), fix)


def _samples(evidence: Evidence) -> Iterator[Finding]:
    test = evidence.two_sample
    rule = f"p at least {SIGNIFICANT:g} and accuracy at most {ACCURACY[0]:.0%}; a fault above {ACCURACY[1]:.0%}"
    if test is None:
        yield Finding("unknown", "Samples", "Its samples were not tested against held-out rows.", rule)
        return
    sure = test.accuracy - 2 * test.accuracy_standard_error
    told = f"a classifier tells the two apart {test.accuracy:.0%} of the time (50% is chance; p = {test.p_value:.3g})"
    if test.accuracy > ACCURACY[1]:
        sentence = f"Its samples are easily told from held-out rows: {told}."
        fix = "Train longer or use a larger network, and see in the pictures below what differs."
        yield Finding("fault", "Samples", sentence, rule, fix)
    elif sure > ACCURACY[0] or test.p_value < SIGNIFICANT:
        sentence = f"Its samples resemble held-out rows but are not the same: {told}."
        fix = "The pictures below show what differs."
        yield Finding("warning", "Samples", sentence, rule, fix)
    else:
        sentence = f"Its samples are hard to tell from held-out rows: {told}."
        yield Finding("good", "Samples", sentence, rule)


def _memorised(evidence: Evidence) -> Iterator[Finding]:
    found = evidence.memorised
    rule = f"no more near or exact copies than fresh rows show (p at least {SIGNIFICANT:g})"
    if found is None:
        yield Finding("unknown", "Memorised rows", "It was not checked for memorised rows.", rule)
        return
    excess = found.share_copied - found.held_out_share_copied
    copies = found.copied_p_value < SIGNIFICANT and excess > 0
    near = found.p_value < SIGNIFICANT and found.share_close > found.expected_share
    fix = "Do not publish its samples as new rows; use more rows, fewer steps or a smaller network."
    if copies:
        sentence = f"{found.share_copied:.1%} of its samples are copies of training rows"
        sentence += f", where {found.held_out_share_copied:.1%} of fresh rows would be."
        level: Level = "fault" if excess > COPIED_EXCESS else "warning"
        yield Finding(level, "Memorised rows", sentence, rule, fix)
    elif near:
        sentence = f"{found.share_close:.0%} of its samples lie as near to a training row as only "
        sentence += f"{found.expected_share:.1%} of fresh rows do."
        level = "fault" if found.share_close > CLOSE_SHARE else "warning"
        yield Finding(level, "Memorised rows", sentence, rule, fix)
    else:
        yield Finding("good", "Memorised rows", "There is no sign that it repeats its training rows.", rule)


def _numbers(evidence: Evidence) -> Iterator[Finding]:
    """Checks that are one number against two thresholds, and the size of the held-out set."""
    if evidence.held_out_rows is not None and evidence.held_out_rows < FEW_HELD_OUT:
        sentence = f"With {evidence.held_out_rows} held-out rows none of these checks is sharp."
        fix = "More rows would say more."
        yield Finding("warning", "Held-out rows", sentence, f"at least {FEW_HELD_OUT} rows", fix)
    curve = evidence.solver_curve
    if curve is not None and curve.chosen_error is not None:
        text = f"Sampling is off by {curve.chosen_error:.2g} {curve.unit} for want of solver steps."
        level = _grade(curve.chosen_error, SOLVER_ERROR)
        fix = "Ask for more steps or a tighter tolerance." if level != "good" else ""
        yield Finding(level, "Solver error", text, _rule(SOLVER_ERROR), fix)
    if evidence.round_trip_error is not None:
        text = f"Carrying rows to noise and back misses them by {evidence.round_trip_error:.2g} standard deviations."
        level = _grade(evidence.round_trip_error, ROUND_TRIP)
        fix = "The scores need a tighter tolerance." if level != "good" else ""
        yield Finding(level, "Round trip", text, _rule(ROUND_TRIP), fix)
    if evidence.clipped_fraction is not None:
        text = f"{evidence.clipped_fraction:.2%} of sampled cells had to be moved back into the data's range."
        level = _grade(evidence.clipped_fraction, CLIPPED)
        fix = "Its tails are too wide: train longer." if level != "good" else ""
        yield Finding(level, "Out of range", text, _rule(CLIPPED), fix)


_CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    _training,
    _likelihood,
    _samples,
    _memorised,
    _numbers,
)


def _grade(value: float, thresholds: tuple[float, float]) -> Level:
    if not math.isfinite(value) or value > thresholds[1]:
        return "fault"
    return "warning" if value > thresholds[0] else "good"


def _rule(thresholds: tuple[float, float], unit: str = "") -> str:
    return f"at most {thresholds[0]:g}{unit}; a fault above {thresholds[1]:g}"


def _difference_error(
    left: np.ndarray | None, right: np.ndarray | None, left_error: float, right_error: float
) -> float:
    """Standard error of a difference of means; paired when both scored the same rows, which is far sharper."""
    if left is not None and right is not None and len(left) == len(right) > 1:
        return float(np.std(np.asarray(left) - np.asarray(right), ddof=1) / math.sqrt(len(left)))
    return float(np.hypot(*np.nan_to_num([left_error, right_error])))
