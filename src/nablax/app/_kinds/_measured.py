"""The scale and the atoms of a measured column, from its statistics."""

import dataclasses

import numpy as np

from .._errors import UserError
from ._atoms import atoms
from ._scale import MAXIMUM_LEVELS, Scale
from ._summary import Summary

_TOLD_APART = 1e-5  # standard deviations in which four fifths of the numbers may not lie


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a quantity keeps of its column.

    Attributes:
        scale: of the smooth part.
        atoms: the numbers that recur.
        shares: of the smooth part, of each atom and, where cells were missing, of those.
    """

    scale: Scale
    atoms: tuple[float, ...]
    shares: tuple[float, ...]


def on_grid(summary: Summary) -> bool:
    """Whether a grid of few enough steps holds every value."""
    return summary.levels <= MAXIMUM_LEVELS


def measure(summary: Summary, *, grid: bool) -> Measured:
    """Find atoms, and standardise what they leave.

    Args:
        summary: of a column of numbers, times or durations that is not constant.
        grid: whether its values are counted by their index.

    Returns:
        Its scale, atoms and shares.

    Raises:
        UserError: the values are too close together for floats, or sit on no grid and one was asked for.
    """
    if grid and not on_grid(summary):
        raise UserError(
            f"column '{summary.name}' sits on no grid of at most {MAXIMUM_LEVELS} steps: use number instead"
        )
    if summary.low == summary.high:
        raise UserError(f"column '{summary.name}': its values are too close together to tell apart as floats")
    gridded = summary.on_grid and summary.divisor > 0
    found = atoms(
        summary.counts,
        summary.count,
        step=summary.divisor / summary.denominator if gridded else 0.0,
        low=summary.low,
        high=summary.high,
        distinct=len(summary.distinct),
    )
    counts = [summary.counts[value] for value in found]
    mean, deviation = _rest(summary, np.array(found), np.array(counts, np.float64))
    scale = Scale(
        grid=grid,
        low=summary.low,
        high=summary.high,
        mean=mean,
        scale=deviation,
        low_tick=(summary.low_tick or 0) if gridded else 0,
        step_ticks=summary.divisor if gridded else 0,
        denominator=summary.denominator if gridded else 1,
    )
    sample = np.concatenate(summary.sample)
    sample = sample[~np.isin(sample, found)] if found else sample
    if grid:
        sample = np.rint(scale.to_index(sample))
        scale = dataclasses.replace(
            scale, mean=(mean - summary.low) / scale.step, scale=float(np.hypot(deviation / scale.step, 12**-0.5))
        )
    total = summary.count + summary.missing
    missing = (summary.missing / total,) if summary.missing else ()
    shares = (summary.count - sum(counts)) / total, *(count / total for count in counts), *missing
    scale = _with_logarithm(scale, sample)
    if not grid and len(sample) and not scale.log:
        _require_told_apart(summary, scale, sample)
    return Measured(scale, found, shares)


def _require_told_apart(summary: Summary, scale: Scale, sample: np.ndarray) -> None:
    """Refuse a number so large beside the others that single precision takes these for one."""
    low, high = np.quantile(sample / scale.scale, [0.1, 0.9])
    if 0.0 < high - low < _TOLD_APART:
        worst = summary.low if abs(summary.low) > abs(summary.high) else summary.high
        raise UserError(
            f"column '{summary.name}' holds {worst:g}, beside which its other numbers cannot be told apart; where it "
            "stands for a missing cell, name it with --missing-values"
        )


def _rest(summary: Summary, values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the cells that are at no atom."""
    left = summary.count - counts.sum()
    if not left:
        return summary.mean, summary.deviation
    apart = values / summary.size - summary.mean / summary.size
    shift = -float(np.sum(counts * apart)) / left
    squares = summary.squares - float(np.sum(counts * apart**2)) - left * shift**2
    deviation = summary.size * float(np.sqrt(max(squares, 0.0) / left))
    # One value left, or rounding: the whole column's own will do.
    return float(summary.mean + shift * summary.size), deviation or summary.deviation


def _with_logarithm(scale: Scale, measure: np.ndarray) -> Scale:
    """Take logarithms first where that makes a skewed, positive column markedly less skewed."""
    if scale.grid:
        # Half a cell of noise must stay above zero; a column of counts that starts at zero gets log(1 + count).
        shift = scale.low_tick / scale.step_ticks
        shift = shift if shift > 0.5 else shift + 1.0
        positive = scale.low >= 0.0
    else:
        shift, positive = 0.0, len(measure) > 0 and float(measure.min()) > 0.0
    skewness = _skewness(measure)
    if not positive or skewness <= 2.0:
        return scale
    logarithm = np.log(measure + shift)
    if abs(_skewness(logarithm)) > 0.5 * skewness:
        return scale
    mean, deviation = float(logarithm.mean()), float(logarithm.std())
    return dataclasses.replace(scale, log=True, shift=shift, mean=mean, scale=deviation)


def _skewness(value: np.ndarray) -> float:
    """Of numbers of any size; 0 of equal ones."""
    size = float(np.abs(value).max(initial=0.0))
    if not size:
        return 0.0
    centred = value / size - np.mean(value / size)
    peak = float(np.abs(centred).max())
    deviation = float((centred / peak).std()) if peak > 0.0 else 0.0
    return float(np.mean((centred / peak) ** 3)) / deviation**3 if deviation > 0.0 else 0.0
