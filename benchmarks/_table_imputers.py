"""Peers that fill holes, by their defaults, in the environment of `tables_peers.txt`.

``python -m benchmarks._table_imputers METHOD FOLDER SEED`` learns from ``train.csv``, fills ``holes.csv`` into ``filled.csv``,
and leaves draws of the numbers in ``draws.npz`` where the method draws.

scikit-learn's imputers know numbers alone: a text becomes one column for each level but the most frequent, missing with the
cell, and the level with the greatest value is filled in; numbers are standardised, without which neighbours mean nothing.
With a column for every level chained regressions tell each from the others' own guesses, and stand still.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from ._table_figures import measured, numbers
from ._table_peers import framed, written
from ._tables import read

DRAWS = 20  # of the chained ridge regressions
SETS, ITERATIONS = 5, 4  # of miceforest
_LEVELS = 50  # of a text; what is rarer shares a column, and is never filled in
Filled = tuple[pd.DataFrame, dict[str, np.ndarray]]


class OneHot:
    """Tables of mixed columns as numbers and back."""

    def __init__(self, train: pl.DataFrame):
        self.train = train
        self.levels = {
            n: train[n].cast(pl.String).drop_nulls().value_counts(sort=True)[n].to_list()[:_LEVELS]
            for n in train.columns
            if not measured(train[n])
        }
        self.middle = {n: np.nanmean(numbers(train[n])) for n in train.columns if n not in self.levels}
        self.spread = {n: max(np.nanstd(numbers(train[n])), 1e-12) for n in self.middle}

    def encode(self, frame: pl.DataFrame) -> np.ndarray:
        parts = []
        for name in self.train.columns:
            if name in self.middle:
                parts.append(((numbers(frame[name]) - self.middle[name]) / self.spread[name])[:, None])
                continue
            cells = np.array(frame[name].cast(pl.String).to_list(), dtype=object)[:, None]
            hot = (cells == np.array(self.levels[name][1:], dtype=object)).astype(float)
            parts.append(np.where(cells == None, np.nan, hot))  # noqa: E711  cell by cell
        return np.concatenate(parts, axis=1)

    def decode(self, x: np.ndarray) -> pd.DataFrame:
        columns, at = {}, 0
        for name in self.train.columns:
            if name in self.middle:
                columns[name] = x[:, at] * self.spread[name] + self.middle[name]
                at += 1
                continue
            levels = self.levels[name]
            others = x[:, at : at + len(levels) - 1]
            best = np.concatenate([1 - others.sum(axis=1, keepdims=True), others], axis=1).argmax(axis=1)
            columns[name] = pd.Series([levels[k] for k in best], dtype=object)
            at += len(levels) - 1
        return pd.DataFrame(columns)


def _numbers_alone(imputer, train: pl.DataFrame, holes: pl.DataFrame, draws: int = 0) -> Filled:
    code = OneHot(train)
    imputer.set_params(keep_empty_features=True)
    imputer.fit(code.encode(train))
    x = code.encode(holes)
    if not draws:
        return code.decode(imputer.transform(x)), {}
    made = [imputer.transform(x) for _ in range(draws)]
    tables = [code.decode(one) for one in made]
    return code.decode(np.mean(made, axis=0)), {
        n: np.stack([t[n].to_numpy(float) for t in tables], axis=1) for n in code.middle
    }


def knn(train: pl.DataFrame, holes: pl.DataFrame, seed: int) -> Filled:
    """The mean of five nearest rows."""
    from sklearn.impute import KNNImputer

    return _numbers_alone(KNNImputer(), train, holes)


def bayes(train: pl.DataFrame, holes: pl.DataFrame, seed: int) -> Filled:
    """Chained Bayesian ridge regressions, drawn from; the mean of the draws is filled in."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return _numbers_alone(IterativeImputer(sample_posterior=True, random_state=seed), train, holes, DRAWS)


def forests(train: pl.DataFrame, holes: pl.DataFrame, seed: int) -> Filled:
    """Chained random forests, of 30 trees in place of 100: no draws."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    forest = RandomForestRegressor(30, min_samples_leaf=5, random_state=seed)
    return _numbers_alone(IterativeImputer(forest, max_iter=3, random_state=seed), train, holes)


def miceforest(train: pl.DataFrame, holes: pl.DataFrame, seed: int) -> Filled:
    """Chained boosted trees with predictive mean matching, several data sets, which are its draws.

    The rows with holes are filled beside those learnt from, whose company they keep in the models: version 6.0.5 hands the
    starting values back for new rows (``impute_new_data`` counts no iterations).
    """
    import miceforest as package

    frame = pd.concat([framed(train), framed(holes)], ignore_index=True)
    names = {n: f"c{k}" for k, n in enumerate(train.columns)}  # it refuses some characters
    frame = frame.rename(columns=names)
    for name in frame.columns:
        if frame[name].dtype == object:
            frame[name] = pd.Categorical(frame[name])
    kernel = package.ImputationKernel(frame, num_datasets=SETS, random_state=seed)
    kernel.mice(iterations=ITERATIONS, num_threads=1)
    tables = [kernel.complete_data(dataset=k).iloc[len(train) :].reset_index(drop=True) for k in range(SETS)]
    middle, draws = {}, {}
    for name, short in names.items():
        if measured(train[name]):
            draws[name] = np.stack([t[short].to_numpy(float) for t in tables], axis=1)
            middle[name] = draws[name].mean(axis=1)
        else:
            middle[name] = pd.concat([t[short].astype(object) for t in tables], axis=1).mode(axis=1)[0]
    return pd.DataFrame(middle), draws


METHODS = {"neighbours": knn, "chained ridge": bayes, "chained forests": forests, "miceforest": miceforest}


def main() -> None:
    method, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    train = read(folder / "train.csv")
    holes = read(folder / "holes.csv", train)
    begin = time.process_time()
    made, draws = METHODS[method](train, holes, seed)
    said = {"fill_cpu": time.process_time() - begin}
    # A number keeps all its decimals: the mean of draws is on no grid.
    written(made, train, rounded=False).write_csv(folder / "filled.csv")
    if draws:
        np.savez(folder / "draws.npz", **draws)
    package = "miceforest" if method == "miceforest" else "scikit-learn"
    print("RESULT " + json.dumps({**said, "version": version(package)}))


if __name__ == "__main__":
    main()
