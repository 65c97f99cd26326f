"""How often samples keep the exact relations that were found between the columns."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from ..._core import Finding
from .._data._codec import Codec
from .._data._kept import broken, there
from .._data._relations import AbstractComputed, percent

_LOST = 0.05  # share of the samples by which they may keep a relation less often than rows do
_NAMED = 3  # relations in the first paragraph


class Kept(NamedTuple):
    """A relation between columns, in rows and in samples.

    Attributes:
        text: what it says.
        rows: rows in which its columns are there.
        share: of those, in which it holds.
        samples: samples in which its columns are there.
        sample_share: of those, in which it holds.
        enforced: whether samples are made to obey it.
    """

    text: str
    rows: int
    share: float
    samples: int
    sample_share: float
    enforced: bool

    @property
    def sentence(self) -> str:
        """The relation with both shares."""
        text = f"{self.text} in {percent(self.share)} of rows; "
        if not self.samples:
            return f"{text}no sample has all of these columns"
        return f"{text}samples keep it in {percent(self.sample_share)}" + (", as asked" if self.enforced else "")

    @property
    def lost(self) -> bool:
        """Whether samples surely keep it less often than rows do, and by so much that it matters."""
        if not self.samples:
            return False
        error = math.sqrt(max(self.sample_share * (1.0 - self.sample_share), 1.0 / self.samples) / self.samples)
        return self.share - self.sample_share > max(_LOST, 2.0 * error)


def relations_kept(codec: Codec, samples: pl.DataFrame) -> list[Kept]:
    """Count the samples that keep each relation.

    Args:
        codec: of the table.
        samples: typed rows.
    """
    found = []
    for relation, breaks in broken(codec.by_name, codec.relations, samples).items():
        known = there(codec.by_name, relation, samples)
        count = int(known.sum())
        share = 1.0 - float(np.sum(breaks & known)) / count if count else 1.0
        # What is worked out and rounded to the column's own grid is what the relation says of it.
        exact = isinstance(relation, AbstractComputed) and relation.kept
        found.append(Kept(str(relation), relation.rows, relation.share, count, 1.0 if exact else share, relation.kept))
    return found


def judged(relations: list[Kept]) -> Iterator[Finding]:
    """What to make of it."""
    if not relations:
        return
    rule = f"samples keep what rows keep, but for {_LOST:.0%} of them"
    lost = [relation for relation in relations if relation.lost]
    named = "; ".join(relation.sentence for relation in (lost or relations)[:_NAMED])
    more = len(lost or relations) - _NAMED
    named += f"; and {more} more" if more > 0 else ""
    if lost:
        fix = "Learn with --keep-relations where they have to hold." if any(not r.enforced for r in lost) else ""
        sentence = f"Its samples break {len(lost)} of {len(relations)} exact relations between columns: {named}."
        yield Finding("warning", "Relations", sentence, rule, fix)
    else:
        yield Finding("good", "Relations", f"Its samples keep the exact relations between columns: {named}.", rule)


__all__ = ["Kept", "judged", "relations_kept"]
