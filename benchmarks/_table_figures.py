"""The figures by which a model of a table is judged, from files alone and so alike for every method: NumPy, Polars, scikit-learn."""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ._tables import read

_ATOM = 0.02  # a value that recurs in this share of a numeric column's rows
_FEW = 20  # a number of so few distinct values is compared as a category
_NEIGHBOURS = 1000  # samples, and fresh rows, whose nearest training row is looked for


def measured(column: pl.Series) -> bool:
    """Whether a column's cells lie on a line: numbers and dates."""
    return column.dtype.is_numeric() or column.dtype.is_temporal()


def numbers(column: pl.Series) -> np.ndarray:
    """A measured column's cells as floats, dates in days since 1970, NaN where missing."""
    return column.to_physical().cast(pl.Float64, strict=False).to_numpy()


def discrete(column: pl.Series) -> bool:
    """Whether a column is compared as a category: text, truth values, or a number of few distinct values."""
    return not measured(column) or column.drop_nulls().n_unique() <= _FEW


def features(frame: pl.DataFrame, like: pl.DataFrame) -> np.ndarray:
    """Columns as floats, [rows, columns], NaN where missing; a text by its rank by count in ``like``, -1 unseen."""
    parts = []
    for name in like.columns:
        column = frame[name]
        if measured(like[name]):
            parts.append(numbers(column))
            continue
        values = like[name].cast(pl.String).drop_nulls().value_counts(sort=True)[name].to_list()
        codes = {value: float(k) for k, value in enumerate(values)}
        parts.append(np.array([np.nan if v is None else codes.get(v, -1.0) for v in column.cast(pl.String).to_list()]))
    return np.stack(parts, axis=1).astype(np.float64)


def auc(held_out: pl.DataFrame, samples: pl.DataFrame, seed: int = 0) -> tuple[float, float]:
    """How well boosted trees tell held-out rows from as many samples, cross-validated: 0.5 is best.

    Args:
        held_out: real rows that the model has not seen.
        samples: rows of the model.
        seed: of the folds.

    Returns:
        Area under the curve over five folds' pooled predictions, and its standard error (Hanley and McNeil's).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    count = min(len(held_out), len(samples))
    x = np.concatenate([features(held_out[:count], held_out), features(samples[:count], held_out)])
    y = np.repeat([0, 1], count)
    texts = [not measured(held_out[name]) for name in held_out.columns]
    # More levels than the trees take as categories are left as ranks.
    wide = [held_out[name].n_unique() > 200 for name in held_out.columns]
    x[:, texts] = np.where(x[:, texts] < 0, np.nan, x[:, texts])
    trees = HistGradientBoostingClassifier(
        categorical_features=[t and not w for t, w in zip(texts, wide)], max_iter=100, random_state=seed
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # threads that wait for each other on a busy machine take minutes
        value = float(roc_auc_score(y, cross_val_predict(trees, x, y, cv=folds, method="predict_proba")[:, 1]))
    a, b = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (value * (1 - value) + (count - 1) * (a + b - 2 * value**2)) / count**2
    return value, float(np.sqrt(variance))


def marginals(held_out: pl.DataFrame, samples: pl.DataFrame) -> dict[str, float]:
    """Distance of each column's distribution: Kolmogorov and Smirnov's for numbers, total variation for the others."""
    distances = {}
    for name in held_out.columns:
        real, made = held_out[name], samples[name]
        if discrete(real):
            shares = [
                (s.to_physical().cast(pl.Float64) if measured(real) else s.cast(pl.String)).value_counts(
                    normalize=True, name="p"
                )
                for s in (real, made)
            ]
            pairs = [dict(zip(s[name].to_list(), s["p"].to_list())) for s in shares]
            names = pairs[0].keys() | pairs[1].keys()
            distances[name] = 0.5 * sum(abs(pairs[0].get(v, 0.0) - pairs[1].get(v, 0.0)) for v in names)
        else:
            a, b = (np.sort(numbers(s.drop_nulls())) for s in (real, made))
            at = np.concatenate([a, b])
            gap = np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / max(len(b), 1)
            distances[name] = float(np.abs(gap).max())
    return distances


def correlation_error(held_out: pl.DataFrame, samples: pl.DataFrame) -> float:
    """Root-mean-square difference of rank correlations over pairs of columns, missing cells at the column's median."""

    def ranks(frame: pl.DataFrame) -> np.ndarray:
        from scipy.stats import rankdata

        x = features(frame, held_out)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a column without a single cell
            x = np.where(np.isnan(x), np.nanmedian(x, axis=0), x)
        return np.apply_along_axis(rankdata, 0, np.nan_to_num(x))

    tables = []
    for frame in (held_out, samples):
        r = ranks(frame)
        r = (r - r.mean(0)) / np.maximum(r.std(0), 1e-9)
        tables.append(r.T @ r / len(r))
    upper = np.triu_indices(len(tables[0]), 1)
    return float(np.sqrt(np.mean((tables[0] - tables[1])[upper] ** 2)))


