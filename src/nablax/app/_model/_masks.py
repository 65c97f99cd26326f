"""Which cells a row's model is given: drawn anew in every step of training."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._core import Key

_NOTHING_GIVEN = 1 / 3  # share of rows trained without a given cell: what an unconditional likelihood is made of


def given_cells(key: Key, rows: int, cells: int) -> Bool[Array, "rows cells"]:
    """Random subsets of cells: empty for a third of the rows, else each cell with a probability drawn for the row.

    The probability is the root of a uniform number, so that two thirds are given in the mean: what most of a row
    determines is the hardest to learn.

    Args:
        key: random key.
        rows: how many rows.
        cells: how many cells in each.

    Returns:
        True where a cell is given.
    """
    # One draw of them all: each by itself would be compiled by itself.
    none, share, drawn = jnp.split(jax.random.uniform(key, (rows, cells + 2)), [1, 2], axis=1)
    return drawn < jnp.where(none < _NOTHING_GIVEN, 0.0, jnp.sqrt(share))


def drawn_before(key: Key, given: Bool[Array, "rows columns"]) -> tuple[Bool[Array, "rows columns"], ...]:
    """How far the chain over the states that are not given has come, in the columns' order, drawn for each row.

    Args:
        key: random key.
        given: the given cells.

    Returns:
        The states known by now, given or drawn, and the one whose turn it is (none where all are given).
    """
    turn = jnp.cumsum(~given, axis=1) - 1
    left = jnp.sum(~given, axis=1, keepdims=True)
    at = jnp.floor(jax.random.uniform(key, (given.shape[0], 1)) * left).astype(turn.dtype)
    return given | (turn < at), ~given & (turn == at)


__all__ = ["drawn_before", "given_cells"]
