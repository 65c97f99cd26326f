"""Any spelling is found here by its word."""

from typing import Any

from ._number_text import NumberText
from ._span_text import SpanText
from ._spelling import AbstractSpelling, AsTyped, Words
from ._time_text import TimeText

_EVERY = (AsTyped, Words, NumberText, TimeText, SpanText)
SPELLINGS: dict[str, type[AbstractSpelling]] = {kind.word: kind for kind in _EVERY}


def spelling_from_json(fields: dict[str, Any]) -> AbstractSpelling:
    """Undo ``AbstractSpelling.to_json``."""
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items() if name != "as"}
    return SPELLINGS[fields["as"]](**rest)
