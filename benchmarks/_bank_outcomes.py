"""The stored bank: what became of each run, and which half it belongs to. NumPy alone."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).with_name("checkup_bank.csv")
# Of the way from the loss of knowing nothing to that of the best of nine rates a healthy run has gone at least this.
SHARE = 0.5
# Loss over that of knowing nothing from which a run is stuck, and over it or the start from which it has diverged.
STUCK, DIVERGED = 0.95, 2.0
# Share of the loss of knowing nothing that no parameters get below, from which there is nothing to learn.
CANCELLED = 0.9
# Seeds below it were there, and judged earlier rules, before the others were trained.
SEEN = 4
TEXTS = ("model", "optimizer", "schedule")


class Outcome(NamedTuple):
    """Truth values, one a check-up, at one horizon."""

    diverged: np.ndarray
    stuck: np.ndarray
    worse: np.ndarray

    @property
    def fails(self) -> np.ndarray:
        return self.diverged | self.stuck | self.worse


def table(file: Path = FILE) -> dict[str, np.ndarray]:
    """Columns of check-ups, without those that no rule is needed for, or none can be made for.

    That a run whose parameters are not finite fails needs no rule. Where the targets cancel so far that next to nothing
    can be learned, knowing nothing is no failure.
    """
    with file.open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["finite"] == "1"]
    rows = [row for row in rows if float(row["floor"]) < CANCELLED * float(row["chance_loss"])]

    def column(name):
        if name in TEXTS:
            return np.array([row[name] for row in rows])
        return np.array([float(row[name]) if row[name] else np.nan for row in rows])

    return {name: column(name) for name in rows[0]}


def outcome(columns: dict[str, np.ndarray], horizon: int, loss: str = "loss") -> Outcome:
    end, best = columns[f"{loss}_{horizon}"], columns[f"best_{horizon}"]
    floor = columns["floor"]
    end, best, chance, start = (part - floor for part in (end, best, columns["chance_loss"], columns["start_loss"]))
    diverged = ~np.isfinite(end) | (end > DIVERGED * np.maximum(chance, start))
    stuck = ~diverged & (end > STUCK * chance)
    worse = ~diverged & ~stuck & (end > chance - SHARE * (chance - best))
    return Outcome(diverged, stuck, worse)


def making(columns: dict[str, np.ndarray]) -> np.ndarray:
    return columns["seed"] % 2 == 0


def seen(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Which of those that judge had been looked at while earlier rules were made; the others came after them."""
    return ~making(columns) & (columns["seed"] < SEEN)


def area(score: np.ndarray, truth: np.ndarray) -> float:
    """Area under the curve of hits against false alarms: how often a failing run scores above a healthy one."""
    ranks = np.empty(len(score))
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    ones = truth.sum()
    return float((ranks[truth].sum() - ones * (ones + 1) / 2) / (ones * (~truth).sum()))