def atoms(train: pl.DataFrame, samples: pl.DataFrame) -> dict[tuple[str, float], tuple[float, float, float]]:
    """Shares of the values that recur in at least a fiftieth of a numeric column's rows.

    Args:
        train: the rows learnt from.
        samples: rows of the model.

    Returns:
        (column, value) to its share in ``train``, in ``samples``, and their difference in standard errors.
    """
    found = {}
    for name in train.columns:
        if not measured(train[name]):
            continue
        real, made = (numbers(f[name]) for f in (train, samples))
        values, counts = np.unique(real[~np.isnan(real)], return_counts=True)
        for value, count in zip(values, counts):
            p = count / len(real)
            if p >= _ATOM:
                q = float(np.isclose(made, value, rtol=1e-9, atol=0).mean())
                error = np.sqrt(p * (1 - p) * (1 / len(real) + 1 / len(made)))
                found[name, float(value)] = (p, q, float((q - p) / error))
    return found


def tails(train: pl.DataFrame, samples: pl.DataFrame, seed: int = 0) -> dict[str, tuple[float, float, float, float]]:
    """The 99.9 % quantile of each number, and where bootstrap samples of the training rows have theirs.

    Returns:
        Column to (quantile of samples, that of training rows, 2.5 % and 97.5 % points of the bootstrap), as many rows
        drawn as there are samples.
    """
    generator, found = np.random.default_rng(seed), {}
    for name in train.columns:
        if discrete(train[name]):
            continue
        real, made = (numbers(f[name].drop_nulls()) for f in (train, samples))
        if not len(made):  # as far off as can be
            found[name] = (np.inf, float(np.quantile(real, 0.999)), -np.inf, -np.inf)
            continue
        again = [np.quantile(generator.choice(real, len(made)), 0.999) for _ in range(200)]
        low, high = np.quantile(again, [0.025, 0.975])
        found[name] = (float(np.quantile(made, 0.999)), float(np.quantile(real, 0.999)), float(low), float(high))
    return found


