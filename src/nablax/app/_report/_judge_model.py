"""What to make of the training, the likelihood and the numerics of a run."""

import math
from collections.abc import Iterator

import numpy as np

from ..._core import Finding, Level
from ._evidence import Evidence, Training
from ._hidden import MIDDLE
from ._levels import (
    CLIPPED,
    COVERED,
    FEW_HELD_OUT,
    FEWEST_STEPS,
    LOSS_GAP,
    MATERIAL,
    ROUND_TRIP,
    SOLVER_ERROR,
    STILL_FALLING,
    TRAINING_GAP,
    WORSE_BY,
    grade,
    rule_of,
)

_NAMED = 8  # columns named in the first lines


def training(evidence: Evidence) -> Iterator[Finding]:
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
    if training.result == "completed" and training.step[-1] < FEWEST_STEPS:
        sentence = f"It had not finished learning: it was trained for {int(training.step[-1])} steps alone."
        rule = f"at least {FEWEST_STEPS} steps, or stopped early"
        yield Finding("fault", "Length of training", sentence, rule, "Train for more --steps.")
        return
    falling = _late_fall(training)
    if falling is not None and training.result == "completed":
        rule = f"at most {STILL_FALLING:.0%} of its fall in the last fifth of the steps"
        if falling > STILL_FALLING:
            sentence = f"It had not finished learning: {falling:.0%} of what the validation loss fell, it fell in the "
            sentence += f"last fifth of the {int(training.step[-1])} steps."
            yield Finding("fault", "Length of training", sentence, rule, "Train for more --steps.")
        else:
            yield Finding("good", "Length of training", "The validation loss had settled when training ended.", rule)
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


def _late_fall(training: Training) -> float | None:
    """Part of the validation loss's fall that lies in the last fifth of the steps; None where it did not fall."""
    early = training.validation[training.validation_step <= 0.8 * training.step[-1]]
    if not len(early):
        return None
    fell = float(training.validation[0] - np.min(training.validation))
    return max(0.0, float(np.min(early) - np.min(training.validation))) / fell if fell > 0 else None


def columns(evidence: Evidence) -> Iterator[Finding]:
    """What the model says nothing of stands in the first lines, whatever the level."""
    if evidence.dropped:
        names = ", ".join(f"'{name}'" for name in list(evidence.dropped)[:_NAMED])
        names += ", …" if len(evidence.dropped) > _NAMED else ""
        sentence = f"It says nothing of {names}: see the notices for why."
        yield Finding("good", "Columns", sentence, "every column modelled")


def likelihood(evidence: Evidence) -> Iterator[Finding]:
    rule = f"no simple baseline is better by {WORSE_BY:g} standard errors; a fault where one is, by more than "
    rule += f"{MATERIAL:g} nats per dimension"
    if not any(score.baseline for score in evidence.likelihoods[1:]):
        why = "The likelihood of held-out rows was not compared with a simple baseline."
        reason = evidence.why_missing.get("likelihoods", "")
        fix = f"{reason[:1].upper()}{reason[1:]}." if reason else ""
        yield Finding("unknown", "Likelihood", why, rule, fix)
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
    name = best.name.lower().replace("gaussian", "Gaussian")
    amount, rival = f"{abs(ahead):.2f} ± {error:.2f} {evidence.unit}", f"the best simple baseline (a {name})"
    if ahead < -WORSE_BY * error:
        behind = -_per_dimension(ahead, evidence)
        sentence = f"It explains held-out rows worse than {rival}: by {amount}."
        fix = f"Use the {name} instead, or train longer."
        yield Finding("fault" if behind > MATERIAL else "warning", "Likelihood", sentence, rule, fix)
    elif ahead <= WORSE_BY * error:
        sentence = f"It explains held-out rows as well as {rival}: the difference is {amount}."
        fix = "The simpler model does as well where only densities matter."
        yield Finding("good", "Likelihood", sentence, rule, fix)
    else:
        yield Finding("good", "Likelihood", f"It explains held-out rows better than {rival}, by {amount}.", rule)
    if evidence.train_likelihood is not None:
        excess = evidence.train_likelihood.mean - model.mean
        per_dimension = _per_dimension(-excess if bits else excess, evidence)
        level = grade(per_dimension, TRAINING_GAP)
        sentence = f"Training rows score {max(per_dimension, 0.0):.2f} nats per dimension above held-out rows"
        sentence += ": it has learned its training rows by heart in part." if level != "good" else "."
        fix = "More rows, fewer steps or a smaller network would help." if level != "good" else ""
        yield Finding(level, "Generalisation", sentence, rule_of(TRAINING_GAP, " nats per dimension"), fix)


