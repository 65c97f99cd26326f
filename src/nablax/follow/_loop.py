"""The host's half of the training loop: what happens between the calls of the compiled half."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core import named_arrays
from ._checkpoint import Checkpoints, Saved
from ._devices import agree, local
from ._progress import Pace, Progress, Record
from ._source import Prefetch, Resident
from ._train import (
    LONGEST_CHUNK,
    Setup,
    State,
    advance,
    validate,
)
from ._watched import Watching


class Schedule(NamedTuple):
    """When to do what, in steps."""

    steps: int
    validate_every: int
    patience: int | None


class Kept(NamedTuple):
    """Where the state is kept, and what is written beside it."""

    checkpoints: Checkpoints
    settings: dict[str, Any]


def run(
    setup: Setup,
    state: State,
    record: Record,
    source: Resident | Prefetch,
    validation: PyTree | None,
    schedule: Schedule,
    kept: Kept | None,
    progress: Callable[[Progress], None] | None,
    watch: Watching | None = None,
) -> tuple[State, str]:
    """Train until the last step, the end of patience, or a step that is not finite.

    The boundaries between calls of `advance` follow the clock, except that one lies at each validation and at each step
    that is watched; no number depends on them.

    Args:
        setup: what does not change.
        state: where to start, donated.
        record: the history up to there; grows.
        source: of the batches; closed at the end.
        validation: rows on the device.
        schedule: when to do what.
        kept: where to keep the state.
        progress: is told.
        watch: looks at some steps before they are made.

    Returns:
        The last finite state and the result.
    """
    steps, every, patience = schedule
    pace = Pace(steps, LONGEST_CHUNK)
    result = ""
    try:
        while not result:
            block = source.block(record.step)
            stop = min(record.step + int(agree(pace.count)), block.stop)
            if validation is not None:
                stop = min(stop, (record.step // every + 1) * every)
            if kept is not None:
                stop = min(stop, kept.checkpoints.next(record.step) or stop)
            first = None if block.first is None else jnp.int32(block.first)
            if watch is not None:
                stop = min(stop, watch.next(record.step))
                state, result = watch.told(setup, state, block.data, first, record.step)
            if not result:
                start = time.monotonic()
                state, rows, finite = advance((setup, block.data, first, jnp.int32(stop)), state)
                taken = int(local(state.step)) - record.step
                pace.called(taken, time.monotonic() - start)
                record.add(jax.tree.map(np.asarray, local(rows)), taken)
                if not bool(local(finite)):
                    result = "diverged"
                elif validation is not None and (record.step % every == 0 or record.step == steps):
                    state, means = validate((setup, validation), state)
                    record.validated(jax.tree.map(np.asarray, local(means)))
                    stale = record.step // every - int(local(state.best_step)) // every
                    if patience is not None and stale >= patience:
                        result = "stopped early"
            if not result and record.step == steps:
                result = "completed"
            if progress is not None and (report := pace.report(record, last=bool(result))) is not None:
                progress(report)
            if kept is not None and (result or kept.checkpoints.due(record.step)):
                arrays = {**named_arrays(local(state)), **record.arrays()}
                kept.checkpoints.write(Saved(record.step, result, arrays, kept.settings))
    finally:
        source.close()
    return state, result
