"""Peers that draw tables, by their defaults, in the environment of `tables_peers.txt`.

``python -m benchmarks._table_peers METHOD FOLDER SEED`` reads ``train.csv`` and writes ``samples.csv``, as many rows.

What a practitioner does around a peer is done for each: dates become days, numbers come back with the column's own decimals,
and where a peer takes no missing cells they become a level of their own, or for numbers a column that tells and the median.
"""

import json
import math
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from ._table_density import leaves_nats, numeric, steps
from ._table_figures import measured, numbers
from ._tables import read

_GONE = "(missing)"
# ForestDiffusion's time goes with rows × noises of each × inputs²: 8.9 million of these were 850 CPU s. By its defaults it
# takes 100 noises of a row; where that is too much work for the 30 minutes of a cell, it gets what half of them allow.
_FOREST_MOST, _FOREST_REDUCED = 18e6, 9e6
PACKAGES = {
    "arf": "arfpy",
    "copula": "sdv",
    "tvae": "sdv",
    "ctgan": "sdv",
    "forest diffusion": "ForestDiffusion",
}


def framed(train: pl.DataFrame) -> pd.DataFrame:
    """A table for peers: numbers as floats, all else as text, missing cells as NaN and None."""
    columns = {n: numbers(c) if measured(c) else c.cast(pl.String).to_list() for n, c in zip(train.columns, train)}
    return pd.DataFrame({n: c if isinstance(c, np.ndarray) else pd.Series(c, dtype=object) for n, c in columns.items()})


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """The same without missing cells: a level of their own, or the median beside a column that tells."""
    made = frame.copy()
    for name in frame.columns:
        gone = frame[name].isna()
        if not gone.any():
            continue
        if frame[name].dtype == object:
            made[name] = frame[name].where(~gone, _GONE)
        else:
            made[name] = frame[name].fillna(frame[name].median())
            made[f"{name} {_GONE}"] = pd.Series(np.where(gone, "yes", "no"), dtype=object)
    return made


