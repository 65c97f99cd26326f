"""Several devices and several processes train as one does."""

import os
import socket
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

COMMAND = [
    sys.executable, "-m", "nablax", "learn", "moons",
    "--steps", "60", "--width", "16", "--depth", "1", "--batch-size", "64",
]  # fmt: skip


def environment(devices: int) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def losses(folder) -> np.ndarray:
    return pl.read_csv(folder / "metrics.csv")["loss"].to_numpy()


@pytest.mark.slow
def test_two_devices_and_two_processes_give_the_one_device_loss(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, devices in (("one", 1), ("two", 2)):
        subprocess.run([*COMMAND, "--out", str(tmp_path / name)], env=environment(devices), check=True)
    pair = [
        subprocess.Popen(
            [
                *(*COMMAND, "--out", str(tmp_path / "pair"), "--coordinator", f"127.0.0.1:{port}"),
                *("--processes", "2", "--process", str(number)),
            ],
            env=environment(1),
        )
        for number in range(2)
    ]
    assert [process.wait(timeout=300) for process in pair] == [0, 0]
    one = losses(tmp_path / "one")
    for name in ("two", "pair"):
        np.testing.assert_allclose(losses(tmp_path / name), one, rtol=2e-3, err_msg=name)
    np.testing.assert_allclose(losses(tmp_path / "pair")[:5], one[:5], rtol=1e-5)
