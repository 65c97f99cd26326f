"""Print a record as aligned plain text."""

from collections.abc import Sequence
from typing import Any

from ._estimate import Estimate


def table(title: str, rows: Sequence[tuple[str, Any, str]], notes: Sequence[str] = ()) -> str:
    """Lay out named numbers, each with its standard error and unit.

    Args:
        title: first line.
        rows: ``(name, number, unit)``; a number is an `Estimate` or a plain scalar, which has no standard error.
        notes: lines under the table.

    Returns:
        The text, without a trailing newline.
    """
    cells = [("", "value", "std. error", "unit")]
    for name, number, unit in rows:
        if isinstance(number, Estimate):
            cells.append((name, _figure(number.value), _figure(number.standard_error), unit))
        else:
            cells.append((name, _figure(number), "", unit))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [title, "-" * max(len(title), sum(widths) + 6)]
    for name, value, error, unit in cells:
        line = f"{name:<{widths[0]}}  {value:>{widths[1]}}  {error:>{widths[2]}}  {unit}"
        lines.append(line.rstrip())
    return "\n".join([*lines, *notes])


def _figure(number: Any) -> str:
    return f"{float(number):.4g}"
