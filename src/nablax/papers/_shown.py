"""How contrasts look: words, tables, pictures. What came out does not depend on it, nor do digests of evidence."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._contrast import Contrast

# Of a picture: so many letters to a line of a method's name and of an axis' label, and logarithms beyond this ratio.
_NAME, _LABEL, _DECADES = 22, 42, 50


def measured(contrasts: Sequence[Contrast]) -> str:
    """What the method gave, contrast by contrast."""
    return "; ".join(f"{one.metric}: {_result(one, one.method)}{_keys(one)}" for one in contrasts)


def baseline(contrasts: Sequence[Contrast]) -> str:
    """What the baselines gave, under the metric's name where there are several."""
    lines = []
    for one in contrasts:
        head = f"{one.metric}: " if len(contrasts) > 1 else ""
        lines.append(head + ", ".join(_result(one, name) for name in one.baselines))
    return "; ".join(lines)


def difference(contrasts: Sequence[Contrast]) -> str:
    """The paired gain with its error and interval, and the power."""
    return "; ".join(_difference(one, named=len(contrasts) > 1) for one in contrasts)


def criterion(contrasts: Sequence[Contrast]) -> str:
    """What decides."""
    return "; ".join((f"{one.metric}: " if len(contrasts) > 1 else "") + _criterion(one) for one in contrasts)


def table(contrast: Contrast) -> list[tuple[str, ...]]:
    """A head and one row a method: mean, standard error, and where they are known setting, seconds and passes."""
    known = {
        "setting": {name: _span(given) for name, given in contrast.settings.items()},
        "s a run": {name: f"{number:.2g}" for name, number in contrast.seconds.items()},
        "passes": {name: f"{number:g}" for name, number in contrast.passes.items()},
    }
    shown = {name: column for name, column in known.items() if column}
    rows: list[tuple[str, ...]] = [("method", contrast.metric, "std. error", *shown)]
    for name in contrast.values:
        error = contrast.error(name)
        cells = number(contrast.mean(name)), "one number" if math.isnan(error) else f"{error:.2g}"
        rows.append((name, *cells, *(column.get(name, "") for column in shown.values())))
    return rows


def draw(contrasts: Sequence[Contrast], axes: Any) -> None:
    """Draw the first contrast that has a curve, else the first: means by method, with their standard errors."""
    one = next((one for one in contrasts if one.curve is not None), contrasts[0])
    if one.curve is not None:
        for place, (name, given) in enumerate(one.curve.values.items()):
            values = np.atleast_2d(np.asarray(given))
            middle = values.mean(0)
            error = values.std(0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0 * middle
            axes.plot(one.curve.x, middle, color=f"C{min(place, 2)}", label=name)
            axes.fill_between(one.curve.x, middle - error, middle + error, color=f"C{min(place, 2)}", alpha=0.2, lw=0)
        axes.set(xlabel=one.curve.x_name, ylabel=one.metric)
        axes.legend()
        return
    # One row a method, and no taller than they need.
    axes.figure.set_figheight(0.95 + 0.42 * len(one.values))
    for place, name in enumerate(one.values):
        colour = f"C{min(place, 1)}"
        axes.plot(one.values[name], [place] * one.count, "o", color=colour, alpha=0.35, ms=4)
        axes.errorbar(one.mean(name), place, xerr=np.nan_to_num(one.error(name)), fmt="o", color=colour, capsize=3)
    if one.threshold is not None:
        axes.axvline(one.threshold, color="C2", ls="--")
    numbers = [number for numbers in one.values.values() for number in numbers]
    if min(numbers) > 0 and max(numbers) > _DECADES * min(numbers):
        axes.set_xscale("log")
    axes.set_yticks(range(len(one.values)), [textwrap.fill(name, _NAME) for name in one.values])
    axes.set_ylim(len(one.values) - 0.5, -0.5)
    axes.set(xlabel=textwrap.fill(f"{one.metric} ({one.direction} is better)", _LABEL))


def number(value: float) -> str:
    """Three significant digits; whole numbers and those of a hundred and more as they are."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:#.3g}"


def with_error(value: float, error: float) -> str:
    """The value to the second digit of its error; three digits where there is none."""
    if not error > 0:
        return number(value)
    decimals = 1 - math.floor(math.log10(error))
    if not 0 <= decimals <= 5:
        digits = decimals + math.floor(math.log10(abs(value))) + 1 if value else 1
        return f"{value:.{max(digits, 1)}g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _result(one: Contrast, name: str) -> str:
    at = f" (at {_span(one.settings[name])})" if name in one.settings else ""
    return f"{name} {with_error(one.mean(name), one.error(name))}{at}"


def _keys(one: Contrast) -> str:
    return f", {one.count} keys" if one.count > 1 else ""


def _difference(one: Contrast, named: bool) -> str:
    head = f"{one.metric}: " if named else ""
    sign = "better" if one.gain >= 0 else "worse"
    by = with_error(abs(one.gain), one.gain_error)
    said = f"{head}{sign} than {one.baseline} by {by}"
    if one.count == 1:
        return said
    low, high = one.interval
    over = f" over the best of {len(one.baselines)}, whichever it is" if len(one.baselines) > 1 else ""
    return (
        f"{said} (paired; 95 % interval{over} {number(low)} to {number(high)}); "
        f"a difference of {number(one.detectable)} would have been seen"
    )


def _criterion(one: Contrast) -> str:
    asked = []
    if one.threshold is not None:
        bound = "at most" if one.direction == "lower" else "at least"
        asked.append(f"{bound} {one.threshold:g}, which no baseline meets")
    if one.ratio is not None:
        bound = "at most" if one.direction == "lower" else "at least"
        asked.append(f"{bound} {one.ratio:.3g} times the best baseline's")
    if one.margin or not asked:
        asked.append(
            f"{one.direction} than the best baseline's" + (f" by {one.margin:g} or more" if one.margin else "")
        )
    resolved = ", the paired difference resolved at 95 %" if one.count > 1 else ""
    return f"{' and '.join(asked)}{resolved}"


def _span(settings: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(settings))


__all__ = ["baseline", "criterion", "difference", "draw", "measured", "number", "table", "with_error"]
