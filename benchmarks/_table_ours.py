"""Ours, as a person calls it: ``nablax learn``, ``sample``, ``complete`` and ``score``, with their defaults.

The report is left out, and no rows are held out for it (``--report none --held-out 0``): no peer writes one, or holds rows
out. ``python -m benchmarks._table_ours METHOD FOLDER SEED``.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from ._table_density import numeric, steps
from ._table_figures import measured, numbers
from ._tables import read

DRAWS = 64  # as many as stand behind a cell that ``nablax complete`` fills


def nablax(folder: Path, *words: object) -> None:
    """One command; programs that it compiles are kept for the others of the cell, and for no other cell."""
    command = [sys.executable, "-m", "nablax", *map(str, words)]
    environment = {**os.environ, "NABLAX_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit((done.stderr or done.stdout).strip().splitlines()[-1])


def main() -> None:
    folder, seed = Path(sys.argv[2]), sys.argv[3]
    run, train = folder / "run", read(folder / "train.csv")
    nablax(folder, "learn", folder / "train.csv", "--out", run, "--seed", seed, "--report", "none", "--held-out", 0)
    nablax(folder, "sample", run, "-n", len(train), "--seed", seed, "-o", folder / "samples.csv")
    drawn = cpu()
    said = {"draw_cpu": drawn}
    nablax(folder, "complete", run, folder / "holes.csv", "--seed", seed, "--draws", DRAWS, "-o", folder / "long.csv")
    said["fill_cpu"] = cpu() - drawn
    long, rows = pl.read_csv(folder / "long.csv", infer_schema=False), len(pl.read_csv(folder / "holes.csv"))
    typed = read(folder / "long.csv", train)
    draws = {n: numbers(typed[n]).reshape(DRAWS, rows).T for n in train.columns if measured(train[n])}
    np.savez(folder / "draws.npz", **draws)
    filled(long.select(train.columns), run).write_csv(folder / "filled.csv")
    if numeric(train):
        nablax(folder, "score", run, folder / "held_out.csv", "--seed", seed, "-o", folder / "scores.csv")
        nats = pl.read_csv(folder / "scores.csv")["log_likelihood_nats"].to_numpy() + to_cells(run, folder, train)
        said["nats"], said["nats_error"] = float(nats.mean()), float(nats.std(ddof=1) / math.sqrt(len(nats)))
    print("RESULT " + json.dumps(said))


def filled(long: pl.DataFrame, run: Path) -> pl.DataFrame:
    """What the command fills in when it is not asked for the draws: their mean, or the most frequent cell."""
    from nablax.app import open_run

    codec, rows = open_run(run).table("the bank"), len(long) // DRAWS
    parsed = {name: codec.column(name).parse(long[name])[0] for name in long.columns}
    return pl.DataFrame(
        [codec.column(n).centre([cells[k * rows :][:rows] for k in range(DRAWS)]) for n, cells in parsed.items()]
    )


def to_cells(run: Path, folder: Path, train: pl.DataFrame) -> np.ndarray:
    """What turns densities into the probability of a cell as it is written: log of its width, nothing at an atom."""
    from nablax.app import open_run

    held_out, width = read(folder / "held_out.csv", train), steps(train)
    total = np.zeros(len(held_out))
    for kind in open_run(run).table("the bank").modelled:
        atoms = np.array(getattr(kind, "atoms", ()))
        if hasattr(kind, "scale"):  # a category has probabilities throughout
            total += np.where(np.isin(numbers(held_out[kind.name]), atoms), 0.0, math.log(width[kind.name]))
    return total


def cpu() -> float:
    """Processor seconds of the children that have ended."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
