"""A data set that is not held in memory trains as one that is."""

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from nablax.app._cli import app

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
    # The best constant velocity leaves the data's and the noise's variance: 2.
    assert metrics["loss"][-50:].mean() < 1.6 < metrics["loss"][:5].mean()
    assert (tmp_path / "run" / "report.html").exists()
