"""The second call of ``nablax sample`` on the demo's run, beside the same call with no program kept."""

import os
import subprocess
import sys
import time
from pathlib import Path

TITLE = "second `nablax sample RUN -n 64` on the demo's run, the whole process"
PEER = "the same with NABLAX_CACHE=off (ours)"
UNIT = "s"
TARGET = "1.67× of what it took before programs were kept"
BETTER = "lower"
CALLS = 3


def prepare(folder: Path) -> dict:
    """The demo's network and codec; what it has learnt after a few steps is no matter here."""
    from nablax.app._runs._config import Choices
    from nablax.app._runs._learn import configure, learn

    config, opened = configure("digits", condition=("label",), seed=0, choices=Choices(steps=20))
    learn(config, opened, folder / "run", notice=lambda text: None)
    return {}


def _side(folder: Path, cache: str) -> dict:
    """The first call apart, for it fills the cache (and the system's own of files)."""
    command = [sys.executable, "-m", "nablax", "sample", str(folder / "run"), "-n", "64", "-o", str(folder / "new.npz")]
    seconds = []
    for _ in range(1 + CALLS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "NABLAX_CACHE": cache})
        seconds.append(time.perf_counter() - start)
    first, *values = seconds
    return {"values": values, "compile": first, "accuracy": f"fastest of {CALLS} calls {min(values):.2f} s"}


def ours(folder: Path) -> dict:
    import shutil

    shutil.rmtree(folder / "cache", ignore_errors=True)  # each round has a first call
    return _side(folder, str(folder / "cache"))


def peer(folder: Path) -> dict:
    return _side(folder, "off")
