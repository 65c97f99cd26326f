"""What has been measured so far, how far training is, and how long a call of the compiled loop should be."""

import time
from collections import deque
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

_CALL_SECONDS = 0.25
_REPORT_SECONDS = 0.1


class History(eqx.Module):
    """What was measured during training, one row for each step.

    Attributes:
        step: number of steps done, 1, 2, …
        loss: training loss of the batch before the step's update, in the unit of the loss.
        validation: mean loss over the validation rows after the step; NaN where it was not measured.
    """

    step: Int[np.ndarray, " steps"]
    loss: Float[np.ndarray, " steps"]
    validation: Float[np.ndarray, " steps"]


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

    def __init__(self, steps: int, dtype: np.dtype) -> None:
        self._loss = np.zeros(steps, dtype)
        self._validation = np.full(steps, np.nan, dtype)
        self._reported = 0
        self.step = 0
        self.newest: float | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` needs, by name."""
        return {"history.loss": self._loss[: self.step], "history.validation": self._validation[: self.step]}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from an earlier history; takes its arrays out of ``arrays``."""
        loss, validation = arrays.pop("history.loss"), arrays.pop("history.validation")
        self.step = self._reported = len(loss)
        self._loss[: self.step], self._validation[: self.step] = loss, validation
        measured = validation[np.isfinite(validation)]
        self.newest = float(measured[-1]) if len(measured) else None

    def add(self, losses: np.ndarray) -> None:
        """Append the losses of the steps just done."""
        self._loss[self.step : self.step + len(losses)] = losses
        self.step += len(losses)

    def validated(self, mean: np.ndarray) -> None:
        """Note the validation loss after the newest step."""
        self._validation[self.step - 1] = mean
        self.newest = float(mean)

    def recent(self) -> float:
        """Mean loss since the last call of this method."""
        losses = self._loss[self._reported : self.step]
        self._reported = self.step
        return float(losses.mean()) if len(losses) else float("nan")

    def history(self) -> History:
        """Copies of what there is."""
        step = np.arange(1, self.step + 1)
        return History(step, self._loss[: self.step].copy(), self._validation[: self.step].copy())


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
