"""What a run has cost, over all its parts."""

import json

import pytest

from nablax.app._runs import _meter
from nablax.app._runs._meter import Meter, training_seconds
from nablax.app._runs._run import Run


@pytest.fixture
def clock(monkeypatch):
    """CPU seconds that a test sets."""
    now = {"seconds": 100.0}
    monkeypatch.setattr(_meter.time, "process_time", lambda: now["seconds"])
    return now


def test_parts_that_are_gone_on_from_are_added_up(tmp_path, clock):
    run = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt), Meter(run, writes=True).running():
        run.checkpoints.mkdir()
        clock["seconds"] += 7.0
        raise KeyboardInterrupt
    assert training_seconds(run) == pytest.approx(7.0)
    with Meter(run, writes=True).running():
        clock["seconds"] += 5.0
    assert training_seconds(run) == pytest.approx(12.0)


def test_work_that_left_no_checkpoint_is_done_anew_and_counted_once(tmp_path, clock):
    run = Run(tmp_path)
    run.write("cost.json", json.dumps({"training_cpu_seconds": 50.0}))
    with Meter(run, writes=True).running():
        clock["seconds"] += 5.0
    assert training_seconds(run) == pytest.approx(5.0)


def test_a_kill_loses_ten_seconds_at_most(tmp_path, clock):
    meter, run = Meter(Run(tmp_path), writes=True), Run(tmp_path)
    for second in range(1, 36):
        clock["seconds"] += 1.0
        meter.tick()
        assert second - (training_seconds(run) or 0.0) <= 11.0
    other = Meter(Run(tmp_path / "other"), writes=False)
    clock["seconds"] += 99.0
    other.tick()
    assert not (tmp_path / "other").exists()


def test_what_stops_training_is_said_though_the_cost_cannot_be_written(tmp_path, monkeypatch):
    def full(self, name, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "write", full)
    with pytest.raises(KeyboardInterrupt), Meter(Run(tmp_path), writes=True).running():
        raise KeyboardInterrupt
