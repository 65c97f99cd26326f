"""Names of columns and values on the command line, whatever they hold: quoted as in a CSV file."""

import shlex

from ._errors import UserError


def quoted(text: str) -> str:
    """A name or a value as a flag takes it: in double quotes where it would be read otherwise.

    Example:
        >>> quoted("age"), quoted("k=1"), quoted(" k ")
        ('age', '"k=1"', '" k "')
    """
    plain = text and text == text.strip() and not any(mark in text for mark in '=,"\n')
    return text if plain else '"' + text.replace('"', '""') + '"'


def assignment(name: str, value: str) -> str:
    """``COLUMN=VALUE`` as it can be pasted into a shell after a flag."""
    return shlex.quote(f"{quoted(name)}={quoted(value)}")


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    """Read ``COLUMN=VALUE`` of a flag that is repeated; either side may be quoted.

    Args:
        texts: what was given.
        flag: its name, for messages.

    Returns:
        Column to value, in order.

    Raises:
        UserError: a text is no such pair, or a column is named twice.

    Example:
        >>> pairs(["a=1", '"k=1"=" x"'], "--condition")
        {'a': '1', 'k=1': ' x'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, rest = _quoted_start(text)
        if rest is None:
            name, equals, value = text.partition("=")
            name = name.strip()
            if not equals or not name:
                raise UserError(
                    f"{flag} takes COLUMN=VALUE, not {text!r}; a name with marks in it is quoted: '\"a=b\"=1'"
                )
        else:
            if not rest.startswith("="):
                raise UserError(f"{flag} takes COLUMN=VALUE, not {text!r}")
            value = rest[1:]
        if name in found:
            raise UserError(f"{flag} names column '{name}' twice: give it one value")
        inner, after = _quoted_start(value)
        found[name] = inner if after == "" else value
    return found


def names(texts: list[str]) -> tuple[str, ...]:
    """Read names of a flag that is repeated or joined by commas; a name with a comma is quoted.

    Raises:
        UserError: something else than a comma stands behind a quoted name.

    Example:
        >>> names(["a,b", '"k,l"'])
        ('a', 'b', 'k,l')
    """
    found = []
    for text in texts:
        left = text.strip()
        while left:
            name, rest = _quoted_start(left)
            if rest is None:
                name, _, left = left.partition(",")
                found += [name.strip()] if name.strip() else []
            else:
                rest = rest.lstrip()
                if rest and not rest.startswith(","):
                    raise UserError(f"names are joined by commas, and {text!r} has {rest!r} behind a quoted one")
                found.append(name)
                left = rest[1:]
            left = left.lstrip()
    return tuple(found)


def _quoted_start(text: str) -> tuple[str, str | None]:
    """What stands in quotes at the beginning, and what follows; None where nothing does."""
    if not text.startswith('"'):
        return "", None
    at = 1
    while (end := text.find('"', at)) >= 0:
        if text[end + 1 : end + 2] != '"':
            return text[1:end].replace('""', '"'), text[end + 1 :]
        at = end + 2
    return "", None
