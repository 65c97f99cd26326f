"""Exact log-likelihood of 2 000 points in 64 dimensions."""

from pathlib import Path

from . import likelihood_2d
from .likelihood_2d import BETTER, PEER, TARGET, UNIT

TITLE = "exact log-likelihood of 2k points, 64-D"


def prepare(folder: Path) -> dict:
    return likelihood_2d.prepare(folder, 64)


def ours(folder: Path) -> dict:
    return likelihood_2d.ours(folder, 64)


def peer(folder: Path) -> dict:
    return likelihood_2d.peer(folder, 64, repeats=1)


__all__ = ["BETTER", "PEER", "TARGET", "TITLE", "UNIT", "ours", "peer", "prepare"]
