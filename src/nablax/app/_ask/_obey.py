"""Rows that obey the relations that are kept: those that break one are drawn anew."""

from collections.abc import Callable

import numpy as np
import polars as pl

from .._data._codec import Codec
from .._errors import UserError
from ._draw import Samples

_ROUNDS = 100  # times that rows are drawn at most
_HOPELESS = 20  # of which so many without a single row that obeys are enough
AT_LEAST = 256  # rows drawn anew at once


def obeying(codec: Codec, count: int, drawn: Callable[[int], Samples]) -> Samples:
    """Draw rows until enough of them obey every relation that is kept.

    Rows that break one are left out, so that the others are exact draws from the model's distribution given that none
    does.

    Args:
        codec: of the table.
        count: rows wanted.
        drawn: rows drawn anew for each number: the count for 0, and at least 256 for the others.

    Returns:
        Exactly ``count`` rows, and how many were drawn for them.

    Raises:
        UserError: after a hundred rounds the rows are still too few, or after twenty there is none.
    """
    kept: list[Samples] = []
    found = tried = 0
    for number in range(_ROUNDS):
        rows = drawn(number)
        keep = np.flatnonzero(codec.obeys(rows.frame))
        kept.append(Samples(rows.frame[keep], rows.y[keep], rows.condition[keep]))
        found, tried = found + len(keep), tried + len(rows.frame)
        if found >= count or (not found and number + 1 >= _HOPELESS):
            break
    if found < count:
        raise UserError(
            f"only {found} of {tried} rows obey the relations that are kept ({ruled(codec)}), and {count} are asked "
            "for: what is given may contradict them; give something else, or learn without --keep-relations"
        )
    notices = (f"{tried} rows drawn for {count}: the others broke {ruled(codec)}",) if tried > count else ()
    return Samples(
        pl.concat([part.frame for part in kept])[:count],
        np.concatenate([part.y for part in kept])[:count],
        np.concatenate([part.condition for part in kept])[:count],
        notices,
    )


def ruled(codec: Codec) -> str:
    """The relations that drawn rows can break, in words."""
    return "; ".join(map(str, codec.orders or codec.computed.values()))


__all__ = ["AT_LEAST", "obeying", "ruled"]
