"""CPU seconds of training, over all the parts of a run that was interrupted."""

import contextlib
import json
import time
from collections.abc import Iterator

from ._run import Run

FILE = "cost.json"
_EVERY = 10.0  # CPU seconds after which what is spent is written down: so much of a killed part may go uncounted


class Meter:
    """What the training of a run has cost so far.

    Earlier parts count where their work is gone on from, that is where they have left checkpoints.

    Args:
        run: its folder.
        writes: whether this process is the one that writes there.
    """

    def __init__(self, run: Run, *, writes: bool):
        self._run, self._writes = run, writes
        self._start = self._kept = time.process_time()
        self._before = (training_seconds(run) or 0.0) if run.checkpoints.exists() else 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Write down what is spent in the end, and where something stops it."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk has stopped it: that is to be said
                self.keep()
            raise
        self.keep()

    def tick(self) -> None:
        """Write down what is spent, now and then."""
        if time.process_time() - self._kept > _EVERY:
            self.keep()

    def keep(self) -> None:
        """Write down what is spent."""
        self._kept = time.process_time()
        if self._writes:
            spent = self._before + self._kept - self._start
            self._run.write(FILE, json.dumps({"training_cpu_seconds": spent}) + "\n")


def training_seconds(run: Run) -> float | None:
    """CPU seconds that the run's training took; None where nobody measured."""
    try:
        return float(json.loads((run.path / FILE).read_text())["training_cpu_seconds"])
    except (OSError, ValueError, KeyError):
        return None


__all__ = ["Meter", "training_seconds"]
