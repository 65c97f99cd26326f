"""What a report says in numbers: likelihoods beside the baselines, and features for distances."""

import dataclasses
from typing import Any

import jax
import numpy as np

from .._ask._score import ROWS_AT_ONCE, Scores, dequantised, score
from .._data._codec import Codec
from .._key import random_key
from .._model._along import STEPS
from .._runs._rows import filled
from .._runs._run import Model
from ._baselines import (
    Baseline,
    Likelihood,
    gaussian_mixture,
    kernel_density,
    likelihood,
)

_MANY = 40  # states of a column that the baselines do not model jointly with the others


@dataclasses.dataclass(frozen=True)
class Scored:
    """The model's scores of the rows that a report is about.

    Attributes:
        held_out: of held-out rows, whatever their condition.
        training: of training rows.
        given: of held-out rows, given their condition; None where the model has none.
        solver_error: root mean square, over some of the rows, of what half as many steps of the solver change, nats:
            more than what the steps taken leave; None where the solver controls its own.
    """

    held_out: Scores
    training: Scores
    given: Scores | None
    solver_error: float | None = None


def scores_of(
    model: Model, base: np.ndarray, condition: np.ndarray, train: np.ndarray, seed: int, *, round_trip: bool
) -> Scored:
    """Score held-out rows, with and without their condition, and training rows: in one call, of one program."""
    parts = [base, train]
    null = np.zeros((len(base) + len(train), model.codec.condition_dim), np.float32)
    conditions = [null]
    if model.codec.condition_dim:
        parts.append(base)
        conditions.append(condition)
    # Never so few images that they would be scored in smaller chunks than are decoded: that would be a second program.
    least = 1 if isinstance(model.codec, Codec) else ROWS_AT_ONCE // 2 + 1
    asked, beside = (filled(np.concatenate(rows), least) for rows in (parts, conditions))
    scores = score(model, asked, beside, draws=1, seed=seed, round_trip=round_trip)
    ends = np.cumsum([0, *map(len, parts)])
    found = [
        Scores(*(getattr(scores, field.name)[start:end] for field in dataclasses.fields(scores)))
        for start, end in zip(ends, ends[1:])
    ]
    error = None
    if isinstance(model.codec, Codec):
        few = slice(0, ROWS_AT_ONCE)
        coarse = score(model, asked[few], beside[few], draws=1, seed=seed, steps=STEPS // 2, round_trip=round_trip)
        # The same noise in both: what differs is the steps.
        change = coarse.log_likelihood - scores.log_likelihood[few]
        error = float(np.sqrt(np.nanmean(np.square(change[np.isfinite(scores.log_likelihood[few])]))))
    return Scored(found[0], found[1], found[2] if len(found) > 2 else None, error)


def likelihoods(model: Model, scored: Scored, train: np.ndarray, base: np.ndarray, seed: int) -> list[Likelihood]:
    """The model beside the baselines, all on the same dequantised rows."""
    key = random_key(seed)
    note = "" if scored.solver_error is None else f"its solver is off by less than {scored.solver_error:.1g} nats a row"
    found = [likelihood_of(model, "this model", scored.held_out.log_likelihood, note)]
    if scored.given is not None:
        names = ", ".join(model.codec.condition)
        score_given = likelihood_of(model, f"this model, given {names}", scored.given.log_likelihood)
        found.append(dataclasses.replace(score_given, baseline=False))
    codec, apart = model.codec, np.zeros(len(base))
    if isinstance(codec, Codec):
        codec, train, base, apart = _without_many(codec, train, base)
    y_train, _ = dequantised(codec, train, jax.random.fold_in(key, 0))
    y, correction = dequantised(codec, base, jax.random.fold_in(key, 1))
    flat_train, flat = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (y_train, y))
    baselines: list[Baseline] = [fit(flat_train, flat, seed=seed) for fit in (gaussian_mixture, kernel_density)]
    for baseline in baselines:
        nats = baseline.log_density + np.asarray(correction, np.float64) + apart
        found.append(likelihood_of(model, baseline.name, nats, baseline.note))
    return found


def _without_many(
    codec: Codec, train: np.ndarray, base: np.ndarray
) -> tuple[Codec, np.ndarray, np.ndarray, np.ndarray]:
    """The table without its columns of many states, which no mixture fits, and what their shares alone give."""
    many = np.array([kind.states > _MANY for kind in codec.modelled])
    if not many.any() or many.all():
        return codec, train, base, np.zeros(len(base))
    nats = np.zeros(len(base))
    for j in np.flatnonzero(many):
        counts = np.bincount(train[:, j, 0].astype(np.int64), minlength=codec.modelled[j].states) + 0.5
        states = base[:, j, 0].astype(np.int64)
        nats += np.where(states >= 0, np.log(counts / counts.sum())[states], -np.inf)
    few = tuple(kind for kind in codec.columns if kind.states <= _MANY)
    return dataclasses.replace(codec, columns=few), train[:, ~many], base[:, ~many], nats


def likelihood_of(model: Model, name: str, nats: np.ndarray, note: str = "") -> Likelihood:
    """Nats of rows as a score in the unit of the model's report."""
    unit: Any = "bits/dim" if model.config.kind == "images" else "nats per row"
    return likelihood(name, nats, unit=unit, dimension=model.codec.cells, note=note)


def features(model: Model, base: np.ndarray) -> np.ndarray:
    """Encoded rows as numbers that distances make sense of: categories become indicators."""
    if model.config.kind == "images":
        return np.asarray(base, np.float64).reshape(len(base), -1)
    return np.concatenate(_by_column(model, base), axis=1)


def feature_groups(model: Model, base: np.ndarray) -> dict[str, list[int]]:
    """The places of each column in what `features` gives."""
    columns = model.table("features").modelled
    widths = [part.shape[1] for part in _by_column(model, base[:1])]
    ends = np.cumsum([0, *widths])
    return {column.name: list(range(a, b)) for column, a, b in zip(columns, ends, ends[1:])}


def _by_column(model: Model, base: np.ndarray) -> list[np.ndarray]:
    cells = np.asarray(base, np.float64)
    return [kind.features(cells[:, j, 0], cells[:, j, 1]) for j, kind in enumerate(model.table("features").modelled)]


__all__ = ["Scored", "feature_groups", "features", "likelihood_of", "likelihoods", "scores_of"]
