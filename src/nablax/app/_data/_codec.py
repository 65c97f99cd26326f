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
from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity
from .._kinds._registry import kind_from_json
from .._quoting import assignment
from . import _dequantise
from ._cells import block_size, cells_of, condition_vector, decode_conditions, encode_conditions
from ._columns import choose_columns
from ._kept import broken, computed, instead, obeys
from ._relations import AbstractComputed, AbstractRelation, Order, relation_from_json

if TYPE_CHECKING:
    from ._sources import Source


@dataclasses.dataclass(frozen=True)
class Codec:
    """How a table becomes arrays and comes back; learnt from the training data, plain JSON on disk.

    ``encode`` gives a state and a value for each modelled column (see ``AbstractKind``) and the condition vector.
    ``dequantise`` turns those into y in R^dim and a correction c with log p(row) >= E[log p(y) + c], in nats: a
    density with respect to each number's own unit (so the probability of an integer with step 1), and a probability
    for each category, for each atom of a number, and for missing. ``decode`` goes back.

    Attributes:
        columns: every column kept, in the table's order; those with ``modelled`` False are carried through.
        condition: names of those that condition the model; the others are modelled.
        notices: one line for each thing to know of the columns.
        dropped: name of each column that is not modelled, and why.
        relations: between columns, found; the target of one that is kept is worked out and not modelled.

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

    columns: tuple[AbstractKind, ...]
    condition: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    relations: tuple[AbstractRelation, ...] = ()

    @functools.cached_property
    def modelled(self) -> tuple[AbstractKind, ...]:
        """The columns that the model draws."""
        left = {*self.condition, *self.computed}
        return tuple(kind for kind in self.columns if kind.modelled and kind.name not in left)

    @functools.cached_property
    def computed(self) -> dict[str, AbstractComputed]:
        """The columns that are worked out from others, by name, each after those that it needs."""
        return {r.target: r for r in self.relations if r.kept and isinstance(r, AbstractComputed)}

    @functools.cached_property
    def orders(self) -> tuple[Order, ...]:
        """The orders that are kept."""
        return tuple(r for r in self.relations if r.kept and isinstance(r, Order))

    @functools.cached_property
    def by_name(self) -> dict[str, AbstractKind]:
        """The columns, by name."""
        return {kind.name: kind for kind in self.columns}

    @functools.cached_property
    def carried(self) -> tuple[AbstractKind, ...]:
        """The columns that are carried through."""
        return tuple(kind for kind in self.columns if not kind.modelled)

    @functools.cached_property
    def conditioned(self) -> tuple[AbstractKind, ...]:
        """The columns that condition the model, in the order of ``condition``."""
        return tuple(self.column(name) for name in self.condition)

    @functools.cached_property
    def layout(self) -> "_dequantise.Layout":
        """Where each modelled column lies in y."""
        return _dequantise.layout(self.modelled)

    @functools.cached_property
    def lines(self) -> "_dequantise.Lines":
        """The scales of the modelled columns that carry values, as arrays."""
        return _dequantise.lines(self.modelled)

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
        return sum(block_size(kind) for kind in self.conditioned)

    def column(self, name: str) -> AbstractKind:
        """A column by its name.

        Raises:
            UserError: there is none.
        """
        if name in self.by_name:
            return self.by_name[name]
        known = ", ".join(kind.name for kind in self.columns)
        raise UserError(f"no column '{name}'; the columns are {known}")

    @property
    def noisy(self) -> bool:
        """Whether ``measure`` draws noise: where a number is counted on a grid."""
        return any(kind.counted for kind in self.modelled)

    @functools.cached_property
    def valued(self) -> tuple[int, ...]:
        """Positions of the modelled columns that carry values."""
        return tuple(j for j, kind in enumerate(self.modelled) if kind.valued)

    def measure(
        self, values: Float[Array, "n valued"], key: Key
    ) -> tuple[Float[Array, "n valued"], Float[Array, "n valued"]]:
        """Values of the valued columns as coordinates, and the nats that each adds; see ``dequantise_values``."""
        return _dequantise.dequantise_values(self.lines, values, key)

    def place_of(self, name: str) -> int:
        """The position of a modelled column in ``modelled``, and so in ``layout``.

        Raises:
            UserError: there is no such column, or it is a condition, or carried through.
        """
        kind = self.column(name)
        if name in self.condition:
            raise UserError(f"column '{name}' is a condition: set it with --condition {assignment(name, 'VALUE')}")
        if name in self.computed:
            raise UserError(instead(self.computed[name]))
        if kind not in self.modelled:
            raise UserError(f"column '{name}' is not modelled: {kind.reason}")
        return self.modelled.index(kind)

    def standardised(self, name: str, value: object) -> float:
        """The coordinate of a number given in the column's own unit, or spelled as its cells are.

        Args:
            name: a column of numbers or times.
            value: a number in the column's own unit (days since 1970-01-01 for dates and times), or text.

        Returns:
            The coordinate in y.

        Raises:
            UserError: no such column, or one without numbers.
        """
        return self.column(name).coordinate_of(value)

    def vertex(self, name: str, state: int) -> np.ndarray:
        """The coordinates [states - 1] of one state of a column."""
        return _dequantise.vertices(self.column(name).states)[state]

    def encode(self, frame: pl.DataFrame, *, holes: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Encode rows of a table that has at least the training table's columns, in any order.

        Args:
            frame: the rows, as they were read; values outside the observed range are fine, and off-grid numbers go to
                their cell.
            holes: missing cells are to be filled in: their state is NaN, and so is that of a cell that the model can
                make nothing of.

        Returns:
            base float32 [n, cells, 2], the state and value of each modelled cell, and condition float32
            [n, condition_dim]. A state of -1 is a cell to which the training data give no probability: a category
            that was not seen, a number far out of reach, text that is no number, or a missing cell in a column that
            had none. The value is NaN where the state carries none.

        Raises:
            UserError: a column is absent, or of another type.
        """
        base = np.empty((len(frame), self.cells, 2), np.float32)
        for j, kind in enumerate(self.modelled):
            cells, lost = cells_of(kind, frame)
            state, value = kind.encode(cells)
            base[:, j, 0] = np.where(lost, -1, state)
            base[:, j, 1] = value
            if holes:
                base[(base[:, j, 0] < 0) | cells.is_null().to_numpy(), j, 0] = np.nan
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
        self, base: Float[Array, "n cells 2"], key: Key, *, to_fill: bool = False
    ) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
        """Draw y and the correction c with log p(row) >= E[log p(y) + c]; pure JAX, fit for jit.

        Args:
            base: encoded rows.
            key: for the noise.
            to_fill: cells of unknown state are to be filled in: where "missing" is the one other state of a number, it
                is not that.

        Returns:
            y [n, dim], and c [n] in nats per row.

        Cost:
            O(n·dim), and O(n·k²) for a category of k values.
        """
        return _dequantise.dequantise(self.modelled, self.layout, base, key, to_fill=to_fill)

    def observed(self, base: np.ndarray) -> np.ndarray:
        """Which coordinates of y are known when cells of unknown state are to be filled in.

        Args:
            base: encoded rows [n, cells, 2].

        Returns:
            Booleans [n, dim]: False on the coordinates of unknown cells only, and not on the state of a number that
            could only be present.
        """
        known = np.ones((len(base), self.dim), bool)
        for j, (place, value) in enumerate(zip(self.layout.slices, self.layout.value)):
            there = base[:, j, 0] >= 0
            if not self.layout.only_missing[j]:
                known[:, place] = there[:, None]
            if value >= 0:
                known[:, value] = there
        return known

    def impossible(self, base: np.ndarray) -> np.ndarray:
        """Which encoded rows [n] hold a cell to which the training data give no probability."""
        return np.any(base[..., 0] < 0, axis=1)

    def states(self, y: Array | np.ndarray, *, filled: bool = False) -> np.ndarray:
        """The state of each cell of points.

        Args:
            y: [n, dim].
            filled: leave "missing" out: the cells are there.

        Returns:
            Whole numbers [n, cells].
        """
        points = np.asarray(y, np.float64)
        found = np.zeros((len(points), self.cells), np.int64)
        for j, (kind, place) in enumerate(zip(self.modelled, self.layout.slices)):
            if kind.states > 1:
                # All vertices are equally far from the origin, so the nearest one has the largest inner product.
                products = points[:, place] @ _dequantise.vertices(kind.states).T
                found[:, j] = np.argmax(products[:, : kind.levels] if filled else products, axis=1)
        return found

    def decode(
        self, y: Array | np.ndarray, condition: np.ndarray | None = None, *, filled: bool = False
    ) -> pl.DataFrame:
        """Points back to rows, in the table's own columns, order, types and observed ranges.

        Args:
            y: [n, dim].
            condition: the condition vectors [n, condition_dim]; without them the condition columns are left out.
            filled: no cell is missing.

        Returns:
            The table of typed cells, null where "missing" was drawn; `spell` writes them as the table's own came.
        """
        points, states = np.asarray(y, np.float64), self.states(y, filled=filled)
        coordinates = np.where(self.layout.value >= 0, points[:, self.layout.value], 0.0)
        return self.decode_cells(states, coordinates, condition)

    def decode_base(self, base: np.ndarray) -> pl.DataFrame:
        """Undo ``encode``: encoded rows [n, cells, 2] back to typed cells, null where one was missing or unseen."""
        measured = [kind.standard(base[:, j, 1].astype(np.float64)) for j, kind in enumerate(self.modelled)]
        states = base[..., 0].astype(np.int64)
        # Past its levels a column holds what is missing.
        states = np.where(states < 0, [kind.levels for kind in self.modelled], states)
        return self.decode_cells(states, np.nan_to_num(np.stack(measured, axis=1)))

    def decode_cells(
        self, states: np.ndarray, coordinates: np.ndarray, condition: np.ndarray | None = None
    ) -> pl.DataFrame:
        """States and standardised coordinates back to rows; see `decode`.

        Args:
            states: whole numbers [n, cells].
            coordinates: [n, cells]; what lies beside a state without value counts for nothing.
            condition: the condition vectors; without them the condition columns are left out.

        Returns:
            The table of typed cells.
        """
        made = {kind.name: kind.decode(states[:, j], coordinates[:, j]) for j, kind in enumerate(self.modelled)}
        nothing = np.zeros(len(states), np.int64)
        made |= {kind.name: kind.decode(nothing, nothing.astype(np.float64)) for kind in self.carried}
        if condition is not None:
            made |= {series.name: series for series in decode_conditions(self.conditioned, condition)}
        frame = self.work_out(pl.DataFrame(list(made.values())))
        return frame.select(kind.name for kind in self.columns if kind.name in frame.columns)

    def work_out(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Typed rows with the columns that are kept as formulas of others worked out from them, on their own grids."""
        return computed(self.by_name, self.relations, frame)

    def broken(self, frame: pl.DataFrame) -> dict[AbstractRelation, np.ndarray]:
        """Relations that are kept, and which rows [n] break them."""
        return broken(self.by_name, [relation for relation in self.relations if relation.kept], frame)

    def obeys(self, frame: pl.DataFrame) -> np.ndarray:
        """Drawn rows [n] in which the orders hold that are kept, and what is worked out can be."""
        return obeys(self.by_name, self.relations, frame)

    def spell(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Typed cells as the table's own came: text where it was text."""
        return frame.with_columns([k.spell(frame[k.name]) for k in self.columns if k.name in frame.columns])

    def out_of_range(self, states: np.ndarray, coordinates: np.ndarray) -> dict[str, float]:
        """The fraction of cells with a value that ``decode_cells`` clips to the observed range, by column."""
        fractions = {}
        for j, kind in enumerate(self.modelled):
            if isinstance(kind, AbstractQuantity):
                value = kind.scale.from_coordinate(coordinates[:, j])
                half = 0.5 * kind.scale.step if kind.scale.grid else 0.0
                outside = (value < kind.scale.low - half) | (value > kind.scale.high + half)
                there = states[:, j] == 0
                fractions[kind.name] = float(outside[there].mean()) if there.any() else 0.0
        return fractions

    def to_json(self) -> str:
        """The codec as JSON text."""
        columns = [kind.to_json() for kind in self.columns]
        relations = [relation.to_json() for relation in self.relations]
        rest = {"condition": self.condition, "notices": self.notices, "dropped": dict(self.dropped)}
        return json.dumps({"kind": "table", "columns": columns, "relations": relations, **rest})

    @staticmethod
    def from_json(text: str) -> "Codec":
        """Undo ``to_json``."""
        fields = json.loads(text)
        relations = tuple(map(relation_from_json, fields.get("relations", ())))
        rest = tuple(fields["condition"]), tuple(fields["notices"]), tuple(fields["dropped"].items())
        return Codec(tuple(map(kind_from_json, fields["columns"])), *rest, relations)


def fit_codec(source: "Source", *, condition: Sequence[str] = (), kinds: Mapping[str, str] | None = None) -> Codec:
    """Look at every row of a table and choose how each column is encoded.

    Args:
        source: a table.
        condition: names of the columns that condition the model.
        kinds: column to the word of a kind, or "omit", where the choice is not to be made from the data.

    Returns:
        The codec.

    Raises:
        UserError: a column cannot be learnt, or nothing remains.
    """
    found = choose_columns(source, source.columns, condition=condition, kinds=kinds or {})
    codec = Codec(found.kinds, tuple(condition), found.notices, found.dropped)
    if not codec.modelled:
        raise UserError(source.name, "no column remains to be modelled", *found.notices)
    return codec
