"""`nablax score`: the log-likelihood of every row, with its unit and error, and which rows are unusual."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array

from ..._core import Key
from ...follow import Solver
from .._data._codec import Codec
from .._errors import UserError
from .._key import random_key
from .._model._along import STEPS, value_log_density
from .._model._table import TableModel
from .._runs._rows import filled
from .._runs._run import Model
from ._names import free_name
from ._unseen import breaking, unseen

# Activations of D Jacobian products a row: this many numbers of one layer at a time.
_NUMBERS_AT_ONCE = 2**24
ROWS_AT_ONCE = 256
_SOLVER = Solver(rtol=1e-4, atol=1e-4)
_EXACT_UP_TO = 256  # columns with values; of more the trace of the Jacobian is estimated
_MANY = Solver(steps=16, method=diffrax.Tsit5())  # for those, steps in which no other row of the batch has a say


@dataclasses.dataclass(frozen=True)
class Scores:
    """Log-likelihoods of rows.

    Attributes:
        log_likelihood: nats per row: density in the columns' own units, probability for categories and integers.
        standard_error: of the dequantisation draws and the divergence's probes, nats; 0 where nothing was drawn, NaN
            where there was a single draw to tell it from.
        round_trip_error: root-mean-square gap of each row after encoding and back, in standardised units; NaN where
            it was not asked for.
    """

    log_likelihood: np.ndarray
    standard_error: np.ndarray
    round_trip_error: np.ndarray

    def bits_per_dimension(self, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Negative log-likelihood and its error in bits per modelled cell."""
        unit = cells * math.log(2.0)
        return -self.log_likelihood / unit, self.standard_error / unit


