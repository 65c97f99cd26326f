"""Where the numbers of check-ups go: TensorBoard, Weights & Biases, a CSV file or a function, without needing any."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..._core import described, fault

Log = Callable[[int, dict[str, float]], None]


def log_to(writer: Any) -> Log:
    """What writes a step's numbers to a writer, told by what it can do.

    Raises:
        ValueError: it can do nothing of the kind.
    """
    if isinstance(writer, (str, Path)):
        return _CSV(Path(writer)).write
    if callable(getattr(writer, "add_scalar", None)):  # SummaryWriter of TensorBoard, whichever package it is from

        def scalars(step: int, numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)

        return scalars
    if callable(getattr(writer, "log", None)):  # a run, or the module, of Weights & Biases
        return lambda step, numbers: writer.log(numbers, step=step)
    if callable(writer):
        return lambda step, numbers: writer(step, numbers)
    raise fault(
        expected="a path, a writer with add_scalar or log, or a function of step and numbers",
        got=described(writer),
        fix="Pass 'checkups.csv', for one.",
    )


class _CSV:
    """A table with a line for each step, written anew each time: a later check-up may measure more than the first.

    Of a file that is there lines of earlier steps stay, as of the part of a run before it was resumed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []
        if not path.exists() or not path.stat().st_size:
            return
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            lines = list(table)
        if (table.fieldnames or [""])[0] != "step" or not all(line["step"].isdigit() for line in lines):
            raise fault(
                expected="a new path, or a CSV file of check-ups",
                got=f"{path}, which is something else",
                fix="Choose another name: it would be overwritten.",
            )
        self._lines = lines

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._lines = [line for line in self._lines if int(line["step"]) < step]
        self._lines.append({"step": step, **numbers})
        names = list(dict.fromkeys(name for line in self._lines for name in line))
        with self._path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(self._lines)
