"""Processor seconds of ``nablax learn`` on small tables, report and all, with no compiled program kept.

The peer needs a NumPy that still has ``in1d``: an environment of its own (``--peer-python``).
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

TITLE = "`nablax learn` of 150 to 569 rows, report included, the whole process"
PEER = "arfpy 0.1.1, adversarial random forest: fit, density and as many samples"
UNIT = "CPU s"
TARGET = "at most 30 CPU s"
BETTER = "lower"
TABLES = ("iris", "wine", "breast_cancer")  # of scikit-learn: 150 × 5, 178 × 14, and 569 × 10
MOST = 10  # columns of each, and the label


def prepare(folder: Path) -> dict:
    import polars as pl
    from sklearn import datasets

    for name in TABLES:
        found = getattr(datasets, f"load_{name}")()
        names = [str(column).replace(" ", "_") for column in found.feature_names][:MOST]
        label = pl.Series("label", [str(found.target_names[code]) for code in found.target])
        pl.DataFrame(found.data[:, :MOST], schema=names).with_columns(label).write_csv(folder / f"{name}.csv")
    return {}


def ours(folder: Path) -> dict:
    import shutil

    values, said = [], []
    for name in TABLES:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        seconds = {}
        for call in ("cold", "warm"):  # programs that another run of the same table has left
            shutil.rmtree(folder / name, ignore_errors=True)
            command = [
                sys.executable,
                "-m",
                "nablax",
                "learn",
                str(folder / f"{name}.csv"),
                "--out",
                str(folder / name),
            ]
            before = _cpu()
            subprocess.run(
                command, check=True, capture_output=True, env={**os.environ, "NABLAX_CACHE": str(folder / "cache")}
            )
            seconds[call] = _cpu() - before
        training = json.loads((folder / name / "cost.json").read_text())["training_cpu_seconds"]
        values.append(seconds["cold"])
        said.append(f"{name} {seconds['cold']:.1f} (training {training:.1f} of the second's {seconds['warm']:.1f})")
    return {"values": values, "compile": 0.0, "accuracy": "; ".join(said)}


def peer(folder: Path) -> dict:
    import time

    import pandas
    from arfpy import arf

    values, said = [], []
    for name in TABLES:
        frame = pandas.read_csv(folder / f"{name}.csv").astype({"label": object})  # what it knows text by
        before = time.process_time()
        forest = arf.arf(x=frame)
        forest.forde()
        forest.forge(n=1000)
        values.append(time.process_time() - before)
        said.append(f"{name} {values[-1]:.1f}")
    return {"values": values, "compile": 0.0, "accuracy": "; ".join(said)}


def _cpu() -> float:
    """Processor seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
