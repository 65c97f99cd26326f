"""``nablax learn`` killed at random instants, gone on with, and held against a run that nothing interrupted: bit for bit.

``python -m benchmarks.interruptions [--times 100]`` takes an hour on two busy cores, and so is run by hand. Each time a run
begins anew, is ended by SIGINT, SIGTERM or SIGKILL in turn, once or twice, at instants drawn over the time that a whole run takes,
and is called again until it ends. Compared are the configuration, the weights, the curves and the outcome of training; nothing
half-written may be left. The cost of training, which differs, has to be one number that counts every part.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

KEPT = ("config.json", "weights.safetensors", "metrics.csv", "metrics_states.csv", "training.json")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
FLAGS = ("--steps", "120", "--width", "16", "--depth", "1", "--batch-size", "64", "--checkpoint-every", "10")
_AGAIN = 20  # calls after which a run that does not end is a fault


def table(path: Path) -> None:
    """Rows with a category, an atom, missing cells and two numbers that hang together."""
    generator = np.random.default_rng(0)
    x, kind = generator.normal(size=300), generator.integers(0, 3, 300)
    y = x + 0.3 * generator.normal(size=300) + kind
    visits = np.where(generator.random(300) < 0.4, 0, generator.poisson(9, 300))
    lines = [
        f"{'abc'[k]},{a:.3f},{'' if generator.random() < 0.05 else f'{b:.2f}'},{v}"
        for k, a, b, v in zip(kind, x, y, visits, strict=True)
    ]
    path.write_text("kind,x,y,visits\n" + "\n".join(lines) + "\n")


def start(data: Path, run: Path, cache: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "nablax", "learn", str(data), "--out", str(run), "--report", "none", *FLAGS]
    environment = {**os.environ, "NABLAX_CACHE": str(cache)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def interrupted(data: Path, run: Path, cache: Path, number: int, duration: float, chance: random.Random) -> str:
    """Interrupt one run, let it end, and say where it was hit.

    Raises:
        SystemExit: it fails, or does not end.
    """
    hits = []
    for again in range(_AGAIN):
        process = start(data, run, cache)
        which = SIGNALS[number % len(SIGNALS)]
        if again < chance.choice((1, 2)):
            try:
                process.communicate(timeout=chance.uniform(0.02, 1.0) * duration)
            except subprocess.TimeoutExpired:
                hits.append(f"{which.name} {_where(run)}")
                process.send_signal(which)
        said, _ = process.communicate()
        if process.returncode == 0:
            return ", then ".join(hits) or "too late"
        if not hits or "Traceback" in said:
            raise SystemExit(f"time {number}, after {hits}: exit code {process.returncode}\n{said}")
    raise SystemExit(f"time {number}: not at its end after {_AGAIN} calls")


def _where(run: Path) -> str:
    """How far a run has come, by what is in its folder."""
    if not (run / "config.json").exists():
        return "before its configuration"
    if (run / "weights.safetensors").exists():
        return "after its weights"
    parts = [name for name in ("values", "states") if (run / "checkpoints" / name).exists()]
    return f"in its {parts[0]}" if parts else "before its first checkpoint"


def differences(run: Path, whole: Path) -> list[str]:
    """What is not as in the run that nothing interrupted."""
    off = [name for name in KEPT if (run / name).read_bytes() != (whole / name).read_bytes()]
    off += [str(left.relative_to(run)) for left in run.rglob("*.part")]
    seconds = json.loads((run / "cost.json").read_text())["training_cpu_seconds"]
    return off if seconds > 0 else [*off, "cost.json"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interruptions", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="runs that are interrupted")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    options = parser.parse_args()
    chance, hits, begin = random.Random(options.seed), Counter(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nablax_interruptions_") as home:
        folder = Path(home)
        data, whole, cache = folder / "table.csv", folder / "whole", folder / "cache"
        table(data)
        start(data, whole, cache).communicate()
        shutil.move(whole, folder / "first")
        clock = time.monotonic()  # the first run compiles
        said, _ = start(data, whole, cache).communicate()
        duration = time.monotonic() - clock
        if found := differences(whole, folder / "first"):
            raise SystemExit(f"two runs that nothing interrupted differ in {found}\n{said}")
        for number in range(options.times):
            run = folder / f"run {number}"
            hit = interrupted(data, run, cache, number, duration, chance)
            if found := differences(run, whole):
                raise SystemExit(f"time {number}, {hit}: other {', '.join(found)}")
            hits[hit.split(", then ")[0]] += 1
            shutil.rmtree(run)
            print(f"{number + 1}/{options.times} the same ({hit}); {time.monotonic() - begin:.0f} s", flush=True)
    for hit, count in sorted(hits.items()):
        print(f"{count:4} {hit}")
    print(f"{options.times} of {options.times} runs end as if nothing had happened")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
