"""A table's rows to points of R^D and back, with the likelihood kept in the table's own units."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from jaxtyping import Array, Float

from ..._core import Key
from .._errors import UserError
from . import _dequantise
from ._cells import (
    block_size,
    code_of,
    condition_vector,
    decode_column,
    decode_conditions,
    encode_column,
    encode_conditions,
    listed,
)
from ._columns import Column
from ._summary import choose_columns

if TYPE_CHECKING:
    from ._sources import Source


@dataclasses.dataclass(frozen=True)
class Codec:
    """How a table becomes arrays and comes back; learnt from the training data, plain JSON on disk.

    ``encode`` gives one float32 per modelled column (a standardised number, a grid index, a category's number, NaN
    for a missing cell) and the condition vector. ``dequantise`` turns those into y in R^dim and a correction c with
    log p(row) >= E[log p(y) + c], in nats: a density with respect to each number's own unit (so the probability of
    an integer with step 1) and a probability for each category. ``decode`` goes back.

    Attributes:
        columns: every column kept, in the table's order.
        condition: names of those that condition the model; the others are modelled.
        notices: one line for each column left out.

    Example:
        >>> import jax, polars as pl
        >>> from nablax.app._data._sources import table
        >>> frame = pl.DataFrame({"count": [1, 2, 4] * 10, "colour": ["red", "blue", "red"] * 10})
        >>> codec = fit_codec(table(frame))
        >>> base, _ = codec.encode(frame)
        >>> y, correction = codec.dequantise(base, jax.random.key(0))
        >>> codec.decode(y).equals(frame)
        True

    References:
        Theis, van den Oord & Bethge, "A note on the evaluation of generative models" (2016), for the bound.
        Hoogeboom, Cohen & Tomczak, "Learning Discrete Distributions by Dequantization" (2020), for its variants.
    """

    columns: tuple[Column, ...]
    condition: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @functools.cached_property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that the model draws."""
        return tuple(column for column in self.columns if column.name not in self.condition)

    @functools.cached_property
    def conditioned(self) -> tuple[Column, ...]:
        """The columns that condition the model, in the order of ``condition``."""
        return tuple(self._column(name) for name in self.condition)

    @functools.cached_property
    def layout(self) -> "_dequantise.Layout":
        """Where each modelled column lies in y."""
        return _dequantise.layout(self.modelled)

    @property
    def dim(self) -> int:
        """Coordinates of y."""
        return self.layout.dim

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one y: (dim,)."""
        return (self.dim,)

    @property
    def cells(self) -> int:
        """Modelled cells in a row: what bits per dimension are divided by."""
        return len(self.modelled)

    @property
    def condition_dim(self) -> int:
        """Length of the condition vector; 0 without conditions."""
        return sum(block_size(column) for column in self.conditioned)

    def _column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        known = ", ".join(column.name for column in self.columns)
        raise UserError(f"no column '{name}'; the columns are {known}")

    @property
    def noisy(self) -> bool:
        """Whether ``dequantise`` draws noise: everything but continuous columns without missing cells."""
        return any(column.kind != "continuous" or column.missing for column in self.modelled)

    def dims_of(self, name: str) -> slice:
        """The value coordinates of a modelled column in y (its presence coordinate, if any, follows them)."""
        column = self._column(name)
        if column not in self.modelled:
            raise UserError(f"column '{name}' is a condition: set it with --condition {name}=VALUE")
        return self.layout.slices[self.modelled.index(column)]

    def standardised(self, name: str, value: float) -> float:
        """The coordinate of a number given in the column's own unit.

        Args:
            name: a continuous or grid column.
            value: in the column's own unit (days since 1970-01-01 for dates and times).

        Returns:
            The coordinate in y.

        Raises:
            UserError: no such column, or a category.
        """
        column = self._column(name)
        if column.kind == "category":
            raise UserError(f"column '{name}' is a category: compare it with == and one of {listed(column)}")
        return float(column.to_coordinate(float(value)))

    def vertex(self, name: str, value: object) -> np.ndarray:
        """The coordinates [dims] of one value of a category column."""
        column = self._column(name)
        if column.kind != "category":
            raise UserError(f"column '{name}' is a number: compare it with a number")
        return _dequantise.vertices(len(column.categories))[code_of(column, value)]

    def encode(self, frame: pl.DataFrame, *, holes: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Encode rows of a table that has at least the training table's columns, in any order.

        Args:
            frame: the rows; values outside the observed range are fine, and off-grid numbers go to their cell.
            holes: accept missing cells in columns that had none in training (to be filled in later).

        Returns:
            base float32 [n, cells] and condition float32 [n, condition_dim].

        Raises:
            UserError: a column is absent, of another type, infinite, or holds an unseen category.
        """
        base = np.empty((len(frame), self.cells), np.float32)
        for j, column in enumerate(self.modelled):
            base[:, j] = encode_column(column, frame)
            if not holes and not column.missing and np.isnan(base[:, j]).any():
                raise UserError(f"column '{column.name}' has missing cells, and had none in training")
        return base, encode_conditions(self.conditioned, frame)

    def encode_condition(self, values: Mapping[str, object], n: int) -> np.ndarray:
        """The condition vector for n equal rows; conditions that are not named are null (all zeros).

        Args:
            values: condition column to value, as text from the command line or typed.
            n: rows.

        Returns:
            float32 [n, condition_dim].

        Raises:
            UserError: a name is no condition, or a value is unseen or no number.
        """
        return condition_vector(self.conditioned, values, n)

    def dequantise(
        self, base: Float[Array, "n cells"], key: Key, *, to_fill: bool = False
    ) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
        """Draw y and the correction c with log p(row) >= E[log p(y) + c]; pure JAX, fit for jit.

        Args:
            base: encoded rows.
            key: for the noise.
            to_fill: missing cells are to be filled in: their presence says "present".

        Returns:
            y [n, dim], and c [n] in nats per row.

        Cost:
            O(n·dim), and O(n·k²) for a category of k values.
        """
        return _dequantise.dequantise(self.modelled, self.layout, base, key, to_fill=to_fill)

    def observed(self, base: np.ndarray) -> np.ndarray:
        """Which coordinates of y are known when missing cells are to be filled in.

        Args:
            base: encoded rows [n, cells].

        Returns:
            Booleans [n, dim]: False on the value coordinates of missing cells only.
        """
        known = np.ones((len(base), self.dim), bool)
        for j, place in enumerate(self.layout.slices):
            known[:, place] = ~np.isnan(base[:, j])[:, None]
        return known

    def decode(self, y: Array | np.ndarray, condition: np.ndarray | None = None) -> pl.DataFrame:
        """Points back to rows, in the table's own columns, order, types and observed ranges.

        Args:
            y: [n, dim].
            condition: the condition vectors [n, condition_dim]; without them the condition columns are left out.

        Returns:
            The table; null where "missing" was drawn.
        """
        points = np.asarray(y, np.float64)
        made: dict[str, pl.Series] = {}
        for column, place, present in zip(self.modelled, self.layout.slices, self.layout.present):
            there = points[:, present] > 0.0 if present >= 0 else np.ones(len(points), bool)
            made[column.name] = decode_column(column, points[:, place], there)
        if condition is not None:
            made |= {series.name: series for series in decode_conditions(self.conditioned, condition)}
        return pl.DataFrame([made[column.name] for column in self.columns if column.name in made])

    def out_of_range(self, y: Array | np.ndarray) -> dict[str, float]:
        """The fraction of present cells that ``decode`` clips to the observed range, by column of numbers."""
        points, fractions = np.asarray(y, np.float64), {}
        for column, place, present in zip(self.modelled, self.layout.slices, self.layout.present):
            if column.kind != "category":
                value = column.from_coordinate(points[:, place.start])
                half = 0.5 * column.step if column.kind == "grid" else 0.0
                outside = (value < column.low - half) | (value > column.high + half)
                there = points[:, present] > 0.0 if present >= 0 else np.ones(len(points), bool)
                fractions[column.name] = float(outside[there].mean()) if there.any() else 0.0
        return fractions

    def to_json(self) -> str:
        """The codec as JSON text."""
        fields = {"columns": [column.to_json() for column in self.columns]}
        return json.dumps({"kind": "table", **fields, "condition": self.condition, "notices": self.notices})

    @staticmethod
    def from_json(text: str) -> "Codec":
        """Undo ``to_json``."""
        fields = json.loads(text)
        columns = tuple(Column.from_json(column) for column in fields["columns"])
        return Codec(columns, tuple(fields["condition"]), tuple(fields["notices"]))


def fit_codec(source: "Source", *, condition: Sequence[str] = (), kinds: Mapping[str, str] | None = None) -> Codec:
    """Look at every row of a table once and choose how each column is encoded.

    Args:
        source: a table.
        condition: names of the columns that condition the model.
        kinds: column to "continuous", "grid", "category" or "omit", where the choice is not to be made from the data.

    Returns:
        The codec.

    Raises:
        UserError: a column cannot be learnt (constant, infinite, all missing), or nothing remains.
    """
    columns, notices = choose_columns(source, source.columns, condition=condition, kinds=kinds or {})
    if len(columns) == len(condition):
        raise UserError(source.name, "no column remains to be modelled", *notices)
    return Codec(columns, tuple(condition), notices)
