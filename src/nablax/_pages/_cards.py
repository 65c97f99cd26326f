"""What a page is made of: cards with a figure, words, a picture and a table."""

import math
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: as it is printed.
        bad: whether it stands out.
    """

    text: str
    bad: bool = False


class Table(NamedTuple):
    """A table, its first column left and the others right.

    Attributes:
        head: names of the columns.
        rows: cells of each row.
    """

    head: tuple[str, ...]
    rows: list[list[Cell]]


class Card(NamedTuple):
    """One part of a page; whatever is empty is not shown.

    Attributes:
        title: heading.
        figure: the number to see first.
        small: what that number is.
        said: a sentence or two.
        picture: an SVG, as ``markup``.
        table: a table under it.
        wide: whether it takes the page's whole width, below the others.
    """

    title: str
    figure: str = ""
    small: str = ""
    said: str = ""
    picture: Any = None
    table: Table | None = None
    wide: bool = False


def figure(number: Any, unit: str = "") -> str:
    """A number of a card, to three digits."""
    value = float(number)
    return f"{value:.3g}{unit}" if math.isfinite(value) else "–" if math.isnan(value) else "∞"
