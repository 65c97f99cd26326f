"""CPU seconds: what training and report took, and whether the report may take more."""

import time

from .._runs._meter import training_seconds
from .._runs._run import Run

_SHARE = 0.5  # of training's CPU seconds that a report may take
_LEAST = 12.0  # that it may take however short training was: without likelihoods there is no verdict


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
        return self.training is None or self.spent + seconds <= max(_LEAST, _SHARE * self.training)


__all__ = ["Allowance"]
