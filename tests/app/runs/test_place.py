"""A run folder: one process at a time, room to write, and a word how to go on."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nablax.app._errors import UserError
from nablax.app._interrupt import gently
from nablax.app._report import _cost
from nablax.app._runs import _lock
from nablax.app._runs._config import Choices
from nablax.app._runs._learn import configure, learn
from nablax.app._runs._lock import held
from nablax.app._runs._meter import training_seconds
from nablax.app._runs._place import at_work, roomy
from nablax.app._runs._run import Run

TINY = Choices(steps=40, width=8, depth=1, batch_size=16)


@pytest.fixture
def config(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 2))
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", header="x,y", comments="")
    return configure(str(tmp_path / "rows.csv"), choices=TINY)


def test_the_second_process_is_told_who_holds_the_folder(tmp_path):
    code = f"""
import time
from pathlib import Path
from nablax.app._runs._lock import held
from nablax.app._runs._meter import training_seconds
with held(Path({str(tmp_path / "run")!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            for _ in range(2):  # to be refused changes nothing
                with pytest.raises(UserError, match=f"is in use by process {other.pid}; wait"), held(tmp_path / "run"):
                    pass
        finally:
            other.kill()
    with held(tmp_path / "run"):  # a killed process leaves no lock
        assert (tmp_path / "run" / _lock.LOCK).read_text() == f"{os.getpid()}\n"
    with held(tmp_path / "run"):
        pass


def test_learn_is_refused_before_it_trains(tmp_path, config):
    with at_work(tmp_path / "run", config[0]):
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        command = [sys.executable, "-m", "nablax", "learn", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == (
            f"nablax: {tmp_path / 'run'} is in use by process {os.getpid()}; "
            "wait for its end, stop it, or choose another --out\n"
        )
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before == [_lock.LOCK]


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path, config):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="is no run folder"), at_work(tmp_path / "mine", config[0]):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with (
        pytest.raises(UserError, match="is a file, not a run folder"),
        at_work(tmp_path / "rows.csv" / "run", config[0]),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, config, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=f"cannot be written: {os.strerror(number)}"), held(tmp_path / "run"):
        pass


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_a_full_disk_leaves_whole_checkpoints_and_training_goes_on(tmp_path, config, monkeypatch, fails):
    """At the configuration, at the first checkpoint and at a later one, in the midst of the file."""
    real, count = os.fsync, 0

    def full(number):
        nonlocal count
        count += 1
        if count > fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    quiet = {"notice": lambda text: None, "checkpoint_every": 10}
    learn(*config, tmp_path / "whole", **quiet)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with (
            pytest.raises(UserError, match="No space left on device; what is in it is whole") as told,
            at_work(tmp_path / "run", config[0]),
        ):
            learn(*config, tmp_path / "run", **quiet)
    assert "\n" not in str(told.value) and "goes on from the last checkpoint" in str(told.value)
    assert not list((tmp_path / "run").rglob("*.part"))
    with at_work(tmp_path / "run", config[0]):
        learn(*config, tmp_path / "run", **quiet)
    for name in ("weights.safetensors", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_no_lack_of_room_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), roomy(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")


class Stopped(BaseException):
    """What the handler that was there before raises."""


def test_the_first_interrupt_waits_for_the_step_and_the_second_does_not(tmp_path, config):
    def stop(number, frame):
        raise Stopped

    seen, heard = [], []
    before = signal.signal(signal.SIGINT, stop)

    def progress(part, state):
        seen.append(state.step)
        if len(seen) == 1:
            signal.raise_signal(signal.SIGINT)  # here nothing is lost, but it might have come anywhere

    try:
        learn(*config, tmp_path / "whole", notice=lambda text: None)
        with pytest.raises(Stopped), gently(progress, heard.append) as told:
            learn(*config, tmp_path / "run", notice=lambda text: None, progress=told)
        assert heard == ["stopping after this step; Ctrl-C again stops at once"]
        kept = sorted((tmp_path / "run" / "checkpoints").rglob("step*"))
        assert int(kept[-1].name[5:15]) == seen[-1] < 40  # the step that was done when it stopped
        with pytest.raises(Stopped), gently(print, heard.append):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second did not stop it")
        assert signal.getsignal(signal.SIGINT) is stop
        learn(*config, tmp_path / "run", notice=lambda text: None)
    finally:
        signal.signal(signal.SIGINT, before)
    for name in ("weights.safetensors", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("module", ["nablax.app", "jax._src.lax.lax", "sklearn", "optax", "nablax.app._runs._learn"])
def test_an_interrupt_in_the_midst_of_an_import_says_how_to_go_on(tmp_path, config, module):
    """There an exception may come out as another one; the line can be pasted, spaces and all."""
    arguments = ["learn", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "a run"), "--steps", "20"]
    code = f"""
import signal, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Watch())
sys.argv = ["nablax", *{arguments!r}]
from nablax.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"interrupted; go on with: {shlex.join(['nablax', *arguments])}"


def test_an_interrupt_after_the_end_is_none(tmp_path):
    code = """
import atexit, os, signal, sys, threading
atexit.register(lambda: signal.raise_signal(signal.SIGINT))
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=int(signal.SIGINT)):
        kill(pid, number)
sys.last = Last()
sys.argv = ["nablax", "--help"]
from nablax.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "interrupted" not in done.stderr and "Traceback" not in done.stderr


def test_an_interrupted_training_is_kept_and_the_line_goes_on(tmp_path, config):
    arguments = ["learn", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "run"), "--steps", "1000000"]
    command = [sys.executable, "-m", "nablax", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline().startswith("learning the values: step 1 of")
        run.send_signal(signal.SIGINT)
        said, wrong = run.communicate()
    assert run.returncode == 130 and "stopping after this step" in said
    assert wrong == f"\ninterrupted; go on with: {shlex.join(['nablax', *arguments])}\n"
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_what_a_report_may_cost_is_half_of_training_or_twelve_seconds(tmp_path, monkeypatch):
    run, now = Run(tmp_path), [100.0]
    monkeypatch.setattr(_cost.time, "process_time", lambda: now[0])
    for training, most in (("40.0", 20.0), ("5.0", 12.0)):
        run.write("cost.json", f'{{"training_cpu_seconds": {training}}}')
        now[0] = 100.0
        allowance = _cost.Allowance(run)
        now[0] = 103.0
        assert allowance.spent == 3.0 and allowance.covers(most - 3.0) and not allowance.covers(most - 2.9)
    assert _cost.Allowance(None).covers(1e9)
    run.write("cost.json", "not JSON")
    assert training_seconds(run) is None


def test_the_seconds_of_training_are_kept(tmp_path, config):
    run = learn(*config, tmp_path / "run", notice=lambda text: None)
    seconds = training_seconds(run)
    assert seconds is not None and 0 < seconds < time.process_time()
