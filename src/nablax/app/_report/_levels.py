"""The thresholds of a report's verdict, and how a number is set against them."""

import math

from ..._core import Level

# Every judgement of a report is one of these numbers.
FEW_HELD_OUT = 100  # rows: below this no check is sharp
SIGNIFICANT = 0.01  # p-value: with a handful of tests, one chance in a hundred is not yet an accident
WORSE_BY = 2.0  # standard errors by which a baseline must win before it is said to win
MATERIAL = 0.10  # nats per dimension that a baseline must win by, surely, before a model is not to be trusted
ACCURACY = (0.60, 0.85)  # share told apart, warning and fault: 0.5 is chance, and few models reach it
FEWEST_STEPS = 200  # of training that ran to its end; a rate that falls to nothing settles any loss, however early
STILL_FALLING = 0.10  # of all that the validation loss fell, the part that fell in the last fifth of the steps
MEMBERSHIP = (0.60, 0.75)  # area under the curve of telling training rows, warning and fault; 0.5 is guessing
SURELY = 2.33  # standard errors that a membership area must lie above one half: one chance in a hundred
CLOSE_SHARE = 0.10  # samples nearer to a training row than one fresh row in a hundred
KNOWN = (0.1, 3.0)  # share of fresh rows that are training rows, beyond how often these recur, and standard errors
COPIED_EXCESS = 0.05  # exact copies beyond what held-out rows show
TRAINING_GAP = (0.10, 0.50)  # nats per dimension by which training rows score above held-out rows
LOSS_GAP = 1.25  # validation loss over training loss at the kept step
CLIPPED = (0.01, 0.10)  # cells moved back into the data's range
SOLVER_ERROR = (0.01, 0.05)  # error of sampling at the evaluations used, in standard deviations of the data
COVERED = (0.1, 3.0)  # share by which coverage of hidden cells is off, and standard errors: a warning above both
ROUND_TRIP = (0.01, 0.10)  # data to noise and back, in standard deviations of the data


def grade(value: float, thresholds: tuple[float, float]) -> Level:
    """The level of a number that is better the smaller it is."""
    if not math.isfinite(value) or value > thresholds[1]:
        return "fault"
    return "warning" if value > thresholds[0] else "good"


def rule_of(thresholds: tuple[float, float], unit: str = "") -> str:
    """The two thresholds in words."""
    return f"at most {thresholds[0]:g}{unit}; a fault above {thresholds[1]:g}"
