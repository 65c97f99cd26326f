"""10 000 samples by an adaptive solver: every sample controls its own step."""

from pathlib import Path

from . import adaptive_sampling
from .adaptive_sampling import BETTER, PEER, UNIT, peer, prepare

TITLE = "the same, every sample controls its own step"
TARGET = "1×"


def ours(folder: Path) -> dict:
    return adaptive_sampling.ours(folder, per_sample=True)


__all__ = ["BETTER", "PEER", "TARGET", "TITLE", "UNIT", "ours", "peer", "prepare"]
