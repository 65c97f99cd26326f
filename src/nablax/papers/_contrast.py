"""A claim in numbers: what the paper's method gave and what its baselines did, key by key, and what decides."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.special
from jaxtyping import ArrayLike

from .._core import fault

Why = Literal["", "no effect here", "effect too small to see", "protocol out of reach", "contradicts"]
_CONFIDENCE, _POWER = 0.95, 0.8
# As single precision knows them; kept numbers are those that decided.
_DIGITS = 7


class Curve(NamedTuple):
    """What only a picture shows: the metric over ``x``, ``[keys, len(x)]`` for each method."""

    x_name: str
    x: ArrayLike
    values: Mapping[str, ArrayLike]


@dataclasses.dataclass(frozen=True)
class Contrast:
    r"""One metric of the paper's method and of its baselines on the same keys, and what the claim asks of it.

    The gain $g_k$ is the difference on key $k$ between the method and the baseline whose mean is best, positive where
    the method is better. The claim holds where the $t$ interval at 95 % of the mean gain, over keys, lies above zero
    against every baseline, and the mean gain is what the paper claims: at least ``margin``, and in means, where they
    are given, at least ``ratio`` times the baseline or on the good side of ``threshold``, with every baseline on the
    other. With one key there is no interval: the number is taken as exact, and one of the three is asked for.

    Args:
        metric: what is measured, with its unit.
        values: of each method, one number for each key, the paper's method first. The keys are independent
            repetitions, and the same for all methods; one number for what does not depend on chance.
        direction: which values are better, "lower" or "higher".
        margin: that the mean gain reaches, in the metric's unit.
        ratio: of the method's mean to the best baseline's, at most this if lower is better, at least if higher is; a
            baseline whose mean is negative is not beaten by a ratio.
        threshold: that the method's mean meets and no baseline's does.
        settings: that each method was tuned to, one for each tuning.
        seconds: that one run of each method took.
        passes: over the model that one run of each method took.
        curve: for the picture.

    Raises:
        ValueError: no baseline, different numbers of keys, a number that is not finite, a ratio on the wrong side of
            one, or one key and nothing that decides.

    Example:
        >>> from nablax.papers import Contrast
        >>> errors = {"new": [0.8, 1.1, 1.0], "plain": [2.1, 2.3, 2.2]}
        >>> contrast = Contrast("error", errors, "lower", ratio=0.5)
        >>> contrast.holds, round(contrast.gain, 2)
        (True, 1.23)
    """

    metric: str
    values: Mapping[str, Any] = dataclasses.field(hash=False)
    direction: Literal["lower", "higher"]
    margin: float = 0.0
    ratio: float | None = None
    threshold: float | None = None
    settings: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict, hash=False)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)
    passes: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)
    curve: Curve | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        values = {name: _rounded(given) for name, given in self.values.items()}
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "settings", {name: tuple(given) for name, given in self.settings.items()})
        counts = {len(numbers) for numbers in values.values()}
        if len(values) < 2 or len(counts) != 1 or 0 in counts:
            raise fault(
                expected=f"{self.metric}: a method and a baseline at least, with one number a key",
                got=str({name: len(numbers) for name, numbers in values.items()}),
                fix="Run the baseline on the same keys.",
            )
        if bad := [name for name, numbers in values.items() if not np.all(np.isfinite(numbers))]:
            raise fault(
                expected=f"{self.metric}: finite numbers",
                got=f"{bad[0]}: {values[bad[0]]}",
                fix="Choose a metric that a run which diverged has too, such as a loss cut off at its start.",
            )
        if self.direction not in ("lower", "higher"):
            raise fault(expected="'lower' or 'higher'", got=repr(self.direction), fix="Say which values are better.")
        if self.ratio is not None and not (0 < self.ratio <= 1 if self.direction == "lower" else self.ratio >= 1):
            raise fault(
                expected=f"a ratio to the baseline that is {'0 to 1' if self.direction == 'lower' else 'at least 1'}",
                got=self.ratio,
                fix=f"It is the method's mean over the baseline's, and {self.direction} is better.",
            )
        if self.count == 1 and not self.margin and self.ratio is None and self.threshold is None:
            raise fault(
                expected=f"{self.metric}: a margin, a ratio or a threshold where there is one number a method",
                got="none, and no error that could decide",
                fix="Say how large the effect must be, or give several keys.",
            )

    @property
    def count(self) -> int:
        """Number of keys."""
        return len(self.values[self.method])

    @property
    def method(self) -> str:
        """The paper's method."""
        return next(iter(self.values))

    @property
    def baselines(self) -> tuple[str, ...]:
        """The others, in order."""
        return tuple(self.values)[1:]

    @property
    def baseline(self) -> str:
        """The one whose mean is best."""
        return min(self.baselines, key=lambda name: -self._sign * self.mean(name))

    def mean(self, name: str) -> float:
        """Mean over keys of one method."""
        return float(np.mean(self.values[name]))

    def error(self, name: str) -> float:
        """Its standard error; NaN for one key."""
        return _standard_error(self.values[name])

    @property
    def gains(self) -> np.ndarray:
        """By how much the method is better than the best baseline, on each key."""
        return self._over(self.baseline)

    @property
    def gain(self) -> float:
        """Mean over keys."""
        return float(np.mean(self.gains))

    @property
    def gain_error(self) -> float:
        """Standard error of the mean gain, of the paired differences; NaN for one key."""
        return _standard_error(self.gains)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean gain over the best baseline, whichever that is, at 95 %; the number itself for one key.

        Which baseline is best is not known: by chance one that is noisy may look worse than one that is easily beaten.
        So either end is the lowest of those of Student's t intervals over keys against each: below, each errs as seldom
        as the whole may, since the method must pass all; above, any may err, and they share it between them.
        """
        if self.count == 1:
            return self.gain, self.gain
        tail = (1 - _CONFIDENCE) / 2
        below, above = scipy.special.stdtrit(self.count - 1, 1 - tail / np.array([1, len(self.baselines)]))
        gains, errors = self._against
        return float(np.min(gains - below * errors)), float(np.min(gains + above * errors))

    @property
    def detectable(self) -> float:
        """The power: the smallest mean gain that so many keys of this spread would resolve four times in five.

        Against each baseline by itself, all of them where they are now from one another.
        """
        if self.count == 1:
            return float("nan")
        gains, errors = self._against
        return float(np.max(_noncentrality(self.count - 1) * errors - (gains - self.gain)))

    @property
    def asked(self) -> float:
        """The gain that the claim asks for, in the metric's unit, the baselines being what they are."""
        mean = self.mean(self.baseline)
        asked = [self.margin]
        asked += [] if self.ratio is None else [abs((self.ratio - 1) * mean)]
        asked += [] if self.threshold is None else [self._sign * (self.threshold - mean)]
        return max(asked)

    @property
    def holds(self) -> bool:
        """Whether the gain is resolved, and what the claim asks for."""
        ours, theirs = self.mean(self.method), self.mean(self.baseline)
        far = self.gain >= self.margin
        if self.ratio is not None:
            # Of less than nothing there is no multiple, such as of an unbiased distance that noise made negative.
            far &= theirs >= 0 and self._sign * (ours - self.ratio * theirs) >= 0
        if self.threshold is not None:
            far &= self._meets(ours) and not self._meets(theirs)
        return bool(far and self.interval[0] > 0)

    @property
    def why(self) -> Why:
        """Why it does not hold, in a word; empty where it does.

        "contradicts" where the method is worse, and that is resolved; "no effect here" where so large a gain as is
        asked for is excluded, or none is asked for and the numbers do not point that way, or the baselines meet the
        threshold too; else "effect too small to see".
        """
        low, high = self.interval
        if self.holds:
            return ""
        if high < 0:
            return "contradicts"
        if self.threshold is not None and self._meets(self.mean(self.baseline)):
            return "no effect here"
        excluded = high < self.asked if self.asked > 0 else self.gain <= 0
        return "no effect here" if low <= 0 and excluded else "effect too small to see"

    def kept(self) -> dict[str, Any]:
        """What a record keeps: every field that says something, but the curve."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "curve"}
        kept["seconds"] = {name: float(f"{number:.2g}") for name, number in self.seconds.items()}
        absent: dict[str, Any] = {"margin": 0.0, "ratio": None, "threshold": None}
        absent |= {"settings": {}, "seconds": {}, "passes": {}}
        return {name: value for name, value in kept.items() if name not in absent or value != absent[name]}

    @property
    def _sign(self) -> int:
        return 1 if self.direction == "higher" else -1

    @property
    def _against(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean gain over each baseline, and its standard error."""
        gains = [self._over(name) for name in self.baselines]
        return np.mean(gains, axis=1), np.array([_standard_error(each) for each in gains])

    def _over(self, baseline: str) -> np.ndarray:
        return self._sign * (np.asarray(self.values[self.method]) - np.asarray(self.values[baseline]))

    def _meets(self, mean: float) -> bool:
        assert self.threshold is not None
        return self._sign * (mean - self.threshold) >= 0


