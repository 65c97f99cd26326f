"""Guides as people write them: "petal_length > 5 and island == 'Dream'"."""

import ast
import re
import unicodedata
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from .._errors import UserError

_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
}
# What stands in quotes, and dates and times that do not: 2021-06-01, 2021-06, 5.3.2021 15:53, 15:53:19.
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
_DATE = r"(?:\d+(?:-\d+-|/\d+/|\.\d+\.)\d+|\d{4}-\d{2})"
_QUOTED_OR_TIME = re.compile(
    rf"""('[^']*'|"[^"]*"|`[^`]*`)|(?<![\w.])({_DATE}(?:[ T]{_CLOCK}(?![\d:]))?|{_CLOCK})(?![\w.:])"""
)
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}


class Comparison(NamedTuple):
    """One comparison of a guide.

    Attributes:
        column: the column's name.
        operator: one of < <= > >= ==.
        value: a number, a text or a truth value.
    """

    column: str
    operator: str
    value: float | int | str | bool


def parse_guide(text: str, columns: Sequence[str]) -> list[Comparison]:
    """Read comparisons of columns with values, joined by "and"; chains like 1 < x < 2 are two comparisons.

    The text is parsed, never evaluated: names, numbers, dates, texts and comparisons are all that is understood. A
    column whose name is no plain word is written in backquotes. Dates, and words that name no column, need no quotes.

    Args:
        text: the guide.
        columns: the names that may occur.

    Returns:
        The comparisons, in order.

    Raises:
        UserError: the text is no such guide, or names no column.

    Example:
        >>> parse_guide("length > 5 and island == 'Dream'", ["length", "island"])[0]
        Comparison(column='length', operator='>', value=5)
    """
    spelt, quoted = _without_backquotes(_QUOTED_OR_TIME.sub(lambda m: m[1] or repr(m[2]), text))
    plain = {unicodedata.normalize("NFKC", name): name for name in columns}  # as Python has names
    named = {**plain, **{name: name for name in columns}, **quoted}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of 5and, which is read as meant
            tree = ast.parse(spelt.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _no_guide(text) from None
    found: list[Comparison] = []
    for part in tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]:
        if not isinstance(part, ast.Compare):
            raise _no_guide(text)
        sides = [part.left, *part.comparators]
        for left, operator, right in zip(sides, part.ops, sides[1:]):
            found.append(_comparison(text, left, operator, right, named))
    for comparison in found:
        if comparison.column not in columns:
            raise UserError(f"guide: no column '{comparison.column}'; the columns are {', '.join(columns)}")
    return found


def _comparison(text: str, left: ast.expr, operator: ast.cmpop, right: ast.expr, named: dict[str, str]) -> Comparison:
    symbol = _OPERATORS.get(type(operator))
    if symbol is None:
        raise _no_guide(text)
    if _names_column(right, named) or not isinstance(left, ast.Name):
        left, right, symbol = right, left, _MIRRORED[symbol]
    if not isinstance(left, ast.Name):
        raise _no_guide(text)
    if _names_column(left, named) and _names_column(right, named):
        raise UserError("guide: two columns are not compared with each other; a text like a column's name is quoted")
    value = right.id if isinstance(right, ast.Name) else _value(text, right)
    if symbol != "==" and isinstance(value, bool):
        raise UserError(f"guide: '{left.id} {symbol} {value!r}' has no meaning; a truth value is compared with ==")
    return Comparison(named.get(left.id, left.id), symbol, value)


def _names_column(node: ast.expr, named: dict[str, str]) -> bool:
    return isinstance(node, ast.Name) and node.id in named


def _value(text: str, node: ast.expr) -> float | int | str | bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(text, node.operand)
        if isinstance(value, (bool, str)):
            raise _no_guide(text)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    raise _no_guide(text)


def _without_backquotes(text: str) -> tuple[str, dict[str, str]]:
    pieces = text.split("`")
    quoted = {f"_column_{k}_": name for k, name in enumerate(pieces[1::2])}
    if len(pieces) % 2 == 0:
        raise _no_guide(text)
    spelt = "".join(piece if k % 2 == 0 else f" _column_{k // 2}_ " for k, piece in enumerate(pieces))
    return spelt, quoted


def _no_guide(text: str) -> UserError:
    return UserError(
        f"guide {text!r} is not understood; write it like: length > 5 and island == 'Dream' and day < 2021-06-01, "
        "a name that is no plain word in backquotes: `body mass` > 5"
    )
