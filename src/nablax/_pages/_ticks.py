"""Tick labels that can be read: few enough not to touch, whole where the values are, dates as dates."""

from typing import Any

import numpy as np

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LONG = 1e4  # from here on numbers are written in thousands and more


def readable_ticks(axis: Any, values: np.ndarray, *, count: int, room: int = 100, dates: bool = False) -> None:
    """Set the ticks of one axis of a plot, whose limits are set already.

    Args:
        axis: matplotlib's ``xaxis`` or ``yaxis``.
        values: what is drawn along it.
        count: at most so many intervals.
        room: letters that fit along the axis, two between one label and the next.
        dates: the values are days since 1970.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    if dates:
        locator = AutoDateLocator(minticks=2, maxticks=count)
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
        return
    known = values[np.isfinite(values)]
    whole = bool(len(known)) and bool(np.all(known == np.round(known)))
    low, high = axis.get_view_interval()
    ticks: list[float] = []
    for intervals in range(count, 0, -1):
        locator = MaxNLocator(intervals, integer=whole, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
        ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
        if sum(len(compact(tick, ticks)) + 2 for tick in ticks) - 2 <= room:
            break
    axis.set_ticks(ticks, [compact(tick, ticks) for tick in ticks])


def compact(value: float, among: list[float]) -> str:
    """A tick's number in as few characters as tell it from the other ticks: 25k for 25000, 2007 for 2007.

    Args:
        value: the number.
        among: all ticks of the axis.
    """
    largest = max(map(abs, among), default=abs(value))
    step = min((abs(b - a) for a, b in zip(among, among[1:])), default=largest) or 1.0
    unit, letter = next(((unit, letter) for unit, letter in _UNITS if largest >= max(unit, _LONG)), (1.0, ""))
    if value == 0 or largest == 0:
        return "0"
    if largest < 1e-3 or largest >= 1e15:
        return f"{value:.{_digits(largest, step)}e}".replace("e-0", "e-").replace("e+0", "e")
    decimals = _decimals(step / unit)
    if decimals > 2 and unit > 1:  # the thousands would hide what differs
        unit, letter, decimals = 1.0, "", _decimals(step)
    return f"{value / unit + 0.0:.{decimals}f}{letter}"


def _decimals(step: float) -> int:
    decimals = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
    # A step of 2.5 takes a digit more than its size says.
    return decimals + int(abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6)


def _digits(largest: float, step: float) -> int:
    return max(0, int(np.ceil(np.log10(largest / step))))