def pooled(contrasts: Sequence[Contrast]) -> Contrast:
    """Put the same contrast of several runs, each with its own keys, into one.

    Args:
        contrasts: alike but for their numbers.

    Returns:
        The contrast over all keys; seconds and passes are means over runs, the curve that of the first run. The first
        as it is where the numbers of all are the same: what does not depend on the key is not repeated by it.

    Raises:
        ValueError: the methods or what is asked differ between runs.
    """
    first = contrasts[0]
    names = list(first.values)
    asked = [(list(one.values), one.direction, one.margin, one.ratio, one.threshold) for one in contrasts]
    if other := next((one for one in asked if one != asked[0]), None):
        raise fault(
            expected=f"{first.metric}: the same methods and criterion at every key, {asked[0]}",
            got=str(other),
            fix="Put what depends on the key into the numbers.",
        )
    if all(one.values == first.values for one in contrasts):
        return first
    return dataclasses.replace(
        first,
        values={name: [number for one in contrasts for number in one.values[name]] for name in names},
        settings={name: [setting for one in contrasts for setting in one.settings[name]] for name in first.settings},
        seconds={name: float(np.mean([one.seconds[name] for one in contrasts])) for name in first.seconds},
        passes={name: float(np.mean([one.passes[name] for one in contrasts])) for name in first.passes},
    )


def _rounded(given: ArrayLike) -> tuple[float, ...]:
    numbers = np.atleast_1d(np.asarray(given, np.float64))
    if numbers.ndim > 1:
        raise fault(expected="one number a key", got=f"an array of shape {numbers.shape}", fix="Average the others.")
    return tuple(float(f"{number:.{_DIGITS}g}") for number in numbers)


def _standard_error(numbers: ArrayLike) -> float:
    numbers = np.asarray(numbers)
    return float(np.std(numbers, ddof=1) / np.sqrt(len(numbers))) if len(numbers) > 1 else float("nan")


def _noncentrality(freedom: int) -> float:
    """Mean over standard error at which the t statistic passes its 97.5 % point with the power asked for."""
    critical = scipy.special.stdtrit(freedom, (1 + _CONFIDENCE) / 2)
    return float(scipy.special.nctdtrinc(freedom, 1 - _POWER, critical))


__all__ = ["Contrast", "Curve", "Why", "pooled"]