def _per_dimension(better: float, evidence: Evidence) -> float:
    """A difference of likelihoods, in the evidence's unit, in nats per dimension."""
    return better * math.log(2) if evidence.unit.startswith("bits") else better / max(1, evidence.columns)


def hidden(evidence: Evidence) -> Iterator[Finding]:
    """Whether cells that are filled in may be relied on as far as their spread says."""
    found = evidence.hidden
    if found is None:
        return
    off, (material, surely) = found.share - MIDDLE, COVERED
    rule = f"within {material:g} of four fifths, or within {surely:g} standard errors"
    sentence = f"Of numbers that are hidden from it, {found.share:.0%} ± {found.standard_error:.0%} lie in the middle "
    sentence += "four fifths of its draws"
    if abs(off) <= material or abs(off) <= surely * found.standard_error:
        yield Finding("good", "Hidden cells", f"{sentence}.", rule)
    elif off < 0:
        fix = "Take its spreads and intervals for too narrow; more rows or fewer steps would help."
        yield Finding("warning", "Hidden cells", f"{sentence}: it is too sure.", rule, fix)
    else:
        fix = "Take its spreads and intervals for too wide; more steps would help."
        yield Finding("warning", "Hidden cells", f"{sentence}: it is less sure than it could be.", rule, fix)


def numbers(evidence: Evidence) -> Iterator[Finding]:
    """Checks that are one number against two thresholds, and the size of the held-out set."""
    if evidence.held_out_rows is not None and evidence.held_out_rows < FEW_HELD_OUT:
        sentence = f"With {evidence.held_out_rows} held-out rows none of these checks is sharp."
        fix = "More rows would say more."
        yield Finding("warning", "Held-out rows", sentence, f"at least {FEW_HELD_OUT} rows", fix)
    curve = evidence.solver_curve
    if curve is not None and curve.chosen_error is not None:
        text = f"Sampling is off by {curve.chosen_error:.2g} {curve.unit} for want of solver steps."
        level = grade(curve.chosen_error, SOLVER_ERROR)
        fix = "Ask for more steps or a tighter tolerance." if level != "good" else ""
        yield Finding(level, "Solver error", text, rule_of(SOLVER_ERROR), fix)
    if evidence.round_trip_error is not None:
        text = f"Carrying rows to noise and back misses them by {evidence.round_trip_error:.2g} standard deviations."
        level = grade(evidence.round_trip_error, ROUND_TRIP)
        fix = "The scores need a tighter tolerance." if level != "good" else ""
        yield Finding(level, "Round trip", text, rule_of(ROUND_TRIP), fix)
    if evidence.clipped_fraction is not None:
        text = f"{evidence.clipped_fraction:.2%} of sampled cells had to be moved back into the data's range."
        level = grade(evidence.clipped_fraction, CLIPPED)
        fix = "Its tails are too wide: train longer." if level != "good" else ""
        yield Finding(level, "Out of range", text, rule_of(CLIPPED), fix)


def _difference_error(
    left: np.ndarray | None, right: np.ndarray | None, left_error: float, right_error: float
) -> float:
    """Standard error of a difference of means; paired when both scored the same rows, which is far sharper."""
    if left is not None and right is not None and len(left) == len(right) > 1:
        return float(np.std(np.asarray(left) - np.asarray(right), ddof=1) / math.sqrt(len(left)))
    return float(np.hypot(*np.nan_to_num([left_error, right_error])))
