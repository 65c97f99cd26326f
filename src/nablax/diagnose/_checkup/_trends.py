"""What check-ups of one run say together: a loss that stays where it was, units that die, a ratio that rises."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._core import Finding
from ._part import percent
from ._record import Checkup


class Trend(NamedTuple):
    """From the first check-up to the last; numbers without unit.

    Attributes:
        steps: between them.
        left: loss now over that of the first check-up, or over that of a model that knows nothing if this is lower.
        died: growth of the largest share of dead units in a layer.
        grown: ratio of curvature times rate to its limit, now over the first; 1 where either is not known.
        risen: loss now over that of the first check-up; 1 where rows leave open whether it has risen.
        known: whether the first check-up says what knowing nothing gives: as the run's first, or by ``chance``.
    """

    steps: float
    left: float
    died: float
    grown: float
    risen: float = 1.0
    known: bool = True


# Loss left from which nothing has been learned, and steps from which that is a fault; made on the bank of runs, where
# after twenty steps it says little. Units that die and a ratio that grows do not raise the odds of failure there.
LEFT, LATE = 0.95, 100
DIED, GROWN = 0.2, 4.0
# Loss over that of the first check-up from which it was blown up: on the making half it raises the odds of failure of
# what is otherwise no fault 2.6 times. Resolved by so many standard errors, since batches differ.
RISEN, RESOLVED = 1.5, 4.0


def trend_of(steps: Sequence[int], records: Sequence[Checkup]) -> Trend:
    """Of at least two check-ups, in their order."""
    first, last = records[0], records[-1]
    start = float(first.loss) if first.chance is None else min(float(first.loss), float(first.chance))
    before, now = first.signs, last.signs
    grown = now.ratio / before.ratio if before.ratio > 0 else np.nan
    left = float(last.loss) / start if start > 0 else np.nan
    known = first.chance is not None or (steps[0] == 0 and bool(first.unaided))
    grown = float(np.nan_to_num(grown, nan=1.0))
    return Trend(steps[-1] - steps[0], left, now.dead - before.dead, grown, _risen(first, last), known)


def _risen(first: Checkup, last: Checkup) -> float:
    before, now = float(first.loss), float(last.loss)
    errors = [math.nan if record.noise is None else float(record.noise.mean_error) for record in (first, last)]
    resolved = now - before > RESOLVED * math.hypot(*errors)  # not where rows are not known
    return now / before if resolved and before > 0 else 1.0


def stalled(trend: Trend) -> Any:
    """Whether nothing has been learned since the first check-up, though there was time; of numbers or of columns."""
    return (trend.steps >= LATE) & (trend.left > LEFT) & trend.known


def trends(steps: Sequence[int], records: Sequence[Checkup]) -> list[Finding]:
    """Findings over the check-ups of a run.

    Args:
        steps: their numbers.
        records: the check-ups, oldest first.

    Returns:
        Findings, none of fewer than two check-ups.
    """
    if len(records) < 2:
        return []
    trend, since, found = trend_of(steps, records), steps[0], []
    if trend.risen > RISEN:
        text = (
            f"The loss is {trend.risen:.3g} times what it was at step {since}: a step has blown it up. It may come "
            "down again; a lower rate from the last good state is the safer way."
        )
        found.append(Finding("warning", "blown up", text))
    if stalled(trend):
        text = (
            f"Since step {since} nothing has been learned: the loss is {percent(trend.left)} of what it was there, or "
            "of that of a model that knows nothing."
        )
        found.append(Finding("fault", "no progress", text))
    if trend.died > DIED:
        text = f"Units are dying: since step {since} {percent(trend.died)} of a layer's. A lower rate keeps the others."
        found.append(Finding("note", "dying units", text))
    if trend.grown > GROWN and records[-1].signs.ratio > 1:
        text = f"Curvature times rate has grown {trend.grown:.2g} times since step {since}, beyond its limit."
        found.append(Finding("note", "rising curvature", text))
    return found
