"""``python -m benchmarks [NAME ...] [--peer-python PATH] [--rounds N] [--write]``.

Each benchmark is a module of this folder with ``TITLE``, ``PEER``, ``UNIT``, ``TARGET`` (ratio that is asked for), ``BETTER`` ("higher" or
"lower"), the two sides ``ours(folder)`` and ``peer(folder)``, and ``prepare(folder)`` where they read what is made once. A side returns
a dict with "values" (one measurement each, warm), "compile" (seconds before the first result) and "accuracy" (what was reached, in words).
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
START, END = "<!-- results -->", "<!-- end of results -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    # What has a title is a row of the table; the banks are programs of their own.
    known = sorted(file.stem for file in HERE.glob("[!_]*.py") if "\nTITLE = " in file.read_text(encoding="utf-8"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(known)}")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter in which the peers are installed")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs, in turn")
    parser.add_argument("--write", action="store_true", help="write the rows into benchmarks/README.md")
    parser.add_argument("--side", choices=("prepare", "ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        module = importlib.import_module(f"benchmarks.{options.names[0]}")
        print("RESULT " + json.dumps(getattr(module, options.side)(Path(options.folder))))
        return 0
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    rows = {}
    for name in options.names or known:
        rows[name] = measure(name, options.peer_python, options.rounds)
        print(rows[name], flush=True)
    if options.write:
        write(rows)
    return 0


def measure(name: str, peer_python: str, rounds: int) -> str:
    """Run both sides in turn and make the table's row."""
    module = importlib.import_module(f"benchmarks.{name}")
    sides: dict[str, list[dict]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        if hasattr(module, "prepare"):
            _run(sys.executable, name, "prepare", folder)
        for _ in range(rounds):
            sides["ours"].append(_run(sys.executable, name, "ours", folder))
            sides["peer"].append(_run(peer_python, name, "peer", folder))
    value = {side: [v for run in runs for v in run["values"]] for side, runs in sides.items()}
    middle = {side: statistics.median(values) for side, values in value.items()}
    each = [statistics.median(run["values"]) for run in sides["ours"]]
    other = [statistics.median(run["values"]) for run in sides["peer"]]
    higher = module.BETTER == "higher"
    ratios = [a / b if higher else b / a for a, b in zip(each, other)]
    ratio = middle["ours"] / middle["peer"] if higher else middle["peer"] / middle["ours"]
    compiled = {side: statistics.median(run["compile"] for run in runs) for side, runs in sides.items()}
    cells = (
        module.TITLE,
        module.PEER,
        f"{middle['ours']:.4g} {module.UNIT}",
        f"{middle['peer']:.4g} {module.UNIT}",
        f"{ratio:.2f}× ({min(ratios):.2f}–{max(ratios):.2f})",
        module.TARGET,
        f"{compiled['ours']:.1f} s, {compiled['peer']:.1f} s",
        f"{sides['ours'][-1]['accuracy']}; peer: {sides['peer'][-1]['accuracy']}",
    )
    return "| " + " | ".join(cells) + " |"


def _run(python: str, name: str, side: str, folder: str) -> dict:
    command = [python, "-m", "benchmarks", name, "--side", side, "--folder", folder]
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE.parent / 'src'}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=environment)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT ")) or {}
    raise SystemExit(f"{name}, {side}, stopped:\n{done.stdout}\n{done.stderr}")


def write(rows: dict[str, str]) -> None:
    """Put rows into the table of the README, in place of those of the same benchmark."""
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    table, after = rest.split(END)
    kept = {line.split("|")[1].strip(): line for line in table.strip().splitlines()[2:] if line.startswith("|")}
    for name, row in rows.items():
        kept[importlib.import_module(f"benchmarks.{name}").TITLE] = row
    head = [
        "| work | peer | ours | peer | ratio (range over rounds) | asked | before the first result: ours, peer | reached |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    page.write_text(before + START + "\n" + "\n".join([*head, *kept.values()]) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