def holed(made: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Undo ``whole``."""
    made = made.copy()
    for name in names:
        if f"{name} {_GONE}" in made:
            made[name] = made[name].astype(float).where(made[f"{name} {_GONE}"] != "yes")
        elif not pd.api.types.is_numeric_dtype(made[name]):
            made[name] = made[name].where(made[name] != _GONE, None)
    return made[names]


def arf(train: pl.DataFrame, seed: int, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Adversarial random forest: fit, density and as many rows; its density of the held-out rows."""
    from arfpy import arf as package

    np.random.seed(seed)  # noqa: NPY002  its own generator
    forest = package.arf(x=whole(framed(train)), verbose=False, random_state=seed)
    forest.forde()
    made = holed(forest.forge(n=len(train)), train.columns)
    said = {}
    if numeric(train):
        said["draw_cpu"] = time.process_time()
        nats = forest_nats(forest, read(folder / "held_out.csv", train), steps(train))
        said["nats"], said["nats_error"] = float(nats.mean()), float(nats.std(ddof=1) / math.sqrt(len(nats)))
    return made, said


def forest_nats(forest, held_out: pl.DataFrame, width: dict[str, float]) -> np.ndarray:
    """Nats of each row under a fitted forest of numbers: its leaves by their coverage, 30 trees alike."""
    keys = ["tree", "nodeid"]
    leaves = forest.bnds[[*keys, "cvg"]].drop_duplicates()
    each = [
        leaves.merge(forest.params[forest.params["variable"] == name], on=keys, how="left") for name in held_out.columns
    ]
    parameters = [np.stack([e[c].to_numpy(float) for e in each], axis=1) for c in ("mean", "sd", "min", "max")]
    x = np.stack([numbers(c) for c in held_out], axis=1)
    wide = np.array([width[name] for name in held_out.columns])
    return leaves_nats(x, wide, leaves["cvg"].to_numpy() / forest.num_trees, *parameters)


def _sdv(kind: str, train: pl.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    from sdv import single_table
    from sdv.metadata import Metadata

    frame = framed(train)
    # Its own guess may take a latitude for a person's secret and draw it at random.
    kinds = {n: {"sdtype": "numerical" if measured(train[n]) else "categorical"} for n in train.columns}
    metadata = Metadata.load_from_dict({"tables": {"table": {"columns": kinds}}})
    np.random.seed(seed)  # noqa: NPY002
    if kind != "GaussianCopula":
        import torch

        torch.manual_seed(seed)
        torch.set_num_threads(1)
    model = getattr(single_table, f"{kind}Synthesizer")(metadata)
    model.fit({"table": frame})
    made = model.sample(len(train))
    return made["table"] if isinstance(made, dict) else made, {}


def copula(train: pl.DataFrame, seed: int, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """SDV's Gaussian copula."""
    return _sdv("GaussianCopula", train, seed)


def tvae(train: pl.DataFrame, seed: int, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """SDV's variational autoencoder."""
    return _sdv("TVAE", train, seed)


def ctgan(train: pl.DataFrame, seed: int, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """SDV's adversarial network."""
    return _sdv("CTGAN", train, seed)


def forest_diffusion(train: pl.DataFrame, seed: int, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Flow matching by gradient-boosted trees, with its defaults; of large tables with fewer noises a row."""
    from ForestDiffusion import ForestDiffusionModel

    frame = whole(framed(train))
    texts = [n for n in frame.columns if frame[n].dtype == object]
    levels = {n: sorted(frame[n].unique()) for n in texts}
    coded = frame.assign(**{n: frame[n].map({v: k for k, v in enumerate(levels[n])}) for n in texts})
    place = {n: k for k, n in enumerate(coded.columns)}
    fractions = {n for n, c in zip(train.columns, train) if c.dtype.is_float()}
    two = [n for n in texts if len(levels[n]) == 2]
    inputs = len(coded.columns) + sum(len(levels[n]) - 1 for n in texts if n not in two)
    each = len(coded) * inputs**2
    noises = 100 if 100 * each <= _FOREST_MOST else max(1, int(_FOREST_REDUCED // each))
    model = ForestDiffusionModel(
        coded.to_numpy(float),
        cat_indexes=[place[n] for n in texts if n not in two],
        bin_indexes=[place[n] for n in two],
        int_indexes=[place[n] for n in coded.columns if n not in texts and n not in fractions],
        duplicate_K=noises,
        n_jobs=1,
        seed=seed,
    )
    made = pd.DataFrame(model.generate(batch_size=len(train)), columns=coded.columns)
    for name in texts:
        codes = np.clip(np.rint(made[name].to_numpy(float)), 0, len(levels[name]) - 1).astype(int)
        made[name] = pd.Series([levels[name][k] for k in codes], dtype=object)
    return holed(made, train.columns), {}


METHODS = {"arf": arf, "copula": copula, "tvae": tvae, "ctgan": ctgan, "forest diffusion": forest_diffusion}


def written(made: pd.DataFrame, like: pl.DataFrame, *, rounded: bool = True) -> pl.DataFrame:
    """Rows with the columns' own types, and decimals unless not ``rounded``."""
    columns = []
    for name in like.columns:
        column = like[name]
        if not measured(column):
            cells = [None if pd.isna(v) else str(v) for v in made[name]]
            columns.append(pl.Series(name, cells, dtype=pl.String))
            continue
        values = pl.Series(name, np.asarray(made[name], float), nan_to_null=True)
        if column.dtype.is_numeric() and not rounded:
            columns.append(values)
        elif column.dtype.is_float():
            columns.append(values.round(decimals(numbers(column))))
        else:
            columns.append(values.round().cast(pl.Int64).cast(column.dtype))
    return pl.DataFrame(columns)


def decimals(values: np.ndarray) -> int:
    """Of a column's numbers; 15 where they have no end."""
    values = values[np.isfinite(values)]
    return next((d for d in range(12) if np.allclose(values, np.round(values, d), rtol=1e-12, atol=0)), 15)


def main() -> None:
    method, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    train = read(folder / "train.csv")
    begin = time.process_time()
    made, said = METHODS[method](train, seed, folder)
    said["draw_cpu"] = said.get("draw_cpu", time.process_time()) - begin
    written(made, train).write_csv(folder / "samples.csv")
    print("RESULT " + json.dumps({**said, "version": version(PACKAGES[method])}))


if __name__ == "__main__":
    main()
