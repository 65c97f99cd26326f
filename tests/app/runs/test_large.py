"""A data set that is not held in memory trains as one that is."""

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from nablax.app._cli import app
from nablax.app._data import _spool
from nablax.app._runs import _rows
from nablax.app._runs._config import Choices
from nablax.app._runs._learn import configure
from nablax.app._runs._run import Run, codec_of

FLAGS = ["--steps", "300", "--width", "16", "--depth", "1", "--batch-size", "128", "--memory-limit", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "npy"])
def test_rows_on_disk_train_and_are_reported_on(tmp_path, ending):
    random = np.random.default_rng(0)
    rows = random.standard_normal((5000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
    path = tmp_path / f"rows.{ending}"
    if ending == "npy":
        np.save(path, rows)
    else:
        pl.DataFrame(rows, schema=["x0", "x1"], orient="row").write_parquet(path, row_group_size=700)
    result = CliRunner().invoke(app, ["learn", str(path), "--out", str(tmp_path / "run"), *FLAGS])
    assert result.exception is None, result.exception
    assert (tmp_path / "run" / "encoded" / "base.npy").exists()
    metrics = pl.read_csv(tmp_path / "run" / "metrics.csv")
    # Of these data a Gaussian is the truth, so that the field is right from the start: x - z varies by 1 / (t² + (1 - t)²)
    # about what the point between them tells, π/2 on average over t, of the cells that are not given, 5/9 (1/3, and a third of
    # the rest). A velocity of zero would leave 10/9.
    for part in (metrics["loss"][:50], metrics["loss"][-50:]):
        assert abs(part.mean() - 5 / 9 * np.pi / 2) < 0.1
    assert (tmp_path / "run" / "report.html").exists()


def test_of_several_processes_the_first_encodes(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pl.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), schema=["a", "b"], orient="row").write_parquet(path)
    config, opened = configure(str(path), choices=Choices(steps=10), memory_limit=0)
    codec, written, said, turn = codec_of(config), [], [], {}
    write = _spool._write
    monkeypatch.setattr(_spool, "_write", lambda *rest: (written.append(turn["process"]), write(*rest)))
    monkeypatch.setattr(_rows.jax, "process_count", lambda: 2)
    monkeypatch.setattr(_rows.jax, "process_index", lambda: turn["process"])

    def barrier():
        """The other process's turn: the second is let through once the first has written."""
        said.append((turn["process"], len(written)))

    monkeypatch.setattr(_rows, "_wait_for_the_first", barrier)
    folders = tmp_path / "one", tmp_path / "another"
    for process, folder in ((0, folders[0]), (1, folders[0]), (1, folders[1])):
        turn["process"] = process
        rows = _rows.encode(opened, codec, config, Run(folder))
        assert rows.base.shape[0] == 300
    # The first waits when it has written, the other before it looks; on a disk of its own it has to write.
    assert written == [0, 1] and said == [(0, 1), (1, 1), (1, 1)]
