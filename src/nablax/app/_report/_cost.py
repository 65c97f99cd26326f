"""CPU seconds: what training and report took, and whether the report may take more."""

import json
import time

from .._runs._run import Run

_SHARE = 0.5  # of training's CPU seconds that a report may take
# What it may take however short training was: what a small table's report takes, likelihood and all, is compiling, and
# without a likelihood there is no verdict.
_LEAST = 15.0


class Allowance:
    """What a report may still cost.

    Args:
        run: whose training is the measure; None, or a run whose training was not timed, for no limit.
    """

    def __init__(self, run: Run | None) -> None:
        self._start = time.process_time()
        self.training = None if run is None else training_seconds(run)

    @property
    def spent(self) -> float:
        """CPU seconds since the beginning."""
        return time.process_time() - self._start

    def covers(self, seconds: float) -> bool:
        """Whether so many CPU seconds more are within it."""
        return self.training is None or self.spent + seconds <= max(_SHARE * self.training, _LEAST)


def training_seconds(run: Run) -> float | None:
    """CPU seconds that the run's training took; None where nobody measured."""
    try:
        return float(json.loads((run.path / "cost.json").read_text())["training_cpu_seconds"])
    except (OSError, ValueError, KeyError):
        return None


__all__ = ["Allowance", "training_seconds"]
