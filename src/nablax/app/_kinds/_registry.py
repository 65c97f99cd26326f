"""All kinds, in the order in which they are tried; a new one is listed here and nowhere else."""

from typing import Any

from .._errors import UserError
from ._carried import Constant, Identifier
from ._category import Category
from ._kind import AbstractKind
from ._number import Grid, Number
from ._spellings import spelling_from_json
from ._summary import Summary
from ._time import Duration, Time

KINDS: tuple[type[AbstractKind], ...] = (Constant, Identifier, Duration, Time, Category, Grid, Number)
OMIT = "omit"
_BY_WORD = {kind.word: kind for kind in KINDS}


def recognise(summary: Summary, *, asked: str | None = None, label: bool = False) -> AbstractKind:
    """Choose the column's kind.

    Args:
        summary: its statistics.
        asked: the word of the kind asked for; None chooses.
        label: whether the column conditions the model rather than being modelled, where integers of few distinct
            values are labels.

    Returns:
        The column.

    Raises:
        UserError: the kind asked for is not known, or the column is not of it.
    """
    if asked is not None:
        if asked not in _BY_WORD:
            known = ", ".join((*_BY_WORD, OMIT))
            raise UserError(f"column '{summary.name}': unknown kind '{asked}'; the known ones are {known}")
        return _BY_WORD[asked].of(summary)
    for kind in KINDS:
        if kind.suits(summary, label=label):
            return kind.of(summary)
    raise UserError(f"column '{summary.name}' is of no known kind; leave it out with --kind")


def kind_from_json(fields: dict[str, Any]) -> AbstractKind:
    """Undo ``AbstractKind.to_json``.

    Raises:
        UserError: the kind is not known.
    """
    rest = {name: _frozen(value) for name, value in fields.items() if name not in ("kind", "spelling")}
    if fields["kind"] not in _BY_WORD:
        raise UserError(f"unknown kind of column {fields['kind']!r} in the configuration")
    return _BY_WORD[fields["kind"]].from_fields({**rest, "spelling": spelling_from_json(fields["spelling"])})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
