"""The bank of tables: every method on every table at every seed, each cell in processes of its own.

``python -m benchmarks.tables --peer-python PATH`` (``make bank``) runs what does not stand in ``tables.csv`` yet, or stands there by
other code of ours or another version of a peer. A row is added as its cell ends, so that what is killed and started again loses one
cell; then the tables of what stands are printed, and put into ``benchmarks/README.md`` and, in short, into the guide. ``--write``
does that alone.

A cell is a table split by a seed (``_tables``), a method that reads the training rows and writes rows of its own, or fills the
holes of the held-out rows (``_table_ours``, ``_table_peers``, ``_table_imputers``, ``_table_density``), and the figures of what
it wrote (``_table_figures``), which are the same code for all.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ._tables import TABLES

FILE = Path(__file__).with_suffix(".csv")
ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
CAP = 1800  # CPU seconds of one process
OURS = "nablax"
CHAMBERS = ("_ask", "_data", "_kinds", "_model", "_runs")


class Method(NamedTuple):
    """How a cell is run.

    Attributes:
        module: of this folder.
        package: that is measured, for its version; none for code of this repository.
        wave: cells of a lower one are run first.
    """

    module: str
    package: str = ""
    wave: int = 0


METHODS = {
    OURS: Method("_table_ours"),
    "arf": Method("_table_peers", "arfpy"),
    "copula": Method("_table_peers", "sdv"),
    "mixture": Method("_table_density"),
    "neighbours": Method("_table_imputers", "scikit-learn"),
    "chained ridge": Method("_table_imputers", "scikit-learn"),
    "chained forests": Method("_table_imputers", "scikit-learn", 1),
    "miceforest": Method("_table_imputers", "miceforest", 1),
    "tvae": Method("_table_peers", "sdv", 2),
    "ctgan": Method("_table_peers", "sdv", 2),
    "forest diffusion": Method("_table_peers", "ForestDiffusion", 3),
}
FIGURES = [
    "draw_cpu",
    "fill_cpu",
    "nats",
    "nats_error",
    "auc",
    "auc_error",
    "utility_gap",
    "distance",
    "correlation_error",
    "atoms",
    "atoms_off",
    "tails",
    "tails_off",
    "copies",
    "nrmse",
    "accuracy",
    "crps",
    "coverage_80",
    "coverage_90",
    "numbers",
    "categories",
]
NAMES = ["table", "seed", "method", "code", "outcome", *FIGURES]
Cell = tuple[str, int, str]


def code_of_ours() -> str:
    """A digest of the code that learns, draws, scores and completes: the door's chambers but for its reports."""
    digest = hashlib.sha256()
    folder = ROOT / "src/nablax/app"
    for file in sorted(file for chamber in CHAMBERS for file in (folder / chamber).rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def versions(peer_python: str) -> dict[str, str]:
    """Of each method that can be run: its package's in the peers' environment, our code's digest."""
    packages = sorted({m.package for m in METHODS.values() if m.package})
    program = (
        "import importlib.metadata as m, importlib.util as u, json, sys\n"
        "def version(n):\n"
        "    try: return m.version(n)\n"
        "    except m.PackageNotFoundError: return ''\n"
        "print(json.dumps({n: version(n) for n in sys.argv[1:]} | {'torch': u.find_spec('torch') is not None}))"
    )
    done = subprocess.run([peer_python, "-c", program, *packages], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    known = {}
    for name, method in METHODS.items():
        if name in ("tvae", "ctgan") and not found["torch"]:
            continue
        if not method.package:
            known[name] = code_of_ours()
        elif found[method.package]:
            known[name] = f"{method.package} {found[method.package]}"
    return known


def stored(file: Path = FILE) -> dict[Cell, dict[str, str]]:
    """The last row of each cell; what a kill has left of one is none."""
    if not file.exists():
        return {}
    whole = file.read_text(encoding="utf-8").split("\n")[1:-1]
    rows = [dict(zip(NAMES, row, strict=True)) for row in csv.reader(whole)]
    return {(row["table"], int(row["seed"]), row["method"]): row for row in rows}


def append(row: dict, file: Path = FILE) -> None:
    """Add a row in one write, in place of what a kill has left of another."""
    if not file.exists():
        file.write_text(",".join(NAMES) + "\n", encoding="utf-8")
    text = file.read_bytes()
    if not text.endswith(b"\n"):
        os.truncate(file, text.rfind(b"\n") + 1)
    cells = []
    for name in NAMES:
        value = row.get(name, "")
        cells.append(f"{value:.5g}" if isinstance(value, float) else str(value).replace(",", ";").replace("\n", " "))
    with file.open("ab") as opened:
        opened.write((",".join(cells) + "\n").encode())
        opened.flush()
        os.fsync(opened.fileno())


def cells(known: dict[str, str], seeds: tuple[int, ...] = SEEDS) -> list[Cell]:
    """Every cell that can be run, those that tell most first."""
    order = {name: k for k, name in enumerate(TABLES)}
    every = [(table, seed, method) for method in known for seed in seeds for table in TABLES]
    return sorted(every, key=lambda c: (METHODS[c[2]].wave, c[1], order[c[0]], list(METHODS).index(c[2])))


def run(cell: Cell, peer_python: str, home: Path, cap: int = CAP) -> dict:
    """One cell from its table to its figures.

    Args:
        cell: table, seed and method.
        peer_python: interpreter in which the peers are installed.
        home: folder where tables are kept between cells.
        cap: CPU seconds of a process.

    Returns:
        The row without the version of its code; "outcome" is "done", or why it is not.
    """
    table, seed, name = cell
    method = METHODS[name]
    python = peer_python if method.package else sys.executable
    row = {"table": table, "seed": seed, "method": name}
    split = home / f"{table} {seed}"
    with tempfile.TemporaryDirectory(dir=home) as folder:
        try:
            if not split.exists():
                made = Path(folder) / "split"
                made.mkdir()
                _process(peer_python, "_tables", table, str(seed), str(made), cap=cap)
                made.rename(split)
            shutil.copytree(split, folder, dirs_exist_ok=True)
            said = _process(python, method.module, name, folder, str(seed), cap=cap)
            row |= said | _process(sys.executable, "_table_figures", folder, TABLES[table].target, str(seed), cap=cap)
        except Stopped as stopped:
            return {**row, "outcome": str(stopped)}
    return {**row, "outcome": "done" if "draw_cpu" in row or "fill_cpu" in row else "not for this table"}


class Stopped(Exception):
    """Why a process gave no result."""


def _process(python: str, module: str, *words: str, cap: int) -> dict:
    """What a module of this folder has said in its last line, in a process of one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    environment = {**os.environ, **one, "XLA_FLAGS": flags.strip(), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return capped([python, "-m", f"benchmarks.{module}", *words], environment, cap)


def capped(command: list[str], environment: dict[str, str], cap: int) -> dict:
    """Run a command of at most so many CPU seconds, and read the result that it prints.

    Raises:
        Stopped: it was ended at the limit, or printed none.
    """
    # The shell sets the limit: Python code between fork and exec is not safe beside JAX's threads.
    limited = ["sh", "-c", 'ulimit -t "$0" && exec "$@"', str(cap), *command]
    done = subprocess.run(limited, capture_output=True, text=True, cwd=ROOT, env=environment)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Stopped(f"over {cap} CPU s")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise Stopped(f"stopped: {last[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter in which the peers are installed")
    parser.add_argument("--table", action="append", choices=TABLES, help="these alone; repeat")
    parser.add_argument("--method", action="append", choices=METHODS, help="these alone; repeat")
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS, help="these alone; repeat")
    parser.add_argument("--cap", type=int, default=CAP, help="CPU seconds of a process")
    parser.add_argument("--write", action="store_true", help="run nothing, write the tables of the README")
    options = parser.parse_args()
    from . import _table_report

    if options.write:
        print(_table_report.write())
        return 0
    known = versions(options.peer_python)
    for name in METHODS:
        if name not in known:
            print(f"{name}: not installed in the peers' environment, left out", file=sys.stderr)
    asked = [
        c
        for c in cells(known)
        if c[0] in (options.table or TABLES) and c[1] in (options.seed or SEEDS) and c[2] in (options.method or METHODS)
    ]
    there = stored()
    left = [c for c in asked if c not in there or there[c]["code"] != known[c[2]]]
    print(f"{len(asked) - len(left)} of {len(asked)} cells stand", file=sys.stderr)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="nablax_bank_") as home:
        for number, cell in enumerate(left, start=1):
            row = run(cell, options.peer_python, Path(home), options.cap)
            append({**row, "code": known[cell[2]]})
            passed = time.perf_counter() - begin
            rest = passed / number * (len(left) - number)
            print(
                f"{number}/{len(left)} {cell[0]}, seed {cell[1]}, {cell[2]}: {row['outcome']}; "
                f"{passed / 60:.0f} min passed, about {rest / 60:.0f} left",
                file=sys.stderr,
                flush=True,
            )
    print(_table_report.write())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
