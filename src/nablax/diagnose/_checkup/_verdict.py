"""Which signs raise which level: causes that are named, and a risk that says how grave they are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from ..._core import LEVELS, Level
from ._risk import risk_of
from ._signs import Signs

# Growth of the step by its schedule from which the rate is on its way up; cosine of step and gradient from which a step
# points uphill, more than rounding and noise that is added make of one that does not.
RISING, UPHILL = 2.0, 0.1
# Loss over that of knowing nothing below which a run has learned something: in the bank half of those that are flat or
# likely to fail there, for no cause that is seen, fail.
LEARNED = 0.9


class Thresholds(NamedTuple):
    """From where on something is said; the defaults were set on the making half of the bank of runs.

    Attributes:
        fault: risk from which what is found is a fault; 0.6.
        first: the same before the optimiser's first step, when little can be told; 0.88, and between the two a note to
            ask again.
        cut: share of the elements without gradient, of those that are to move, from which the network is dead; 0.5.
        dead: share of a layer's units from which dead ones are more than a note; 0.5.
        saturated: loss over that of a model that knows nothing; 3.
        vanishing: relative change of the loss by a relative change of any matrix, below which gradients vanish; 1e-3.
        exploding: the same, above which they explode; 1e3.
        forgotten: decades by which the loss feels the first position of a sequence less than the last; 8, beyond what
            single precision holds.
        drowned: decades by which it feels it more; 3.
        decay: share of the threshold that decay takes from which it forgets the weights; 0.02.
        opposed: cosine between losses below which they are in conflict, where the step raises one of them; -0.9.
        gain: by how much lower the loss has to end at another rate, as a share, for the rate to be at fault; 0.1.
        lost: share of the step's elements lost in rounding; 0.5.
    """

    fault: float = 0.6
    first: float = 0.88
    cut: float = 0.5
    dead: float = 0.5
    saturated: float = 3.0
    vanishing: float = 1e-3
    exploding: float = 1e3
    forgotten: float = 8.0
    drowned: float = 3.0
    decay: float = 0.02
    opposed: float = -0.9
    gain: float = 0.1
    lost: float = 0.5


DEFAULT = Thresholds()


class Rule(NamedTuple):
    """A cause; it holds for numbers and for columns of them.

    Attributes:
        topic: what it is about.
        says: the condition in words, for the table of the bank.
        least: the level that it has whatever the risk; None where it is not worth a word without risk.
        holds: signs and thresholds -> truth.
    """

    topic: str
    says: str
    least: Level | None
    holds: Callable[[Signs, Thresholds], Any]


def _dead(s: Signs, t: Thresholds) -> Any:
    """Whether half of the network is, which says more than what becomes of the loss."""
    return (s.cut > t.cut) | (s.mute > t.cut)


def _rising(s: Signs) -> Any:
    """Whether the rate is on its way up, or may be: before the first step, where the schedule is not known."""
    return (s.growth >= RISING) | ((np.asarray(s.fresh) > 0) & ~(s.growth < RISING))


def _still(s: Signs) -> Any:
    """Whether the step is nothing where there are gradients."""
    return (np.asarray(s.moved) == 0) & (np.asarray(s.heart) == 0) & np.isfinite(s.faint)


def _learned(s: Signs) -> Any:
    """Whether a loss that stays may be one that has come as far as it goes; so where chance is not known."""
    return ~(np.asarray(s.fresh) > 0) & ~(np.asarray(s.chance) >= LEARNED)


RULES: Mapping[str, Rule] = {
    "uphill": Rule(
        "direction",
        "a step without momentum points up the gradient",
        "fault",
        lambda s, t: s.uphill > UPHILL,
    ),
    "dead": Rule(
        "dead",
        "half of what is to move gets no gradient, now or after some steps",
        "fault",
        lambda s, t: s.cut > t.cut,
    ),
    "mute": Rule(
        "dead",
        "half of the elements stand still for want of a gradient, and the loss does not feel them",
        None,
        lambda s, t: s.mute > t.cut,
    ),
    "dead units": Rule("layers", "half of a layer's units are dead", None, lambda s, t: s.dead > t.dead),
    "drowned": Rule(
        "through time",
        "the loss feels the first position of a sequence a thousand times as much as the last",
        "fault",
        lambda s, t: s.decades > t.drowned,
    ),
    "forgotten": Rule(
        "through time",
        "it does not feel the first position",
        "note",
        lambda s, t: s.decades < -t.forgotten,
    ),
    "vanishing": Rule(
        "vanishing",
        "no matrix moves the loss",
        "note",
        lambda s, t: (s.elasticity > 0) & (s.elasticity < t.vanishing) & ~_dead(s, t),
    ),
    "exploding": Rule(
        "exploding",
        "a matrix moves the loss a thousand times as much as it moves",
        # Of the bank's five such check-ups two fail: no more than of the others.
        "note",
        # Along a sequence it is said of that.
        lambda s, t: (s.elasticity > t.exploding) & ~(s.decades > t.drowned),
    ),
    "saturated": Rule(
        "saturated",
        "the loss is three times that of a model that knows nothing",
        "note",
        lambda s, t: s.chance > t.saturated,
    ),
    "conflict": Rule(
        "conflict",
        "gradients of two losses are opposed and the step raises one",
        "note",
        lambda s, t: (s.cosine <= t.opposed) & (s.paying > 0),
    ),
    "decay": Rule("decay", "decay takes a fiftieth of the threshold", "warning", lambda s, t: s.decay > t.decay),
    "rises": Rule(
        "learning rate",
        "the loss rises even on the rows that are stepped on",
        "fault",
        lambda s, t: (s.heart > 0) & ~(s.uphill > UPHILL),
    ),
    "too high": Rule(
        "learning rate",
        "a lower rate rehearses better by a tenth of the loss",
        None,
        lambda s, t: (s.best < 1) & (s.gain > t.gain) & ~(s.heart > 0) & ~_dead(s, t) & ~(s.uphill > UPHILL),
    ),
    "too low": Rule(
        "learning rate",
        "a higher rate does, and no schedule raises it (at the first step it may: in the bank that was not looked at)",
        None,
        lambda s, t: (s.best > 1) & (s.gain > t.gain) & ~_rising(s) & ~_dead(s, t) & ~(s.elasticity > t.exploding),
    ),
    "flat": Rule(
        "flat",
        "the loss falls by less than a tenth, and no other rate gains as much",
        None,
        lambda s, t: (s.heart > -t.gain) & (s.heart <= 0) & (s.gain <= t.gain) & ~_dead(s, t) & ~_still(s),
    ),
    "still": Rule(
        "step",
        "nothing moves, though there are gradients and no schedule raises the rate",
        "warning",
        lambda s, t: _still(s) & ~_dead(s, t) & ~_rising(s),
    ),
    "lost": Rule("step", "half of the step is lost in rounding", "note", lambda s, t: s.lost > t.lost),
    "raises": Rule(
        "step",
        "the step raises its own loss by two standard errors",
        "note",
        lambda s, t: (s.change > 0) & ~(s.surely <= 2),
    ),
}


def likely_to_fail(signs: Signs, thresholds: Thresholds = DEFAULT, risk: Any = None) -> Bool[np.ndarray, "..."]:
    """Whether the risk is one of a fault; by default that of the signs."""
    fresh = np.asarray(signs.fresh) > 0
    risk = risk_of(signs) if risk is None else risk
    return np.asarray(risk) >= np.where(fresh, thresholds.first, thresholds.fault)


def raised(
    signs: Signs, thresholds: Thresholds = DEFAULT, risk: Any = None
) -> dict[str, dict[Level, Bool[np.ndarray, "..."]]]:
    """By rule and level, whether it is raised; of numbers or of columns of them."""
    risk = np.asarray(risk_of(signs) if risk is None else risk)
    likely = likely_to_fail(signs, thresholds, risk)
    fresh, doubtful = np.asarray(signs.fresh) > 0, _learned(signs) | (np.asarray(signs.growth) >= RISING)
    found: dict[str, dict[Level, Any]] = {}
    for name, rule in RULES.items():
        holds = np.asarray(rule.holds(signs, thresholds), bool)
        found[name], above = {}, np.zeros_like(holds)
        grave = likely & ~doubtful if name == "flat" else likely
        for level in LEVELS:
            least = likely & doubtful & (level == "note") if name == "flat" else rule.least == level
            said = ((grave & (level == "fault")) | least) & holds & ~above
            found[name][level], above = said, above | said
    # Where it is likely to fail and nothing says why, that is said; before a first step, that it is to be asked again,
    # and where it may be at rest, that it may.
    faults = np.any([each["fault"] for each in found.values()], axis=0)
    early = fresh & (risk >= thresholds.fault) & ~likely
    still = early | (likely & doubtful & ~found["flat"]["note"])
    said = {"fault": likely & ~faults & ~doubtful, "note": still & ~faults}
    return found | {"likely": {level: said.get(level, np.zeros_like(faults)) for level in LEVELS}}


def levels(signs: Signs, thresholds: Thresholds = DEFAULT) -> dict[str, Level]:
    """Names of the rules that hold for one check-up, with their levels."""
    found = raised(signs, thresholds)
    return {name: level for name, each in found.items() for level, said in each.items() if bool(said)}
