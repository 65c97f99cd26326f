"""A run that is killed and started again ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

KILLS = 20
FLAGS = ["--steps", "400", "--width", "16", "--depth", "1", "--batch-size", "64", "--checkpoint-every", "20"]
KEPT = ("config.json", "weights.safetensors", "metrics.csv", "training.json", "samples.csv", "scores.csv")


@pytest.fixture
def data(tmp_path):
    """A ring. Few rows, for the report is made again after most of the kills, and it takes the longest."""
    random = np.random.default_rng(0)
    angles = random.uniform(0, 2 * np.pi, 240)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.1 * random.normal(size=(240, 2))
    np.savetxt(tmp_path / "ring.csv", rows, delimiter=",", header="x,y", comments="")
    return tmp_path / "ring.csv"


def start(data, folder):
    # Compiled programs are kept between the processes: the test is about interruption, not about compiling.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **cache}
    command = [sys.executable, "-m", "nablax", "learn", str(data), "--out", str(folder), *FLAGS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def timed(data, folder):
    """Seconds that a run takes from where it stands to its end."""
    begin = time.monotonic()
    run = start(data, folder)
    output, _ = run.communicate()
    assert run.returncode == 0, output.decode()
    return time.monotonic() - begin


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_bit_identical(tmp_path, data):
    start(data, tmp_path / "warm").communicate()
    duration = timed(data, tmp_path / "whole")
    (tmp_path / "whole" / "report.html").unlink()
    of_report = timed(data, tmp_path / "whole")  # a run that is trained already makes its report alone

    chance = random.Random(0)
    killed = 0
    while killed < KILLS:
        trained = (tmp_path / "killed" / "weights.safetensors").exists()
        run = start(data, tmp_path / "killed")
        try:
            # From the start of the interpreter to the writing of the report.
            run.communicate(timeout=chance.uniform(0.05, 1.0) * (of_report if trained else duration))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.communicate()
            killed += 1
        report = tmp_path / "killed" / "report.html"
        if report.exists():
            # Finished between two kills: take the end away, and now and then the whole training.
            report.unlink()
            if killed % 3 == 0:
                (tmp_path / "killed" / "weights.safetensors").unlink()
    last = start(data, tmp_path / "killed")
    output, _ = last.communicate()
    assert last.returncode == 0, output.decode()
    for name in KEPT:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "killed").rglob("*.part"))
