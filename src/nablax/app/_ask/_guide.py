"""Guides: rows steered to satisfy comparisons such as "petal_length > 5"."""

import operator
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from ...transport import Bounds, steer
from .._data._codec import Codec
from .._errors import UserError
from .._kinds._category import Category
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import numbers
from .._runs._run import Model
from ._comparisons import Comparison, parse_guide
from ._draw import Samples, conditions_for, draw
from ._score import encode_frame, score

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
_MARGIN = 0.05  # standardised units inside the boundary, so that the end of descent is on the right side
_STEPS = 100
_ROUNDS = 8
_PROBED = 512  # free rows drawn to see how many satisfy the guide
_LEAST_SHARE = 0.02
_COMPARED = 256  # rows on which guided and free likelihoods are compared


def guided(model: Model, count: int, values: Mapping[str, str], guide: str, *, seed: int, scale: float) -> Samples:
    """Draw rows that satisfy a guide.

    Free rows are drawn first: those that satisfy the guide are exact draws given it. Where at least one in fifty
    does, the others are simply drawn again; else the rows are steered (see `transport.steer`), which reaches what free
    rows hardly ever do, but is no draw from the conditional distribution. Conditions that nobody set are drawn anew in
    every round, as many as rows: the share that satisfies the guide is of all rows, not of those under a few of them.

    Args:
        model: the opened run.
        count: rows.
        values: condition column to value; what is not named is drawn as it is in the training data.
        guide: comparisons joined by "and".
        seed: the same seed gives the same rows.
        scale: classifier-free guidance.

    Returns:
        Exactly ``count`` rows that satisfy the guide, with notices that say how they were found.

    Raises:
        UserError: the guide is not understood, or contradicts itself or the data's range so that too few rows satisfy
            it.
    """
    codec = model.table("--guide")
    comparisons = parse_guide(guide, [column.name for column in codec.columns])
    cost = _cost(codec, comparisons)
    conditional = bool(model.codec.condition_dim)
    pool = max(count, _PROBED)

    def free(number: int, given: np.ndarray) -> np.ndarray:
        return draw(model, pool, seed=_seed(seed, number), condition=given, scale=scale)

    def steered(number: int, given: np.ndarray) -> np.ndarray:
        args = jnp.asarray(given) if conditional else None
        key = jax.random.fold_in(jax.random.key(seed), number)
        return np.asarray(steer(model.guided(scale), cost, pool, key=key, args=args, steps=_STEPS)[0])

    def gather(propose: Callable[[int, np.ndarray], np.ndarray], rounds: int) -> tuple[list[Samples], float]:
        kept: list[Samples] = []
        found = drawn = 0
        for number in range(rounds):
            given = conditions_for(model, pool, values, _seed(seed, number))
            y = propose(number, given)
            frame = model.codec.decode(y, given if conditional else None)
            keep = np.flatnonzero(satisfies(codec, frame, comparisons))
            kept.append(Samples(frame[keep], y[keep], given[keep]))
            found, drawn = found + len(keep), drawn + pool
            if found >= count or found < _LEAST_SHARE * drawn:
                break
        return kept, found / drawn

    kept, share = gather(free, int(2 / _LEAST_SHARE))
    notices = [f"{share:.1%} of free rows satisfy the guide; kept those: exact draws given it"]
    if sum(len(part.y) for part in kept) < count:
        kept, reached = gather(steered, _ROUNDS)
        notices = [
            f"{share:.1%} of free rows satisfy the guide, so rows were steered towards it; {reached:.0%} arrived",
            "steered rows are plausible where the guide is, but are no draws from the conditional distribution",
        ]
    frame, y, vectors = (
        pl.concat([part.frame for part in kept])[:count],
        np.concatenate([part.y for part in kept])[:count],
        np.concatenate([part.condition for part in kept])[:count],
    )
    if len(y) < count:
        raise UserError(
            f"only {len(y)} of the {count} rows asked for satisfy the guide '{guide}'; "
            "it may contradict itself, or lie outside the range of the data"
        )
    if len(notices) > 1:
        notices += _pull(model, frame, vectors, seed)
    return Samples(frame, y, vectors, tuple(notices))


def _seed(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, 2, number]).integers(2**31))


def satisfies(codec: Codec, frame: pl.DataFrame, comparisons: list[Comparison]) -> np.ndarray:
    """Whether each row satisfies every comparison, read as steering reads it; a missing cell satisfies none."""
    holds = np.ones(len(frame), bool)
    for name, symbol, value in comparisons:
        kind = codec.column(name)
        if isinstance(kind, Category):
            holds &= kind.encode(frame[name])[0] == kind.code_of(value)
            continue
        # What is written 5.1 is the nearest number that the column can hold.
        wanted = np.float32(_number(kind, value)) if frame[name].dtype == pl.Float32 else _number(kind, value)
        holds &= _OPERATORS[symbol](numbers(frame[name]), wanted)
    return holds


def _number(kind: object, value: float | int | str | bool) -> float:
    if not isinstance(kind, AbstractQuantity):
        raise UserError(f"column '{kind.name}' is not modelled: {kind.reason}")  # type: ignore[attr-defined]
    return kind.value_of(value) if isinstance(value, str) else float(value)


def _cost(codec: Codec, comparisons: list[Comparison]) -> Bounds:
    lower, upper = np.full(codec.shape, -np.inf), np.full(codec.shape, np.inf)
    for name, symbol, value in comparisons:
        kind, at = codec.column(name), codec.place_of(name)
        place: int | slice
        point: np.ndarray | np.float64
        if isinstance(kind, Category) and symbol == "==":
            place, point = codec.layout.slices[at], codec.vertex(name, kind.code_of(value))
        else:
            place, point = int(codec.layout.value[at]), np.float64(codec.standardised(name, value))
        # x > 5 begins beyond 5, so that it contradicts x <= 5.
        if symbol in (">", ">=", "=="):
            lower[place] = np.maximum(lower[place], np.nextafter(point, np.inf) if symbol == ">" else point)
        if symbol in ("<", "<=", "=="):
            upper[place] = np.minimum(upper[place], np.nextafter(point, -np.inf) if symbol == "<" else point)
    if np.any(lower > upper):
        raise UserError("the guide contradicts itself: no value satisfies all its comparisons")
    inside = np.minimum(_MARGIN, 0.5 * (upper - lower))
    lower, upper = lower + inside, upper - inside
    return Bounds(jnp.asarray(lower, jnp.float32), jnp.asarray(upper, jnp.float32), margin=0.0)  # inside already


def _pull(model: Model, frame: pl.DataFrame, condition: np.ndarray, seed: int) -> list[str]:
    """Say how likely steered rows are beside free ones: a guide can pull rows to where no data lie."""
    vectors = condition[:_COMPARED] if model.codec.condition_dim else None

    def likelihood(frame: pl.DataFrame) -> np.ndarray:
        base, _ = encode_frame(model, frame, holes=True)
        return score(model, base, vectors, draws=1, seed=seed).log_likelihood

    rows = len(frame[:_COMPARED])
    free = likelihood(model.codec.decode(draw(model, rows, seed=_seed(seed, -1 % 2**31), condition=vectors)))
    typical = float(np.median(likelihood(frame[:_COMPARED])))
    lines = [f"median log-likelihood {typical:.2f} nats, of free rows {np.median(free):.2f}"]
    if typical < np.quantile(free, 0.01):
        lines.append("warning: the steered rows are less likely than 99 % of free ones; no such rows may exist")
    return lines


__all__ = ["guided", "satisfies"]