def trained_on_samples(train: pl.DataFrame, held_out: pl.DataFrame, samples: pl.DataFrame, target: str) -> float:
    """What a predictor of one column loses when it learns from samples: accuracy, or R², of real less synthetic."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    place = train.columns.index(target)
    category = discrete(train[target])
    tables = [features(f, train) for f in (train, samples[: len(train)], held_out)]
    inputs = [np.delete(t, place, axis=1) for t in tables]
    goals = [t[:, place] for t in tables]
    scores = []
    for x, y in zip(inputs[:2], goals[:2]):
        there, seen = ~np.isnan(y), ~np.isnan(goals[2])
        if category and len(np.unique(y[there])) < 2:
            scores.append(0.0)
            continue
        trees = (HistGradientBoostingClassifier if category else HistGradientBoostingRegressor)(random_state=0)
        with threadpool_limits(1):
            scores.append(float(trees.fit(x[there], y[there]).score(inputs[2][seen], goals[2][seen])))
    return scores[0] - scores[1]


def copies(train: pl.DataFrame, held_out: pl.DataFrame, samples: pl.DataFrame) -> float:
    """How often a sample lies nearer to a training row than a fresh row does, ties half: 0.5 is right, 1 are copies.

    Distances are sums over columns: of numbers in standard deviations, one for a category that differs or for a missing
    cell beside one that is there.
    """
    wide = [name for name in train.columns if not measured(train[name])]

    def nearest(frame: pl.DataFrame) -> np.ndarray:
        rows, known = features(frame[:_NEIGHBOURS], train), features(train, train)
        spread = np.maximum(np.nanstd(known, axis=0), 1e-12)
        least = np.full(len(rows), np.inf)
        for start in range(0, len(known), 256):
            apart = np.zeros((len(rows), len(known[start : start + 256])))
            for j, name in enumerate(train.columns):
                a, b = rows[:, j, None], known[None, start : start + 256, j]
                gap = (a != b).astype(float) if name in wide else np.abs(a - b) / spread[j]
                gap[np.isnan(a) != np.isnan(b)] = 1.0
                gap[np.isnan(a) & np.isnan(b)] = 0.0
                apart += gap
            least = np.minimum(least, apart.min(axis=1))
        return np.round(least, 9)

    made, fresh = nearest(samples), np.sort(nearest(held_out))
    below, upto = np.searchsorted(fresh, made, "left"), np.searchsorted(fresh, made, "right")
    return float(1 - np.mean(below + upto) / (2 * len(fresh)))


def imputation(
    truth: pl.DataFrame, gone: np.ndarray, middle: pl.DataFrame, draws: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, float]:
    """How well holes were filled.

    Coverage is of the draws, not of an interval of theirs, which holds too much where numbers recur and too little where
    draws are few: truth and M exchangeable draws, ties broken at random, give u = (draws below + V (ties + 1)) / (M + 1)
    that is uniform whatever M, and covered is what has u in the middle. [Randomised probability integral transform]

    Args:
        truth: the rows before cells were removed.
        gone: where they were, [rows, columns].
        middle: what was filled in.
        draws: for each number, draws of every row [rows, draws]; may be empty for an imputer without any.
        seed: of the ties.

    Returns:
        "nrmse" (over numbers, in standard deviations of the column), "accuracy" (over categories), "crps" (mean, in
        standard deviations), "coverage_80" and "coverage_90" with "numbers" and "categories", the cells they rest on.

    References:
        Gneiting and Raftery 2007 for the score by draws, whose unbiased estimate stands here; Czado, Gneiting and Held
        2009 for the transform, of which the count of draws is our reading.
    """
    generator = np.random.default_rng(seed)
    squares, hits, scores, places = [], [], [], []
    for j, name in enumerate(truth.columns):
        at = np.flatnonzero(gone[:, j])
        if not len(at):
            continue
        if not measured(truth[name]):
            hits += [a == b for a, b in zip(truth[name].cast(pl.String)[at], middle[name].cast(pl.String)[at])]
            continue
        real, made = (numbers(f[name])[at] for f in (truth, middle))
        scale = max(float(np.nanstd(numbers(truth[name]))), 1e-12)
        squares += list(((real - made) / scale) ** 2)
        if name in draws:
            d = np.sort(draws[name][at], axis=1)
            m = d.shape[1]
            # The unbiased estimate: mean distance to the truth less half the mean distance between two draws.
            weights = (2 * np.arange(1, m + 1) - m - 1) / (m * (m - 1))
            scores += list((np.abs(d - real[:, None]).mean(1) - d @ weights) / scale)
            slack = 1e-9 * np.maximum(np.abs(real), 1.0)[:, None]  # draws come by way of text
            below = (d < real[:, None] - slack).sum(1)
            ties = (np.abs(d - real[:, None]) <= slack).sum(1)
            places += list((below + generator.random(len(at)) * (ties + 1)) / (m + 1))

    def mean(values: Sequence) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    off = np.abs(np.array(places) - 0.5)
    return {
        "nrmse": float(np.sqrt(mean(squares))),
        "accuracy": mean(hits),
        "crps": mean(scores),
        "coverage_80": mean(off <= 0.4),
        "coverage_90": mean(off <= 0.45),
        "numbers": len(squares),
        "categories": len(hits),
    }


def judge(folder: Path, target: str, seed: int) -> dict[str, float]:
    """Every figure that the files of a cell allow: of ``samples.csv``, and of ``filled.csv`` with ``draws.npz``."""
    train = read(folder / "train.csv")
    held_out = read(folder / "held_out.csv", train)
    found: dict[str, float] = {}
    if (folder / "samples.csv").exists():
        samples = read(folder / "samples.csv", train)
        found["auc"], found["auc_error"] = auc(held_out, samples, seed)
        found["utility_gap"] = trained_on_samples(train, held_out, samples, target)
        found["distance"] = float(np.mean(list(marginals(held_out, samples).values())))
        found["correlation_error"] = correlation_error(held_out, samples)
        shares = [abs(z) for _, _, z in atoms(train, samples).values()]
        found["atoms"], found["atoms_off"] = len(shares), sum(z > 2 for z in shares)
        ends = tails(train, samples, seed).values()
        found["tails"], found["tails_off"] = len(ends), sum(not low <= q <= high for q, _, low, high in ends)
        found["copies"] = copies(train, held_out, samples)
    if (folder / "filled.csv").exists():
        holes, filled = (read(folder / f"{name}.csv", train) for name in ("holes", "filled"))
        gone = np.stack([(holes[n].is_null() & held_out[n].is_not_null()).to_numpy() for n in train.columns], axis=1)
        file = folder / "draws.npz"
        draws = dict(np.load(file)) if file.exists() else {}
        found |= imputation(held_out, gone, filled, draws, seed)
    return found


def main() -> None:
    print("RESULT " + json.dumps(judge(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))


if __name__ == "__main__":
    main()
