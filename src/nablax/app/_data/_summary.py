"""Statistics of a column gathered batch by batch, and the kind of column they speak for."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from .._errors import UserError
from ._columns import (
    KINDS,
    MAXIMUM_LEVELS,
    Column,
    dtype_to_json,
    family,
    numbers,
    ticks_per_unit,
)

if TYPE_CHECKING:
    from ._sources import Source

MAXIMUM_CATEGORIES = 1_000
_DISTINCT_CAP = 4_096
_MAXIMUM_DECIMALS = 6
_SAMPLE = 100_000


@dataclasses.dataclass
class Summary:
    """What one pass over a column leaves: moments, range, distinct values up to a cap, and its grid.

    The mean and the sum of squares are merged batch by batch, so that they lose no digits on long columns.

    References:
        Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    name: str
    dtype: pl.DataType
    total: int
    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    distinct: set[Any] = dataclasses.field(default_factory=set)
    sample: list[np.ndarray] = dataclasses.field(default_factory=list)
    on_grid: bool = True
    denominator: int = 1
    low_tick: int | None = None
    divisor: int = 0

    def add(self, series: pl.Series) -> None:
        """Take in the next batch of cells."""
        if series.dtype.is_float():
            series = series.fill_nan(None)
        self.missing += series.null_count()
        series = series.drop_nulls()
        self.count += len(series)
        if not len(series):
            return
        kind = family(self.dtype)
        if kind == "text":
            self._add_distinct(series if series.dtype == pl.Boolean else series.cast(pl.String))
        elif kind in ("integer", "float", "time"):
            self._add_numbers(series)
        else:
            raise UserError(
                f"column '{self.name}' holds {self.dtype}, which is no number, text or date; remove it from the table"
            )

    def _add_distinct(self, series: pl.Series) -> None:
        if len(self.distinct) <= _DISTINCT_CAP:
            self.distinct.update(series.unique().head(_DISTINCT_CAP + 1).to_list())

    def _add_numbers(self, series: pl.Series) -> None:
        value = numbers(series)
        if not np.isfinite(value).all():
            raise UserError(f"column '{self.name}' holds infinite values; remove those rows or cells")
        before, new = self.count - len(value), len(value)
        mean = float(value.mean())
        delta = mean - self.mean
        self.squares += float(np.square(value - mean).sum()) + delta**2 * before * new / self.count
        self.mean += delta * new / self.count
        self.low = min(self.low, float(value.min()))
        self.high = max(self.high, float(value.max()))
        # An even sample over the file, in file order, for what moments alone cannot tell.
        # Copied: a view would keep the whole batch.
        self.sample.append(value[:: max(1, self.total // _SAMPLE)].copy())
        unique = series.unique()
        self._add_distinct(unique)
        if self.on_grid:
            self._add_to_grid(unique)

    def _add_to_grid(self, unique: pl.Series) -> None:
        exact = family(unique.dtype) != "float"
        if exact:
            self.denominator = ticks_per_unit(unique.dtype)
            # Whole numbers that float64 cannot tell apart are numbers off any grid.
            if family(unique.dtype) == "integer" and max(abs(self.low), abs(self.high)) >= 2**53:
                self.on_grid = False
                return
            ticks = unique.to_physical().cast(pl.Int64).to_numpy()
        else:
            found = self._decimal_ticks(unique)
            if found is None:
                self.on_grid = False
                return
            ticks = found
        low = int(ticks.min())
        self.low_tick = low if self.low_tick is None else self.low_tick
        self.divisor = int(np.gcd.reduce(np.abs(ticks - self.low_tick), initial=self.divisor))
        self.low_tick = min(low, self.low_tick)

    def _decimal_ticks(self, unique: pl.Series) -> np.ndarray | None:
        value = unique.to_numpy() if unique.dtype.is_float() else unique.cast(pl.Float64).to_numpy()
        wide = value.astype(np.float64)
        while self.denominator <= 10**_MAXIMUM_DECIMALS:
            ticks = np.rint(wide * self.denominator)
            # The nearest decimal, in the cell's own width, must be the cell up to a few roundings of float64.
            off = np.abs((ticks / self.denominator).astype(value.dtype) - value)
            if np.abs(ticks).max() < 2**52 and np.all(off <= 1e-15 * np.abs(wide)):
                return ticks.astype(np.int64)
            self.denominator *= 10
            self.divisor *= 10
            self.low_tick = None if self.low_tick is None else self.low_tick * 10
        return None

    def column(self, *, kind: str | None = None, condition: bool = False) -> Column | str:
        """Choose the column's kind, or say why it is left out.

        Args:
            kind: the kind asked for; None chooses.
            condition: whether the column conditions the model rather than being modelled, where integers of few
                distinct values are labels.

        Returns:
            The column, or one line that says why it is left out.

        Raises:
            UserError: the column cannot be learnt, or not as the kind asked for.
        """
        if kind not in (None, *KINDS):
            raise UserError(f"column '{self.name}': unknown kind '{kind}'; the known ones are {', '.join(KINDS)}")
        if kind == "omit":
            return f"column '{self.name}' is left out, as asked"
        fix = f"remove it, or leave it out with --kind {self.name}=omit"
        if not self.count:
            raise UserError(f"column '{self.name}' has no value in any row; {fix}")
        if len(self.distinct) == 1:
            raise UserError(f"column '{self.name}' is constant ({next(iter(self.distinct))}); {fix}")
        if family(self.dtype) == "text":
            return self._text(kind)
        kind = kind or self._kind_of_numbers(condition)
        if kind == "category":
            return self._category()
        if kind == "grid":
            self._require_grid()
        return self._numbers(kind)

    def _text(self, kind: str | None) -> Column | str:
        if kind not in (None, "category"):
            raise UserError(f"column '{self.name}' holds text, which can only be a category, not {kind}")
        many = len(self.distinct)
        if kind is None and many > 50 and many > self.count / 2:
            return f"column '{self.name}' is left out: nearly every row has its own value, like an identifier"
        if kind is None and many > MAXIMUM_CATEGORIES:
            return f"column '{self.name}' is left out: more than {MAXIMUM_CATEGORIES} categories"
        return self._category()

    def _category(self) -> Column:
        if len(self.distinct) > MAXIMUM_CATEGORIES:
            raise UserError(f"column '{self.name}' has more than {MAXIMUM_CATEGORIES} values: no category")
        if family(self.dtype) == "time":
            raise UserError(f"column '{self.name}' holds dates or times, which cannot be a category")
        if isinstance(self.dtype, pl.Enum):
            values = [value for value in self.dtype.categories.to_list() if value in self.distinct]
        else:
            values = sorted(self.distinct)
        if isinstance(self.dtype, pl.Decimal):
            values = [float(value) for value in values]
        name = dtype_to_json(self.dtype)
        return Column(self.name, "category", name, missing=self.missing > 0, categories=tuple(values))

    @property
    def _levels(self) -> float:
        if not (self.on_grid and self.divisor):
            return np.inf
        return (self.high - self.low) * self.denominator / self.divisor + 1.0

    def _kind_of_numbers(self, condition: bool) -> str:
        integer = family(self.dtype) == "integer"
        few = len(self.distinct) == 2 or (condition and integer and len(self.distinct) <= 32)
        if few and family(self.dtype) != "time" and self.on_grid:
            return "category"
        if self._levels > MAXIMUM_LEVELS:
            return "continuous"
        if integer or isinstance(self.dtype, pl.Date):
            return "grid"
        capped = len(self.distinct) > _DISTINCT_CAP
        ties = self._levels < self.count if capped else len(self.distinct) < 0.9 * self.count
        return "grid" if ties else "continuous"

    def _require_grid(self) -> None:
        if self._levels > MAXIMUM_LEVELS:
            raise UserError(
                f"column '{self.name}' sits on no grid of at most {MAXIMUM_LEVELS} steps: use continuous instead"
            )

    def _numbers(self, kind: str) -> Column:
        gridded = self.on_grid and self.divisor > 0
        if self.low == self.high:
            raise UserError(f"column '{self.name}': its values are too close together to tell apart as floats")
        column = Column(
            self.name,
            kind,
            dtype_to_json(self.dtype),
            missing=self.missing > 0,
            low=self.low,
            high=self.high,
            mean=self.mean,
            scale=float(np.sqrt(self.squares / self.count)),
            low_tick=(self.low_tick or 0) if gridded else 0,
            step_ticks=self.divisor if gridded else 0,
            denominator=self.denominator if gridded else 1,
        )
        measure = np.concatenate(self.sample)
        if kind == "grid":
            step = column.step
            measure = np.rint(column.to_index(measure))
            column = dataclasses.replace(
                column, mean=(self.mean - self.low) / step, scale=float(np.hypot(column.scale / step, 12**-0.5))
            )
        return _with_logarithm(column, measure)


def choose_columns(
    source: "Source",
    names: Sequence[str],
    *,
    condition: Sequence[str],
    kinds: Mapping[str, str],
    look: Callable[[pl.DataFrame], None] | None = None,
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Look at every row of a source once and choose how each column is encoded.

    Args:
        source: the rows.
        names: the columns to look at.
        condition: those that condition the model.
        kinds: column to the kind asked for.
        look: called with every batch, for what else is to be gathered in the same pass.

    Returns:
        The columns kept, and one line for each that is left out.

    Raises:
        UserError: a name is no column, a column cannot be learnt, or a condition is left out.
    """
    for name in (*condition, *kinds):
        if name not in source.columns:
            raise UserError(f"no column '{name}' in {source.name}; the columns are {', '.join(source.columns)}")
    summaries = [Summary(name, source.schema[name], source.rows) for name in names]
    for batch in source.batches():
        for summary in summaries:
            if kinds.get(summary.name) != "omit":
                summary.add(batch[summary.name])
        if look is not None:
            look(batch)
    chosen = [s.column(kind=kinds.get(s.name), condition=s.name in condition) for s in summaries]
    columns = tuple(column for column in chosen if isinstance(column, Column))
    for name in condition:
        if name not in [column.name for column in columns]:
            raise UserError(f"column '{name}' is left out, so it cannot be a condition; force it with --kind")
    return columns, tuple(notice for notice in chosen if isinstance(notice, str))


def _with_logarithm(column: Column, measure: np.ndarray) -> Column:
    """Take logarithms first where that makes a skewed, positive column markedly less skewed."""
    if column.kind == "grid":
        # Half a cell of noise must stay above zero; a column of counts that starts at zero gets log(1 + count).
        shift = column.low_tick / column.step_ticks
        shift = shift if shift > 0.5 else shift + 1.0
        positive = column.low >= 0.0
    else:
        shift, positive = 0.0, column.low > 0.0
    skewness = _skewness(measure)
    if not positive or skewness <= 2.0:
        return column
    logarithm = np.log(measure + shift)
    if abs(_skewness(logarithm)) > 0.5 * skewness:
        return column
    mean, scale = float(logarithm.mean()), float(logarithm.std())
    return dataclasses.replace(column, log=True, shift=shift, mean=mean, scale=scale)


def _skewness(value: np.ndarray) -> float:
    centred = value - value.mean()
    deviation = float(centred.std())
    return float(np.mean(centred**3)) / deviation**3 if deviation > 0.0 else 0.0
