"""Statistics of a column gathered batch by batch: moments, range, how often values occur, and the grid they sit on."""

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from .._errors import UserError
from .._quoting import assignment
from ._spelling import AbstractSpelling, AsTyped
from ._types import family, numbers, ticks_per_unit

DISTINCT_CAP = 4_096
_MAXIMUM_DECIMALS = 6
_SAMPLE = 100_000
_COUNTED = 20_000  # values whose counts are kept; of more, the rarest are dropped:
_SHARES = 20_000  # those that hold less than one cell in so many


@dataclasses.dataclass
class Summary:
    """What one pass over a column leaves.

    The mean and the sum of squares are merged batch by batch, so that they lose no digits on long columns; squares are
    of the numbers divided by ``size``, a power of two no smaller than any of them, so that none overflows.

    References:
        Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
        Manku & Motwani, "Approximate frequency counts over data streams" (2002), for dropping rare values.
    """

    name: str
    dtype: pl.DataType
    total: int
    spelling: AbstractSpelling = AsTyped()
    count: int = 0
    missing: int = 0
    mean: float = 0.0
    size: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    distinct: set[Any] = dataclasses.field(default_factory=set)
    counts: dict[Any, int] = dataclasses.field(default_factory=dict)
    sample: list[np.ndarray] = dataclasses.field(default_factory=list)
    on_grid: bool = True
    denominator: int = 1
    low_tick: int | None = None
    divisor: int = 0
    repeated: bool = False
    consecutive: bool = True
    last: float | None = None

    @property
    def family(self) -> str:
        """Sort of type: integer, float, time, duration or text."""
        return family(self.dtype)

    def read(self, cells: pl.Series) -> pl.Series:
        """Cells as they came, typed."""
        typed = self.spelling.read(cells, self.dtype) if cells.dtype == pl.String else cells
        return cells if typed is None else typed

    def add(self, series: pl.Series) -> None:
        """Take in the next batch of parsed cells."""
        if series.dtype.is_float():
            series = series.fill_nan(None)
        self.missing += series.null_count()
        series = series.drop_nulls()
        self.count += len(series)
        if not len(series):
            return
        if self.family == "text":
            self._count(series if series.dtype == pl.Boolean else series.cast(pl.String))
        elif self.family in ("integer", "float", "time", "duration"):
            self._add_numbers(series)
        else:
            raise UserError(
                f"column '{self.name}' holds {self.dtype}, which is no number, text or date; leave it out: --kind "
                + assignment(self.name, "omit")
            )

    def _count(self, series: pl.Series) -> pl.Series:
        """Add to the counts; answer the distinct cells."""
        tally = series.alias("cell").value_counts(name="times")
        cells = tally["cell"]
        self.repeated = self.repeated or len(cells) < len(series)
        if len(self.distinct) <= DISTINCT_CAP:
            self.distinct.update(cells.head(DISTINCT_CAP + 1).to_list())
        if len(cells) > DISTINCT_CAP:
            # No value of a share that matters is lost: each batch loses at most that many of its cells.
            tally = tally.filter(pl.col("times") > max(1, len(series) // _SHARES))
        keys = numbers(tally["cell"]).tolist() if self.family != "text" else tally["cell"].to_list()
        for key, number in zip(keys, tally["times"].to_list()):
            self.counts[key] = self.counts.get(key, 0) + number
        if len(self.counts) > _COUNTED:
            self.counts = {key: number for key, number in self.counts.items() if number > 1 + self.count // _SHARES}
        return cells

    def _add_numbers(self, series: pl.Series) -> None:
        value = numbers(series)
        if not np.isfinite(value).all():
            raise UserError(f"column '{self.name}' holds infinite values; remove those rows or cells")
        self._grow(float(np.abs(value).max()))
        before, new = self.count - len(value), len(value)
        scaled = value / self.size
        mean = float(scaled.mean())
        delta = mean - self.mean / self.size
        self.squares += float(np.square(scaled - mean).sum()) + delta**2 * before * new / self.count
        self.mean += delta * (new / self.count) * self.size
        self.low = min(self.low, float(value.min()))
        self.high = max(self.high, float(value.max()))
        with np.errstate(over="ignore"):  # between the ends of what a float holds
            steps = np.diff(value if self.last is None else np.concatenate([[self.last], value]))
        self.consecutive = self.consecutive and bool(np.all(steps == 1.0))
        self.last = float(value[-1])
        # An even sample over the file, in file order, for what moments alone cannot tell.
        # Copied: a view would keep the whole batch.
        self.sample.append(value[:: max(1, self.total // _SAMPLE)].copy())
        unique = self._count(series)
        if self.on_grid:
            self._add_to_grid(unique)

    def _grow(self, peak: float) -> None:
        """Measure squares in a unit that no number exceeds."""
        if peak > self.size or not self.size:
            size = 2.0 ** min(int(np.ceil(np.log2(peak))), 1023) if peak > 0.0 else 1.0
            self.squares *= (self.size / size) ** 2
            self.size = size

    @property
    def deviation(self) -> float:
        """Standard deviation of the numbers."""
        return self.size * float(np.sqrt(self.squares / self.count))

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
            with np.errstate(over="ignore", invalid="ignore"):
                ticks = np.rint(wide * self.denominator)
                # The nearest decimal, in the cell's own width, must be the cell up to a few roundings of float64.
                off = np.abs((ticks / self.denominator).astype(value.dtype) - value)
            if np.abs(ticks).max() < 2**52 and np.all(off <= 1e-15 * np.abs(wide)):
                return ticks.astype(np.int64)
            self.denominator *= 10
            self.divisor *= 10
            self.low_tick = None if self.low_tick is None else self.low_tick * 10
        return None

    @property
    def levels(self) -> float:
        """Steps of the grid from the least to the greatest value; infinite off a grid."""
        if not (self.on_grid and self.divisor):
            return np.inf
        return (self.high - self.low) * self.denominator / self.divisor + 1.0

    @property
    def counts_up(self) -> bool:
        """Whether the numbers are those from 0 or 1 on, each once, or go up by one from row to row."""
        if self.family != "integer" or self.count < 3 or not np.isfinite(self.levels):
            return False
        span = self.low in (0.0, 1.0) and self.high - self.low + 1.0 == self.count
        # So many whole numbers within so wide a range have this sum of squares only where they all differ.
        spread = self.count * (self.count**2 - 1.0) / 12.0
        each_once = span and not self.repeated and abs(self.squares * self.size**2 - spread) <= 1e-9 * spread
        return self.consecutive or (each_once and self.count > 50)

    @property
    def days_in_digits(self) -> bool:
        """Whether whole numbers that came typed are dates written YYYYMMDD, each of them."""
        if self.family != "integer" or not (self.low >= 19000101 and self.high < 21010101):
            return False
        days = pl.Series([str(int(value)) for value in self.distinct])
        return days.str.strptime(pl.Date, "%Y%m%d", strict=False).null_count() == 0

    @property
    def tied(self) -> bool:
        """Whether values repeat as they do on a grid."""
        capped = len(self.distinct) > DISTINCT_CAP
        return self.levels < self.count if capped else len(self.distinct) < 0.9 * self.count
