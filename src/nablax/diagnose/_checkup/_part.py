"""What a part of a check-up is: something measured, what is said of it, and its card on the page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..._core import Finding, Level
from ..._pages import Card
from ._shared import Shared
from ._signs import Signs

LISTED = 4


class Setting(NamedTuple):
    """What the numbers of the parts are judged and drawn beside.

    Attributes:
        loss: on the batch.
        batch_size: rows of a training step; None where not known.
        rows: whose gradients were looked at; None without.
        eigenvalues: of rate times Hessian, the largest first.
        signs: what the levels were judged from.
        levels: of the rules that hold, by their names.
        advised: multiple of the rate that is advised; None where the rate is to stay.
    """

    loss: float
    batch_size: int | None
    rows: int | None
    eigenvalues: Float[np.ndarray, " count"]
    signs: Signs
    levels: Mapping[str, Level]
    advised: float | None


class Part(NamedTuple):
    """A part of a check-up; its thresholds stand beside its measure.

    Attributes:
        name: field of the check-up that has its record.
        measure: what was looked at -> the record, or None where there is nothing to measure.
        judge: record and setting -> findings.
        card: record and setting -> card, or None.
    """

    name: str
    measure: Callable[[Shared], Any]
    judge: Callable[[Any, Setting], list[Finding]]
    card: Callable[[Any, Setting], Card | None]


def listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