def score(
    model: Model,
    base: np.ndarray,
    condition: np.ndarray | None,
    *,
    draws: int = 4,
    seed: int = 0,
    round_trip: bool = False,
    given: np.ndarray | None = None,
    steps: int = STEPS,
) -> Scores:
    """Score encoded rows.

    Args:
        model: the opened run.
        base: encoded rows.
        condition: condition vectors of images, or None for the likelihood that ignores conditions.
        draws: of the dequantisation noise; one is taken where the rows need none.
        seed: of the draws.
        round_trip: also send each row to noise and back, which costs a second solution.
        given: columns of a table [columns] that are given, not scored; none by default.
        steps: of the solver along a table's trajectories.

    Returns:
        The scores. With dequantisation they are a lower bound in expectation: log p(row) ≥ E[log p(y) + c]. A row
        with a cell to which the training data give no probability gets -∞.

    Raises:
        UserError: the field leads a row out of the numbers.
    """
    codec, dim = model.codec, int(np.prod(model.transport.space.shape))
    columns = np.zeros(base.shape[1], bool) if given is None else given
    draws = draws if codec.noisy else 1
    width = max(int(model.config.choices["width"]), dim)
    # Chunks of one size, a power of two where the rows are few, and filled up: few compiled programs serve all calls.
    size = max(1, min(ROWS_AT_ONCE, _NUMBERS_AT_ONCE // (dim * width), 1 << (len(base) - 1).bit_length()))
    vectors = np.zeros((len(base), codec.condition_dim), np.float32) if condition is None else condition
    key = random_key(seed)
    parts = []
    for number, start in enumerate(range(0, len(base), size)):
        chunk, beside = (jnp.asarray(filled(part[start : start + size], size)) for part in (base, vectors))
        results = [
            _score_chunk(model, chunk, beside, columns, jax.random.fold_in(key, number * draws + i), round_trip, steps)
            for i in range(draws)
        ]
        values = np.stack([np.asarray(value, np.float64) for value, _, _ in results])
        error = np.asarray(results[0][1], np.float64)
        if codec.noisy:
            error = np.full_like(error, np.nan)
        if draws > 1:
            # The spread over draws holds the probes' error too.
            error = values.std(axis=0, ddof=1) / math.sqrt(draws)
        part = np.stack([values.mean(axis=0), error, np.asarray(results[0][2], np.float64)])
        parts.append(part[:, : len(base) - start])
    value, error, gap = np.concatenate(parts, axis=1)
    never = codec.impossible(base if given is None else base[:, ~given])
    lost = np.isnan(value) & ~never
    if lost.any():
        raise UserError(
            f"row {int(np.argmax(lost)) + 1} cannot be followed to the prior: the run's weights are no good"
        )
    return Scores(np.where(never, -np.inf, value), np.where(never, 0.0, error), gap)


def dequantised(codec: Any, base: np.ndarray, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Points of rows and the correction to their density, by the program that scoring compiles too.

    Args:
        codec: of the rows.
        base: encoded rows [n, ...].
        key: of the noise.

    Returns:
        float32 [n, ...] and [n], in nats.
    """
    parts = []
    for number, start in enumerate(range(0, len(base), ROWS_AT_ONCE)):
        part = base[start : start + ROWS_AT_ONCE]
        chunk = jnp.asarray(filled(part, ROWS_AT_ONCE))
        y, correction = _dequantise(codec, chunk, jax.random.fold_in(key, number))
        parts.append((np.asarray(y)[: len(part)], np.asarray(correction)[: len(part)]))
    return tuple(np.concatenate(side) for side in zip(*parts))  # type: ignore[return-value]


def _score_chunk(
    model: Model, base: Array, condition: Array, given: np.ndarray, key: Key, round_trip: bool, steps: int
) -> tuple[Array, Array, Array]:
    noise_key, probe_key = jax.random.split(key)
    if not isinstance(model.codec, Codec):
        y, correction = _dequantise(model.codec, base, noise_key)
        args: Array | None = model.arguments(condition)
        solver = _SOLVER
    else:
        assert model.joint is not None
        y, args, correction = _taken_apart(model.joint, model.codec, base, jnp.asarray(given), noise_key)
        if model.joint.values <= _EXACT_UP_TO:
            value, gap = value_log_density(model.transport, y, args, jnp.asarray(steps), round_trip)
            return value + correction, jnp.zeros_like(value), gap
        solver = _MANY
    result = model.transport.log_prob(y, args, key=probe_key, solver=solver, round_trip=round_trip)
    return result.value + correction, result.standard_error, result.round_trip_error


@eqx.filter_jit
def _dequantise(codec: object, base: Array, key: Key) -> tuple[Array, Array]:
    return codec.dequantise(base, key)  # type: ignore[attr-defined]


@eqx.filter_jit
def _taken_apart(joint: TableModel, codec: Codec, base: Array, given: Array, key: Key) -> tuple[Array, Array, Array]:
    """Points of the values not given, their condition vectors, and all of the log-likelihood but the flow's own."""
    cells = joint.cells(base, codec.measure, key)
    rows = jnp.broadcast_to(given, cells.states.shape)
    points, args, correction = joint.points(cells, rows)
    return points, args, correction + joint.state_log_prob(cells, rows)


@dataclasses.dataclass(frozen=True)
class Scored:
    """A table with its scores.

    Attributes:
        frame: the table, its cells as they came, with the scores as further columns.
        notices: one line for each column with a cell that leaves its row without probability.
    """

    frame: pl.DataFrame
    notices: tuple[str, ...] = ()


def scored_frame(
    model: Model,
    frame: pl.DataFrame,
    *,
    bits: bool = False,
    draws: int = 4,
    seed: int = 0,
    given: Sequence[str] = (),
) -> Scored:
    """A table with its scores as further columns.

    Args:
        model: the opened run.
        frame: rows with the training table's columns; images without their label are scored by the marginal.
        bits: bits per dimension in place of nats.
        draws: of the dequantisation noise.
        seed: of the draws.
        given: columns of a table on which the others are conditioned: log p(the others | these).

    Returns:
        The table with log_likelihood_nats (or bits_per_dimension), its ..._standard_error, and outlier_rank: 1 is the
        least likely row. A row has a likelihood of -∞ with a cell that the training data give no probability, and where
        it breaks a relation that is kept; else what is worked out adds nothing. Where the table has columns of these
        names, the new ones are numbered.

    Raises:
        UserError: the table does not fit the model, or has no rows.
    """
    if not len(frame):
        raise UserError("there is nothing to score: the table has no rows")
    base, condition = encode_frame(model, frame)
    columns = _given_columns(model, base, given) if given else None
    scores = score(model, base, condition, draws=draws, seed=seed, given=columns)
    broken, lines = breaking(model, frame)
    scores = dataclasses.replace(
        scores,
        log_likelihood=np.where(broken, -np.inf, scores.log_likelihood),
        standard_error=np.where(broken, 0.0, scores.standard_error),
    )
    value, error, name = scores.log_likelihood, scores.standard_error, "log_likelihood_nats"
    if bits:
        value, error = scores.bits_per_dimension(model.codec.cells - len(set(given)))
        name = "bits_per_dimension"
    rank = np.empty(len(base), np.int64)
    rank[np.argsort(scores.log_likelihood, kind="stable")] = np.arange(1, len(base) + 1)
    plain = frame.drop([column for column, dtype in frame.schema.items() if dtype == pl.Array])
    new = {name: pl.Series(value), f"{name}_standard_error": pl.Series(error).fill_nan(None)}
    new |= {"outlier_rank": pl.Series(rank)}
    scored = plain.with_columns(**{free_name(name, plain.columns): series for name, series in new.items()})
    return Scored(scored, (*unseen(model, frame, base), *lines))


def _given_columns(model: Model, base: np.ndarray, given: Sequence[str]) -> np.ndarray:
    """Which columns are given, as booleans; each of their cells has to be one that the model knows."""
    codec = model.table("--given")
    columns = np.isin(np.arange(codec.cells), [codec.place_of(name) for name in given])
    if columns.all():
        raise UserError("--given names every column: nothing is left to score")
    lost = (base[:, columns, 0] < 0).any(axis=1)
    if lost.any():
        raise UserError(
            f"row {int(np.argmax(lost)) + 1} has a given cell unseen in training: nothing is known given it"
        )
    return columns


def encode_frame(model: Model, frame: pl.DataFrame, holes: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Encode rows; the condition is None when the table lacks all the conditioning columns."""
    absent = [name for name in model.codec.condition if name not in frame.columns]
    if absent and len(absent) == len(model.codec.condition):
        nulls = [pl.lit(None).alias(name) for name in absent]
        base, _ = model.codec.encode(frame.with_columns(nulls), holes=holes)
        return base, None
    return model.codec.encode(frame, holes=holes)


__all__ = ["ROWS_AT_ONCE", "Scored", "Scores", "dequantised", "encode_frame", "score", "scored_frame"]
