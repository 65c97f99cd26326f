"""What has been measured so far, how far training is, and how long a call of the compiled loop should be."""

import time
from collections import deque
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from .._core import AbstractRecord, fault

_CALL_SECONDS = 0.25
_REPORT_SECONDS = 0.1


class History(AbstractRecord):
    """What was measured during training, one row for each step; in single precision at least.

    Attributes:
        step: number of steps done, 1, 2, …
        loss: training loss of the batch before the step's update, in the unit of the loss; ``[steps, K]`` where the
            loss returns K.
        validation: mean loss over the validation rows after the step; NaN where it was not measured.
        metrics: what the loss returned beside it, by name.
        validation_metrics: their means over the validation rows, by name; NaN where they were not measured.
    """

    step: Int[np.ndarray, " steps"]
    loss: Float[np.ndarray, "steps ..."]
    validation: Float[np.ndarray, "steps ..."]
    metrics: dict[str, Float[np.ndarray, " steps"]]
    validation_metrics: dict[str, Float[np.ndarray, " steps"]]


class Progress(NamedTuple):
    """What `fit` tells its ``progress`` callback, a few times a second.

    Attributes:
        step: number of steps done.
        steps: number of steps asked for.
        loss: mean training loss over the steps since the last report, in the unit of the loss.
        validation: the newest validation loss, or None.
        steps_per_second: rate over the last seconds, validation included, the first compilation left out; NaN
            before it is known.
        seconds_left: time to the last step at that rate; NaN before it is known.
    """

    step: int
    steps: int
    loss: float
    validation: float | None
    steps_per_second: float
    seconds_left: float


class Record:
    """The history while it grows.

    Attributes:
        step: number of steps done.
        newest: the newest validation loss, or None.
    """

    def __init__(self, steps: int, measured: PyTree) -> None:
        self._training = _Table("history.loss", "history.metrics", steps, measured, 0)
        self._validation = _Table("history.validation", "history.validation_metrics", steps, measured, np.nan)
        self._reported = 0
        self.step = 0
        self.newest: float | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` needs, by name."""
        both = self._training.columns | self._validation.columns
        return {name: column[: self.step] for name, column in both.items()}

    def restore(self, arrays: dict[str, np.ndarray], *, fix: str) -> None:
        """Go on from an earlier history; takes its arrays out of ``arrays``."""
        for columns in (self._training.columns, self._validation.columns):
            for name, column in columns.items():
                if name not in arrays or arrays[name].shape[1:] != column.shape[1:]:
                    raise fault(expected=f"a checkpoint with {name}", got=sorted(arrays), fix=fix)
                earlier = arrays.pop(name)
                self.step = self._reported = len(earlier)
                column[: self.step] = earlier
        losses = self._validation.loss[: self.step].reshape(self.step, -1).mean(axis=1)
        finite = losses[np.isfinite(losses)]
        self.newest = float(finite[-1]) if len(finite) else None

    def add(self, rows: PyTree, count: int) -> None:
        """Append the first ``count`` rows: what the steps just done measured."""
        self._training.put(slice(self.step, self.step + count), jax.tree.map(lambda column: column[:count], rows))
        self.step += count

    def validated(self, means: PyTree) -> None:
        """Note what was measured on the validation rows after the newest step."""
        self._validation.put(self.step - 1, means)
        self.newest = float(np.mean(means[0]))

    def recent(self) -> float:
        """Mean loss since the last call of this method."""
        losses = self._training.loss[self._reported : self.step]
        self._reported = self.step
        return float(losses.mean()) if len(losses) else float("nan")

    def history(self) -> History:
        """Copies of what there is."""
        step = np.arange(1, self.step + 1)
        (loss, metrics), (validation, others) = (t.until(self.step) for t in (self._training, self._validation))
        return History(step, loss, validation, metrics, others)


class _Table:
    """Columns of numbers, a row for each step: the loss and the metrics."""

    def __init__(self, loss: str, metrics: str, steps: int, measured: PyTree, empty: float) -> None:
        self._names = loss, {name: f"{metrics}.{name}" for name in measured[1]}
        flat = jax.tree.leaves(self._names)
        likes = jax.tree.leaves(measured)
        self.columns = {name: np.full((steps, *x.shape), empty, x.dtype) for name, x in zip(flat, likes, strict=True)}
        self.loss = self.columns[loss]

    def put(self, at: int | slice, rows: PyTree) -> None:
        for name, row in zip(jax.tree.leaves(self._names), jax.tree.leaves(rows), strict=True):
            self.columns[name][at] = row

    def until(self, step: int) -> PyTree:
        return jax.tree.map(lambda name: self.columns[name][:step].copy(), self._names)


class Pace:
    """Chooses the number of steps in a call so that it takes a quarter of a second; results do not depend on it."""

    def __init__(self, steps: int, longest: int) -> None:
        self.count = 1
        self._steps, self._longest = steps, longest
        self._warm = False
        self._marks: deque[tuple[float, int]] = deque(maxlen=64)

    def called(self, taken: int, seconds: float) -> None:
        """Take note of a call that did ``taken`` steps in ``seconds``."""
        if not self._warm:
            # It was compiled as well: its time says nothing.
            self._warm, self.count = True, 8
            return
        wanted = int(taken * _CALL_SECONDS / max(seconds, 1e-9))
        self.count = max(1, min(wanted, 8 * self.count, self._longest))

    def report(self, record: Record, *, last: bool) -> Progress | None:
        """The next report, or None when there was one a moment ago and this is not the last."""
        now = time.monotonic()
        if self._marks and now - self._marks[-1][0] < _REPORT_SECONDS and not last:
            return None
        self._marks.append((now, record.step))
        # The first mark comes after the first call, so compilation is left out.
        (then, before), rate = self._marks[0], float("nan")
        if record.step > before and now > then:
            rate = (record.step - before) / (now - then)
        left = (self._steps - record.step) / rate
        return Progress(record.step, self._steps, record.recent(), record.newest, rate, left)
