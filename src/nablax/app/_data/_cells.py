"""Conditions: cells of the columns that condition the model as one vector a row, and back."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from .._errors import UserError
from .._kinds._kind import AbstractKind
from .._quoting import quoted


def cells_of(kind: AbstractKind, frame: pl.DataFrame) -> tuple[pl.Series, np.ndarray]:
    """A column's cells, parsed, and which of them are there and not understood.

    Raises:
        UserError: the column is absent, or of another type, or none of its cells is understood.
    """
    if kind.name not in frame.columns:
        raise UserError(f"column '{kind.name}' is absent; the table has {', '.join(map(repr, frame.columns))}")
    cells, lost = kind.parse(frame[kind.name])
    if lost.any() and cells.null_count() == len(cells):
        shown = frame[kind.name][int(np.argmax(lost))]
        raise UserError(f"column '{kind.name}' should hold {kind.spelling.wanted(kind.dtype)}, and holds {shown!r}")
    return cells, lost


def block_size(kind: AbstractKind) -> int:
    """Length of a column's part of the condition vector: one for each level, and one for the value."""
    return kind.levels + kind.valued


def encode_conditions(kinds: Sequence[AbstractKind], frame: pl.DataFrame) -> np.ndarray:
    """The condition vectors of rows: one-hot for the state and the value after it; zeros for missing.

    Args:
        kinds: the condition columns.
        frame: the rows.

    Returns:
        float32 [n, condition_dim].

    Raises:
        UserError: a column is absent or of another type, or holds a cell that the training data give no probability.
    """
    blocks = [np.zeros((len(frame), 0))]
    for kind in kinds:
        cells, lost = cells_of(kind, frame)
        state, value = kind.encode(cells)
        odd = (state < 0) & ~cells.is_null().to_numpy() | lost
        if odd.any():
            shown = frame[kind.name][int(np.argmax(odd))]
            raise UserError(f"column '{kind.name}', a condition, has no value {shown!r}{kind.known}")
        blocks.append(_block(kind, state, value))
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _block(kind: AbstractKind, state: np.ndarray, value: np.ndarray) -> np.ndarray:
    block = np.zeros((len(state), block_size(kind)))
    there = (state >= 0) & (state < kind.levels)
    block[there, state[there]] = 1.0
    if kind.valued:
        block[:, -1] = np.where(there & (state == 0), kind.standard(value), 0.0)
    return block


def condition_vector(kinds: Sequence[AbstractKind], values: Mapping[str, object], n: int) -> np.ndarray:
    """The condition vector for n equal rows; conditions that are not named are null (all zeros).

    Args:
        kinds: the condition columns.
        values: column to value, as text from the command line or typed.
        n: rows.

    Returns:
        float32 [n, condition_dim].

    Raises:
        UserError: a name is no condition, or a value is unseen or no number.
    """
    names = [kind.name for kind in kinds]
    for name in values:
        if name not in names:
            known = ", ".join(map(quoted, names)) or "none: learn again with --condition COLUMN"
            raise UserError(f"'{name}' is no condition of this model; its conditions are {known}")
    blocks = [np.zeros(0)]
    for kind in kinds:
        value = values.get(kind.name)
        if value is None:
            blocks.append(np.zeros(block_size(kind)))
            continue
        state, measured = kind.state_of(value)
        blocks.append(_block(kind, np.array([state]), np.array([measured]))[0])
    return np.tile(np.concatenate(blocks).astype(np.float32), (n, 1))


def decode_conditions(kinds: Sequence[AbstractKind], condition: np.ndarray) -> list[pl.Series]:
    """Condition vectors back to cells; null conditions become missing cells.

    Args:
        kinds: the condition columns.
        condition: [n, condition_dim].

    Returns:
        One series a column.
    """
    made, at = [], 0
    for kind in kinds:
        block = np.asarray(condition, np.float64)[:, at : at + block_size(kind)]
        at += block_size(kind)
        one_hot = block[:, : kind.levels]
        # A state past the last level is "missing" to any kind.
        state = np.where(np.any(one_hot != 0.0, axis=1), np.argmax(one_hot, axis=1), kind.levels)
        made.append(kind.decode(state, block[:, -1]))
    return made
