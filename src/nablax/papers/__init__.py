"""Paper → claim that runs.

A folder for the papers of each room, and:

- ``_problems``: what several papers are tried on, the loop that trains, and the tuning that is fair to baselines.
"""

from ._catalogue import available
from ._contrast import Contrast, Curve
from ._evidence import Evidence, recorded, stale
from ._pictures import draw
from ._records import Check, Paper
from ._runner import Outcome, run, run_all

__all__ = [
    "Check",
    "Contrast",
    "Curve",
    "Evidence",
    "Outcome",
    "Paper",
    "available",
    "draw",
    "recorded",
    "run",
    "run_all",
    "stale",
]
