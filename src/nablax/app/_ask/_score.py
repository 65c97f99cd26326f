"""`nablax score`: the log-likelihood of every row, with its unit and error, and which rows are unusual."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array

from ..._core import Key
from ...follow import Solver
from .._runs._rows import filled
from .._runs._run import Model

# Activations of D Jacobian products a row: this many numbers of one layer at a time.
_NUMBERS_AT_ONCE = 2**24
ROWS_AT_ONCE = 256
_SOLVER = Solver(rtol=1e-4, atol=1e-4)


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
) -> Scores:
    """Score encoded rows.

    Args:
        model: the opened run.
        base: encoded rows.
        condition: condition vectors, or None for the likelihood that ignores conditions.
        draws: of the dequantisation noise; one is taken where the rows need none.
        seed: of the draws.
        round_trip: also send each row to noise and back, which costs a second solution.

    Returns:
        The scores. With dequantisation they are a lower bound in expectation: log p(row) ≥ E[log p(y) + c].
    """
    codec, dim = model.codec, int(np.prod(model.codec.shape))
    draws = draws if codec.noisy else 1
    width = max(int(model.config.choices["width"]), dim)
    # Chunks of one size, a power of two where the rows are few, and filled up: few compiled programs serve all calls.
    size = max(1, min(ROWS_AT_ONCE, _NUMBERS_AT_ONCE // (dim * width), 1 << (len(base) - 1).bit_length()))
    vectors = np.zeros((len(base), codec.condition_dim), np.float32) if condition is None else condition
    key = jax.random.key(seed)
    parts = []
    for number, start in enumerate(range(0, len(base), size)):
        chunk, given = (jnp.asarray(filled(part[start : start + size], size)) for part in (base, vectors))
        results = [
            _score_chunk(model, chunk, given, jax.random.fold_in(key, number * draws + i), round_trip)
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
    return Scores(*np.concatenate(parts, axis=1))


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


def _score_chunk(model: Model, base: Array, condition: Array, key: Key, round_trip: bool) -> tuple[Array, Array, Array]:
    noise_key, probe_key = jax.random.split(key)
    y, correction = _dequantise(model.codec, base, noise_key)
    args = condition if model.codec.condition_dim else None
    result = model.transport.log_prob(y, args, key=probe_key, solver=_SOLVER, round_trip=round_trip)
    return result.value + correction, result.standard_error, result.round_trip_error


@eqx.filter_jit
def _dequantise(codec: object, base: Array, key: Key) -> tuple[Array, Array]:
    return codec.dequantise(base, key)  # type: ignore[attr-defined]


def scored_frame(
    model: Model, frame: pl.DataFrame, *, bits: bool = False, draws: int = 4, seed: int = 0
) -> pl.DataFrame:
    """A table with its scores as further columns.

    Args:
        model: the opened run.
        frame: rows with the training table's columns; without the conditioning ones the marginal is scored.
        bits: bits per dimension in place of nats.
        draws: of the dequantisation noise.
        seed: of the draws.

    Returns:
        ``frame`` with log_likelihood_nats (or bits_per_dimension), its ..._standard_error, and outlier_rank: 1 is the
        least likely row.

    Raises:
        UserError: the table does not fit the model.
    """
    base, condition = encode_frame(model, frame)
    scores = score(model, base, condition, draws=draws, seed=seed)
    value, error, name = scores.log_likelihood, scores.standard_error, "log_likelihood_nats"
    if bits:
        value, error = scores.bits_per_dimension(model.codec.cells)
        name = "bits_per_dimension"
    rank = np.empty(len(base), np.int64)
    rank[np.argsort(scores.log_likelihood, kind="stable")] = np.arange(1, len(base) + 1)
    plain = frame.drop([column for column, dtype in frame.schema.items() if dtype == pl.Array])
    return plain.with_columns(
        pl.Series(name, value),
        pl.Series(f"{name}_standard_error", error).fill_nan(None),
        pl.Series("outlier_rank", rank),
    )


def encode_frame(model: Model, frame: pl.DataFrame, holes: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Encode rows; the condition is None when the table lacks all the conditioning columns."""
    absent = [name for name in model.codec.condition if name not in frame.columns]
    if absent and len(absent) == len(model.codec.condition):
        nulls = [pl.lit(None).alias(name) for name in absent]
        base, _ = model.codec.encode(frame.with_columns(nulls), holes=holes)
        return base, None
    return model.codec.encode(frame, holes=holes)


__all__ = ["ROWS_AT_ONCE", "Scores", "dequantised", "encode_frame", "score", "scored_frame"]
