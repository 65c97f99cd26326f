"""A run that is killed and started again ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from nablax.app._cli import app

KILLS = 4  # of whole processes, at random instants
STOPS = 24  # within one process, before a random one of its file operations
FLAGS = ["--steps", "400", "--width", "16", "--depth", "1", "--batch-size", "64", "--checkpoint-every", "20"]
KEPT = ("config.json", "weights.safetensors", "metrics.csv", "training.json", "samples.csv")


class Killed(BaseException):
    """Nothing after it has an effect on any file."""


class Killer:
    """What a kill leaves of a run folder is what its file operations up to there have done.

    From the audit event of the n-th operation within the folder on, each one fails before it is carried out, those that
    clear up among them.
    """

    def __init__(self):
        self.folder, self.left = None, None
        sys.addaudithook(self.see)  # for good, but it looks at nothing while there is no folder

    def see(self, event, arguments):
        if self.folder is None or event not in (
            "open",
            "os.rename",
            "os.remove",
            "os.mkdir",
            "os.rmdir",
            "shutil.rmtree",
        ):
            return
        if not any(isinstance(part, str | os.PathLike) and self.folder in os.fspath(part) for part in arguments):
            return
        self.left -= 1
        if self.left <= 0:
            raise Killed

    def arm(self, folder, operations):
        self.folder, self.left = str(folder), operations

    def disarm(self):
        self.folder = None


@pytest.fixture(scope="module")
def killer():
    return Killer()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A ring."""
    random = np.random.default_rng(0)
    angles = random.uniform(0, 2 * np.pi, 240)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.1 * random.normal(size=(240, 2))
    path = tmp_path_factory.mktemp("data") / "ring.csv"
    np.savetxt(path, rows, delimiter=",", header="x,y", comments="")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """A run never interrupted. It leaves its compiled programs: the tests are about interruption, not compiling."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLAX_CACHE", str(folder / "cache"))
        learn(data, folder / "run")
        yield folder / "run"


def learn(data, folder):
    """The command, in this process."""
    result = CliRunner().invoke(app, ["learn", str(data), "--out", str(folder), *FLAGS])
    assert result.exception is None, result.exception


def finish(folder):
    """Whether the run is at its end; if so its end is taken away."""
    report = folder / "report.html"
    if not report.exists():
        return False
    report.unlink()
    return True


def same(killed, whole):
    for name in KEPT:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(killed.rglob("*.part"))


@pytest.mark.slow
def test_stopped_before_any_file_operation_it_ends_bit_identical(tmp_path, data, whole, killer):
    folder, chance, ends, kills = tmp_path / "killed", random.Random(0), 0, 0
    for stop in range(STOPS):
        # Few operations at first, so that the beginning is looked at too: a whole run has some two hundred.
        killer.arm(folder, chance.randint(1, 5 if stop < 8 else 80))
        try:
            learn(data, folder)
        except Killed:
            kills += 1
        finally:
            killer.disarm()
        if finish(folder):
            ends += 1
            if ends % 2:  # and now and then the whole training
                (folder / "weights.safetensors").unlink()
    learn(data, folder)
    assert kills >= STOPS // 2
    same(folder, whole)


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_bit_identical(tmp_path, data, whole):
    def start():
        command = [sys.executable, "-m", "nablax", "learn", str(data), "--out", str(tmp_path / "killed"), *FLAGS]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ)

    begin = time.monotonic()
    output, _ = start().communicate()
    duration = time.monotonic() - begin
    same(tmp_path / "killed", whole)  # another process, the same bytes
    for path in sorted((tmp_path / "killed").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    chance = random.Random(0)
    for kill in range(KILLS):
        run = start()
        try:
            # From the start of the interpreter to the writing of the report, one kill in each part of the run.
            run.communicate(timeout=(kill + chance.uniform(0.05, 1.0)) / KILLS * duration)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.communicate()
        finish(tmp_path / "killed")
    last = start()
    output, _ = last.communicate()
    assert last.returncode == 0, output.decode()
    same(tmp_path / "killed", whole)
