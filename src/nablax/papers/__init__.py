"""Paper → claim that runs."""

from ._records import Check, Outcome, Paper
from ._runner import (
    available,
    record,
    recorded,
    run,
    run_all,
)

__all__ = ["Check", "Outcome", "Paper", "available", "record", "recorded", "run", "run_all"]
