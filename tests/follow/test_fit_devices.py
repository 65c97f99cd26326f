"""Two local devices and two processes give the loss of one device to rounding."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

RUN = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
out, port, process, folder, host = sys.argv[1:6]
if port != "0":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
from nablax.fields import EMA
from nablax.follow import fit

def loss(model, batch, *, key):
    noise = 0.1 * jax.random.normal(key, batch["y"].shape)
    hidden = jnp.tanh(batch["x"] @ model["in"])
    return jnp.mean((hidden @ model["out"] + noise - batch["y"]) ** 2)

a, b, c = jax.random.split(jax.random.key(0), 3)
x = np.asarray(jax.random.normal(a, (100, 4)))
data = {"x": x, "y": np.sin(x[:, 0])}
def source(first, count):
    rows = (np.arange(16)[None, :] + 7 * np.arange(first, first + count)[:, None]) % 100
    return {name: leaf[rows] for name, leaf in data.items()}
model = {"in": jax.random.normal(b, (4, 8)), "out": jax.random.normal(c, (8,))}
ADAM = optax.adam(0.01)
def train(steps, data):
    return fit(
        loss, model, data, steps=steps, optimizer=ADAM, batch_size=16, key=jax.random.key(5),
        validation={"x": x[:37], "y": np.sin(x[:37, 0])}, validate_every=20, ema=EMA(0.9),
        checkpoint=folder if steps > 0 and folder != "-" else None, checkpoint_every=20,
    )
if folder != "-":
    train(40, data)  # then go on from the checkpoint
fits = [train(60, data)]
if host == "host":
    folder = "-"
    fits.append(train(60, source))
arrays = {}
for i, f in enumerate(fits):
    arrays |= {f"loss{i}": f.history.loss, f"validation{i}": f.history.validation, f"in{i}": f.model["in"]}
    assert len(f.model["in"].sharding.device_set) == 1, f.model["in"].sharding
np.savez(out, devices=len(jax.devices()), step=fits[0].step, best=fits[0].best_step, **arrays)
"""


def start(out, devices=1, port=0, process=0, folder="-"):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", RUN, str(out), str(port), str(process), str(folder), "host"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(child):
    try:
        _, errors = child.communicate(timeout=200)
    finally:
        child.kill()
    assert child.returncode == 0, errors


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out.npz"
    finish(start(out))
    return np.load(out)


def agree(found, expected):
    assert int(found["devices"]) == 2 and int(expected["devices"]) == 1
    assert int(found["step"]) == 60 and int(found["best"]) == int(expected["best"])
    for name in set(expected) - {"devices"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_two_local_devices(alone, tmp_path):
    finish(start(tmp_path / "out.npz", devices=2, folder=tmp_path / "run"))
    agree(np.load(tmp_path / "out.npz"), alone)


def test_two_processes(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # Each has a folder of its own: only the first one's may be written to, and both go on from it.
    children = [start(tmp_path / f"{i}.npz", port=port, process=i, folder=tmp_path / f"run{i}") for i in range(2)]
    for child in children:
        finish(child)
    for i in range(2):
        agree(np.load(tmp_path / f"{i}.npz"), alone)
    assert "step-0000000060-end.safetensors" in [path.name for path in (tmp_path / "run0").iterdir()]
    assert not (tmp_path / "run1").exists()


def test_a_batch_that_cannot_be_shared_is_refused():
    code = """
import jax.numpy as jnp, jax, optax
from nablax.follow import fit
try:
    fit(lambda m, b, *, key: jnp.mean(b * m), jnp.ones(()), jnp.ones(9), optimizer=optax.sgd(0.1), steps=1,
        batch_size=3, key=jax.random.key(0))
except ValueError as error:
    assert "expected a batch size that 2 devices can share, got 3" in str(error), error
else:
    raise AssertionError
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
