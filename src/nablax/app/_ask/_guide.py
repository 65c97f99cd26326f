"""Guides: rows steered to satisfy comparisons such as "petal_length > 5"."""

import operator
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array

from ...transport import Bounds, steer
from .._data._codec import Codec
from .._errors import UserError
from .._key import random_key
from .._kinds._category import Category
from .._kinds._kind import AbstractKind
from .._kinds._quantity import AbstractQuantity
from .._kinds._types import dtype_from_json, numbers
from .._model._table import TableModel
from .._runs._run import Model
from ._comparisons import Comparison, parse_guide
from ._draw import Samples, draw
from ._given import Given, all_states, drawn_states, equal_rows, told_of, with_values
from ._score import encode_frame, score

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
_MARGIN = 0.05  # standardised units inside the boundary, so that the end of descent is on the right side
_STEPS = 100
_ROUNDS = 8
_PROBED = 512  # free rows drawn to see how many satisfy the guide
_LEAST_SHARE = 0.02
_COMPARED = 256  # rows on which guided and free likelihoods are compared


def guided(model: Model, count: int, values: Mapping[str, str], guide: str, *, seed: int) -> Samples:
    """Draw rows that satisfy a guide.

    What the guide says by == is given to the model like a condition. The other comparisons: free rows are drawn first,
    and those that satisfy them are exact draws given them. Where at least one in fifty does, more are simply drawn;
    else the rows are steered: states that the guide rules out are not drawn, and values descend towards where it
    holds (see `transport.steer`). That reaches what free rows hardly ever do, but is no draw from the conditional
    distribution. A column that is worked out from others is not steered: rows are drawn until it fits.

    Args:
        model: the opened run of a table.
        count: rows.
        values: column to value, given.
        guide: comparisons joined by "and".
        seed: the same seed gives the same rows.

    Returns:
        Exactly ``count`` rows that satisfy the guide, with notices that say how they were found.

    Raises:
        UserError: the guide is not understood, or contradicts itself or the data's range so that too few rows satisfy
            it.
    """
    codec = model.table("--guide")
    every = parse_guide(guide, [column.name for column in codec.columns])
    comparisons, worked_out = _apart(codec, every)
    allowed = allowed_states(codec, comparisons)
    lower, upper = windows(codec, comparisons)
    known = {**values, **{name: value for name, symbol, value in comparisons if symbol == "=="}}
    steering = [comparison for comparison in comparisons if comparison.operator != "=="]
    rest = [*steering, *worked_out]
    pool = max(count, _PROBED)
    given = equal_rows(codec, known, pool)
    never = ~allowed[np.arange(codec.cells), np.nan_to_num(given.base[0, :, 0]).astype(int)] & given.cells[0]
    if never.any():
        raise UserError("the guide contradicts itself: no value satisfies all its comparisons")
    assert model.joint is not None
    cost = _Inside(model.joint, _bounds(model.joint, codec, lower, upper))

    def propose(number: int, *, steered: bool) -> tuple[np.ndarray, np.ndarray]:
        vectors = drawn_states(model, given, seed=_seed(seed, number), allowed=allowed if steered else None)
        if not steered:
            return draw(model, pool, seed=_seed(seed, number), condition=vectors), vectors
        key = jax.random.fold_in(random_key(seed), number)
        args = model.arguments(vectors)
        return np.asarray(steer(model.transport, cost, pool, key=key, args=args, steps=_STEPS)[0]), vectors

    def gather(rounds: int, *, steered: bool) -> tuple[list[Samples], float]:
        kept: list[Samples] = []
        found = drawn = 0
        for number in range(rounds):
            y, vectors = propose(number, steered=steered)
            frame = with_values(codec, model.decode(y, vectors), known)
            keep = np.flatnonzero(satisfies(codec, frame, rest) & codec.obeys(frame))
            kept.append(Samples(frame[keep], y[keep], vectors[keep]))
            found, drawn = found + len(keep), drawn + pool
            if found >= count or (steering and found < _LEAST_SHARE * drawn):
                break
        return kept, found / drawn

    kept, share = gather(int(2 / _LEAST_SHARE), steered=False)
    notices = [f"{share:.1%} of free rows satisfy the guide; kept those: exact draws given it"]
    if known:
        notices = [f"given to the model: {', '.join(known)}", *told_of(codec, known), *notices]
    steered = bool(steering) and sum(len(part.y) for part in kept) < count
    if steered:
        kept, reached = gather(_ROUNDS, steered=True)
        notices[-1:] = [
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
    if steered:
        notices += _pull(model, frame, given, seed)
    return Samples(frame, y, vectors, tuple(notices))


def _apart(codec: Codec, comparisons: list[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """Comparisons of what the model draws, and of what is worked out from it.

    Raises:
        UserError: a category that is worked out is compared by anything but ==.
    """
    worked_out = [comparison for comparison in comparisons if comparison.column in codec.computed]
    for name, symbol, value in worked_out:
        kind = codec.column(name)
        if isinstance(kind, Category):
            if symbol != "==":
                raise UserError(f"column '{name}' is a category: compare it with == and one of {kind.listed}")
            kind.code_of(value)
    return [comparison for comparison in comparisons if comparison not in worked_out], worked_out


def _seed(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed % 2**64, 2, number]).integers(2**31))


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


def allowed_states(codec: Codec, comparisons: list[Comparison]) -> np.ndarray:
    """Which states [columns, most states] satisfy the comparisons; the smooth part where some of its values may.

    Raises:
        UserError: a comparison of a category by anything but ==, of a number with no number, or of a column that is
            not modelled; or a column of which no state is left.
    """
    allowed = all_states(codec)
    for name, symbol, value in comparisons:
        at, kind = codec.place_of(name), codec.column(name)
        if isinstance(kind, Category):
            if symbol != "==":
                raise UserError(f"column '{name}' is a category: compare it with == and one of {kind.listed}")
            allowed[at] &= np.arange(allowed.shape[1]) == kind.code_of(value)
            continue
        assert isinstance(kind, AbstractQuantity)
        atoms = _OPERATORS[symbol](np.array(kind.atoms), _number(kind, value))
        allowed[at, 1:] &= np.pad(atoms, (0, allowed.shape[1] - 1 - len(atoms)))  # a missing cell satisfies nothing
    lower, upper = windows(codec, comparisons)
    for at, kind in enumerate(codec.modelled):
        if isinstance(kind, AbstractQuantity):
            allowed[at, 0] &= lower[at] <= upper[at] and (not kind.scale.grid or _on_grid(kind, comparisons))
    for at, kind in enumerate(codec.modelled):
        if not allowed[at].any():
            raise UserError(_impossible(kind, comparisons if lower[at] <= upper[at] else []))
    return allowed


def _impossible(kind: AbstractKind, comparisons: list[Comparison]) -> str:
    """Why no value of a column satisfies its comparisons, in words."""
    mine = [comparison for comparison in comparisons if comparison.column == kind.name]
    if isinstance(kind, AbstractQuantity):
        ends = np.array([kind.scale.low, kind.scale.high])
        for name, symbol, value in mine:
            if not _OPERATORS[symbol](ends, _number(kind, value)).any() and symbol != "==":
                low, high = kind.spell(kind.scale.series(name, dtype_from_json(kind.dtype), ends, np.ones(2, bool)))
                return f"the guide asks for {name} {symbol} {value}, and what was learnt lies from {low} to {high}"
    return "the guide contradicts itself: no value satisfies all its comparisons"


def _on_grid(kind: AbstractQuantity, comparisons: list[Comparison]) -> bool:
    """Whether a number of the grid that is no atom satisfies the comparisons of this column."""
    every = kind.scale.from_index(np.arange(round(kind.scale.to_index(kind.scale.high)) + 1.0))
    for name, symbol, value in comparisons:
        if name == kind.name:
            every = every[_OPERATORS[symbol](every, _number(kind, value))]
    return not np.isin(every, kind.atoms).all()


def windows(codec: Codec, comparisons: list[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest coordinate [columns] of a value that satisfies the comparisons."""
    lower, upper = np.full(codec.cells, -np.inf), np.full(codec.cells, np.inf)
    for name, symbol, value in comparisons:
        at = codec.place_of(name)
        if isinstance(codec.modelled[at], Category):
            continue
        point = np.float64(codec.standardised(name, value))
        # x > 5 begins beyond 5, so that it contradicts x <= 5.
        if symbol in (">", ">=", "=="):
            lower[at] = np.maximum(lower[at], np.nextafter(point, np.inf) if symbol == ">" else point)
        if symbol in ("<", "<=", "=="):
            upper[at] = np.minimum(upper[at], np.nextafter(point, -np.inf) if symbol == "<" else point)
    return lower, upper


class _Inside(eqx.Module):
    """How far a flow's point is from bounds of the normal scores that it stands for.

    In units of each score's own spread given what is known, so that a step of descent closes the gap of one column, and
    over the number of bounded columns, so that it overshoots for none, however they hang together.
    """

    joint: TableModel
    bounds: Bounds

    def __call__(self, point: Array, vector: Array) -> Array:
        scores, unit = self.joint.scores_and_deviations(point, vector)
        lower, upper = self.bounds.lower, self.bounds.upper
        count = jnp.sum(jnp.isfinite(lower) | jnp.isfinite(upper))
        scaled = eqx.tree_at(lambda bounds: (bounds.lower, bounds.upper), self.bounds, (lower / unit, upper / unit))
        return scaled(scores / unit) / jnp.maximum(count, 1)


def _bounds(joint: TableModel, codec: Codec, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    """The windows as bounds of normal scores, a little inside: descent ends on either side of a boundary."""
    places = list(codec.valued) or [0]
    ends = jnp.asarray(np.stack([lower[places], upper[places]]), jnp.float32)
    scores = np.asarray(joint.normal_scores.forward(jnp.where(jnp.isfinite(ends), ends, 0.0))[0])
    low, high = np.where(np.isfinite(ends), scores, ends)
    inside = np.minimum(_MARGIN, 0.5 * (high - low))
    return Bounds(jnp.asarray(low + inside), jnp.asarray(high - inside), margin=0.0)


def _pull(model: Model, frame: pl.DataFrame, given: Given, seed: int) -> list[str]:
    """Say how likely steered rows are beside free ones: a guide can pull rows to where no data lie."""
    few = Given(given.base[:_COMPARED], given.cells[:_COMPARED])

    def likelihood(frame: pl.DataFrame) -> np.ndarray:
        base, condition = encode_frame(model, frame[:_COMPARED])
        return score(model, base, condition, draws=1, seed=seed, given=given.cells[0]).log_likelihood

    vectors = drawn_states(model, few, seed=_seed(seed, -1 % 2**31))
    free = likelihood(model.decode(draw(model, len(vectors), seed=_seed(seed, -1 % 2**31), condition=vectors), vectors))
    typical = float(np.median(likelihood(frame)))
    lines = [f"median log-likelihood {typical:.2f} nats, of free rows {np.median(free):.2f}"]
    if typical < np.quantile(free, 0.01):
        lines.append("warning: the steered rows are less likely than 99 % of free ones; no such rows may exist")
    return lines


__all__ = ["allowed_states", "guided", "satisfies", "windows"]
