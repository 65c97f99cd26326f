"""Are the rows of this batch rows, or one row over and over?"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..._core import AbstractRecord, Finding
from ._part import Part, Setting, listed
from ._shared import Shared

# Rows from which on it is no accident.
FEWEST = 8


class Repeats(AbstractRecord):
    """Which arrays of the batch have the same value in every row.

    Attributes:
        same: one truth value an array.
        labels: whether the array holds one whole number a row.
        names: path of each array in the batch.
    """

    same: Bool[Array, " arrays"]
    labels: tuple[bool, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def constant_labels(self) -> list[str]:
        """Arrays of whole numbers, one a row, that are all the same."""
        return [name for name, same, label in zip(self.names, np.asarray(self.same), self.labels) if same and label]

    @property
    def copies(self) -> bool:
        """Whether all rows are the same row."""
        return bool(np.all(self.same))

    def table(self) -> str:
        """Lay the names out as plain text.

        Returns:
            One line.
        """
        constant = [name for name, same in zip(self.names, np.asarray(self.same)) if same]
        return f"The same in every row: {listed(constant) if constant else 'nothing'}"


def measure(shared: Shared) -> Repeats | None:
    """Of a check-up whose batch has rows enough."""
    if shared.total is None or shared.total < FEWEST:
        return None
    paths, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(shared.batch, eqx.is_array))
    numbers = [(path, leaf) for path, leaf in paths if jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == bool]
    if not numbers:
        return None
    names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") or "batch" for path, _ in numbers)
    labels = tuple(leaf.ndim == 1 and jnp.issubdtype(leaf.dtype, jnp.integer) for _, leaf in numbers)
    return Repeats(jnp.stack([jnp.all(leaf == leaf[:1]) for _, leaf in numbers]), labels, names)


def judge(part: Repeats, setting: Setting) -> list[Finding]:
    """Whether there is anything to learn from the batch."""
    if part.copies:
        text = "All rows of this batch are the same row: it holds one example. Look at how batches are drawn."
        return [Finding("warning", "batch", text)]
    if constant := part.constant_labels():
        text = f"Every row has the same label ({listed(constant)}): the batch holds one class. Shuffle the data."
        return [Finding("warning", "batch", text)]
    return []


def card(part: Repeats, setting: Setting) -> None:
    """None: where it matters it is said."""


PART = Part("repeats", measure, judge, card)
