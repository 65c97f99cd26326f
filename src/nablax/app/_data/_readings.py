"""A column's cells as what relations are about: numbers in its own unit, or states, and how they were rounded."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from .._kinds._kind import AbstractKind
from .._kinds._number_text import NumberText
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import dtype_from_json, family, numbers

_DECIMALS = 12  # more are what floats print, and no rounding


def cells_as_numbers(kind: AbstractKind, frame: pl.DataFrame) -> np.ndarray:
    """A column's cells in its own unit, NaN where missing or not understood."""
    return numbers(kind.parse(frame[kind.name])[0])


def cells_as_states(kind: AbstractKind, frame: pl.DataFrame) -> np.ndarray:
    """States of a category's cells, -1 where missing or unseen."""
    state, _ = kind.encode(kind.parse(frame[kind.name])[0])
    return np.where(state < kind.levels, state, -1)


def half_unit(kind: AbstractQuantity) -> float:
    """How far rounding may have moved a cell of a column, in its own unit."""
    if kind.scale.step_ticks:
        return 0.5 * kind.scale.step_ticks / kind.scale.denominator
    written = kind.spelling
    if isinstance(written, NumberText) and written.rounds and 0 < written.decimals <= _DECIMALS:
        return 0.5 * 10.0**-written.decimals
    single = kind.dtype == "Float32"
    return 2.0**-24 * max(abs(kind.scale.low), abs(kind.scale.high)) if single else 0.0


def half_given(kind: AbstractQuantity) -> float:
    """The same of a cell that something is worked out from: whole numbers and times are what they are."""
    fractional = family(dtype_from_json(kind.dtype)) == "float" and kind.scale.denominator > 1
    return half_unit(kind) if fractional or not kind.scale.step_ticks else 0.0


def halves_for(target: str, kinds: Sequence[AbstractKind]) -> dict[str, float]:
    """`half_unit` of the target, and `half_given` of the other quantities, by name."""
    return {
        kind.name: half_unit(kind) if kind.name == target else half_given(kind)
        for kind in kinds
        if isinstance(kind, AbstractQuantity)
    }


__all__ = ["cells_as_numbers", "cells_as_states", "half_given", "half_unit", "halves_for"]
