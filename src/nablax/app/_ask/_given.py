"""What a table's model is given: cells of rows, and the states that may be drawn for the others."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array

from ..._core import Key
from .._data._codec import Codec
from .._key import random_key
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import dtype_from_json
from .._model._table import TableModel
from .._runs._rows import filled
from .._runs._run import Model

_ROWS_AT_ONCE = 2048
_ROUNDED = 2.0**-23  # of the largest number: what a column of single precision takes for the same
_OFF_GRID = 1e-4  # steps: more than rounding moves a number of the grid
_NUMBERS_AT_ONCE = 2**24  # log-probabilities of all states of all columns, in the rows drawn at once


@dataclasses.dataclass(frozen=True)
class Given:
    """Rows of which some cells are given.

    Attributes:
        base: encoded rows [rows, columns, 2]; what is not given is not looked at.
        cells: which are given [rows, columns].
    """

    base: np.ndarray
    cells: np.ndarray

    def at(self, rows: np.ndarray) -> "Given":
        """The rows at these places."""
        return Given(self.base[rows], self.cells[rows])

    def repeated(self, times: int) -> "Given":
        """Every row so many times, one after the other."""
        return Given(np.repeat(self.base, times, axis=0), np.repeat(self.cells, times, axis=0))


def equal_rows(codec: Codec, values: Mapping[str, object], count: int) -> Given:
    """Rows in which the same cells are given.

    Args:
        codec: of the table.
        values: column to its value, as text from the command line or typed.
        count: how many rows.

    Raises:
        UserError: no such column, one that is not modelled, or a value that is unseen or cannot be read.
    """
    base = np.zeros((codec.cells, 2), np.float32)
    known = np.zeros(codec.cells, bool)
    for name, value in values.items():
        place = codec.place_of(name)
        base[place], known[place] = codec.modelled[place].state_of(value), True
    return Given(np.tile(base, (count, 1, 1)), np.tile(known, (count, 1)))


def told_of(codec: Codec, values: Mapping[str, object]) -> tuple[str, ...]:
    """What is to be known of the numbers and times that are given, one line each.

    Args:
        codec: of the table.
        values: column to its value, as for `equal_rows`.

    Returns:
        A line for each that lies out of the range that was learnt, or between two steps of its column's grid.
    """
    lines = []
    for name, value in values.items():
        kind = codec.column(name)
        if not isinstance(kind, AbstractQuantity):
            continue
        number, scale = kind.value_of(value), kind.scale
        low, nearest, high = kind.spell(
            scale.series(name, dtype_from_json(kind.dtype), np.array([scale.low, number, scale.high]), np.ones(3, bool))
        )
        slack = _ROUNDED * max(abs(scale.low), abs(scale.high))
        if not scale.low - slack <= number <= scale.high + slack:
            lines.append(f"{name}={value} is out of the range that was learnt, {low} to {high}: nothing is known there")
        if scale.grid and abs(scale.to_index(number) - np.rint(scale.to_index(number))) > _OFF_GRID:
            lines.append(f"{name}={value} is none of its column's steps, and is taken for {nearest}")
    return tuple(lines)


def with_values(codec: Codec, frame: pl.DataFrame, values: Mapping[str, object]) -> pl.DataFrame:
    """Drawn rows with the given cells as they were given, to the last digit that their type has."""
    exact = []
    for name, value in values.items():
        cell, dtype = codec.column(name).one(value), frame[name].dtype
        cell = cell.round() if cell.dtype.is_float() and dtype.is_integer() else cell
        exact.append(cell.cast(dtype).gather(np.zeros(len(frame), np.uint32)).alias(name))
    return codec.work_out(frame.with_columns(exact))


def all_states(codec: Codec) -> np.ndarray:
    """Booleans [columns, most states]: those that there are."""
    sizes = np.array([kind.states for kind in codec.modelled])
    return np.arange(sizes.max()) < sizes[:, None]


def present(codec: Codec) -> np.ndarray:
    """Booleans [columns, most states]: those of a cell that is there."""
    levels = np.array([kind.levels for kind in codec.modelled])
    return all_states(codec) & (np.arange(all_states(codec).shape[1]) < levels[:, None])


def drawn_states(model: Model, given: Given, *, seed: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Draw the states of what is not given.

    Args:
        model: the opened run of a table.
        given: the rows.
        seed: of the draws, and of where a given number lies within its grid cell.
        allowed: states that may be drawn; all by default.

    Returns:
        The rows as condition vectors of the transport [rows, condition].
    """
    codec = model.table("drawing states")
    assert model.joint is not None
    allowed = all_states(codec) if allowed is None else allowed
    key = random_key(seed)
    most = max(1, _NUMBERS_AT_ONCE // allowed.size)
    size = min(1 << (len(given.base) - 1).bit_length(), _ROWS_AT_ONCE, 1 << (most.bit_length() - 1))
    parts = []
    for number, start in enumerate(range(0, len(given.base), size)):
        base, cells = (jnp.asarray(filled(part[start : start + size], size)) for part in (given.base, given.cells))
        vectors = _drawn(model.joint, codec, base, cells, jnp.asarray(allowed), jax.random.fold_in(key, number))
        parts.append(np.asarray(vectors)[: len(given.base) - start])
    return np.concatenate(parts)


@eqx.filter_jit
def _drawn(joint: TableModel, codec: Codec, base: Array, given: Array, allowed: Array, key: Key) -> Array:
    place_key, draw_key = jax.random.split(key)
    return joint.drawn_states(joint.cells(base, codec.measure, place_key), given, allowed, draw_key)


__all__ = ["Given", "all_states", "drawn_states", "equal_rows", "present", "told_of", "with_values"]
