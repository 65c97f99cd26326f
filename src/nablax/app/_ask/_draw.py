"""New rows from a run: their conditions, and the draw itself."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from ...follow import Solver
from .._data._cells import block_size
from .._data._codec import Codec
from .._errors import UserError
from .._key import random_key
from .._model._along import STEPS, drawn_values
from .._runs._rows import filled
from .._runs._run import Model
from ._given import drawn_states, equal_rows

_ROWS_AT_ONCE = 2048
_IMAGES = Solver(rtol=1e-4, atol=1e-4)
# Where a number is a condition and others are not named, these come from the nearest tenth of the training rows.
_SHARE, _FEWEST = 10, 20


def conditions_for(model: Model, count: int, values: Mapping[str, str], seed: int) -> np.ndarray:
    """Condition vectors for new rows.

    Args:
        model: the opened run.
        count: rows.
        values: column to value. Of a table, any columns: the states of the other cells are drawn given these. Of
            images, conditions: what is not named is drawn as it is in those training images that have the categories
            named and are nearest in the numbers named.
        seed: of that draw.

    Returns:
        float32 [count, c].
    """
    if isinstance(model.codec, Codec):
        return drawn_states(model, equal_rows(model.codec, values, count), seed=seed)
    named = model.codec.encode_condition(values, count)
    known = np.asarray(model.conditions)
    columns = model.codec.conditioned
    lengths = [block_size(column) for column in columns]
    fixed = np.repeat([column.name in values for column in columns], lengths).astype(bool)
    if len(known) == 0 or fixed.all():
        return named
    # What says which state a cell is in counts before how far its value is.
    categories = ~np.concatenate(
        [np.arange(n) == n - 1 if c.valued else np.zeros(n, bool) for c, n in zip(columns, lengths)]
    )
    differences = np.square(known - named[:1]) * fixed
    mismatch = differences[:, categories].sum(axis=1)
    picks = np.flatnonzero(mismatch == mismatch.min())
    if fixed[~categories].any():
        apart = differences[picks][:, ~categories].sum(axis=1)
        picks = picks[np.argsort(apart, kind="stable")[: max(_FEWEST, len(picks) // _SHARE)]]
    rows = known[picks[np.random.default_rng([seed, 1]).integers(0, len(picks), count)]]
    return np.where(fixed, named, rows).astype(np.float32)


def draw(
    model: Model,
    count: int,
    *,
    seed: int = 0,
    condition: np.ndarray | None = None,
    scale: float = 1.0,
    solver: Solver | None = None,
    steps: int = STEPS,
) -> np.ndarray:
    """Draw encoded samples.

    Args:
        model: the opened run.
        count: how many.
        seed: the same seed gives the same samples.
        condition: condition vectors [count, c]; ignored when the model has none.
        scale: classifier-free guidance.
        solver: adaptive by default for images; tables have a method of their own, which compiles in a third of the
            time.
        steps: of that.

    Returns:
        float32 [count, ...].

    Raises:
        UserError: a table's samples are not finite.
    """
    table = model.joint is not None and solver is None
    transport = model.guided(scale) if scale != 1.0 else model.transport
    key = random_key(seed)
    parts = []
    # Chunks of one size, the last one filled up, so that one compiled program serves them all.
    size = min(count, _ROWS_AT_ONCE)
    for number, start in enumerate(range(0, count, size)):
        chunk = None if condition is None else filled(condition[start : start + size], size)
        args, part_key = model.arguments(chunk), jax.random.fold_in(key, number)
        if table:
            assert args is not None  # the states of its cells are in them
            y = np.asarray(drawn_values(transport, args, jnp.asarray(steps), part_key))
            # A fixed number of steps does not give up by itself.
            if not np.isfinite(y).all():
                raise UserError("the samples cannot be followed from the prior: the run's weights are no good")
        else:
            y = np.asarray(transport.sample(size, key=part_key, args=args, solver=solver or _IMAGES))
        parts.append(y[: count - start])
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Samples:
    """New rows, and what to know of them.

    Attributes:
        frame: in the table's own columns, types and ranges.
        y: the encoded samples they were decoded from.
        condition: their condition vectors.
        notices: one line each.
    """

    frame: pl.DataFrame
    y: np.ndarray
    condition: np.ndarray
    notices: tuple[str, ...] = ()
