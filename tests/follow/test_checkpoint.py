"""Checkpoints: whole or absent, verified, and a resumed run is the run."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from nablax.fields import EMA
from nablax.follow import _fingerprint, fit
from nablax.follow._checkpoint import Checkpoints, Saved

# One problem for this process and for those that are killed.
PROBLEM = """
import jax, jax.numpy as jnp, optax, sys, time
from nablax.fields import EMA
from nablax.follow import fit

ADAM = optax.adam(0.01)

def loss(model, batch, *, key):
    noise = 0.1 * jax.random.normal(key, batch["y"].shape)
    hidden = jnp.tanh(batch["x"] @ model["in"])
    return jnp.mean((hidden @ model["out"] + noise - batch["y"]) ** 2)

def rows():
    x = jax.random.normal(jax.random.split(jax.random.key(0), 3)[0], (64, 4))
    return {"x": x, "y": jnp.sin(x[:, 0])}

def problem(key=jax.random.key(5), loss=loss, data=rows(), scale=1.0, **settings):
    _, b, c = jax.random.split(jax.random.key(0), 3)
    model = {"in": jax.random.normal(b, (4, 8)), "out": scale * jax.random.normal(c, (8,))}
    arguments = dict(steps=300, optimizer=ADAM, batch_size=16, key=key, ema=EMA(0.99))
    arguments |= dict(validation=rows(), validate_every=50)
    return fit(loss, model, data, **{**arguments, **settings})
"""
exec(PROBLEM)

RUN = (
    PROBLEM
    + """
from nablax.follow import _loop
# Calls of a few steps, so that a kill finds the loop everywhere.
_loop.LONGEST_CHUNK = 40
problem(
    steps=int(sys.argv[2]), checkpoint=sys.argv[1], checkpoint_every=25,
    progress=lambda report: print(report.step, flush=True),
)
"""
)


def same(one, other):
    assert (one.step, one.best_step, one.result) == (other.step, other.best_step, other.result)
    jax.tree.map(np.testing.assert_array_equal, (one.model, one.last), (other.model, other.last))
    jax.tree.map(np.testing.assert_array_equal, one.history, other.history)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def whole():
    return problem()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder left by a run of 200 of the 300 steps, as if cut off there."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    problem(steps=200, checkpoint=folder, checkpoint_every=50)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def test_a_resumed_run_is_bit_identical_and_a_finished_one_does_nothing(whole, folder):
    assert names(folder) == [f"step-0000000{step}.safetensors" for step in ("100", "150", "200-end")]
    same(problem(checkpoint=folder), whole)
    assert len(names(folder)) == 3 and names(folder)[-1] == "step-0000000300-end.safetensors"
    reports = []
    same(problem(checkpoint=folder, progress=reports.append), whole)
    assert reports == []


def noted(path):
    """Where the note begins in a checkpoint's bytes, and its length."""
    header = path.read_bytes()[8:]
    return 8 + header.index(b"__metadata__"), header.index(b"}") - header.index(b"__metadata__")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x01
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def orbax(path):
    path.unlink()
    (path / "arrays").mkdir(parents=True)


END = "step-0000000200-end.safetensors"
DAMAGE = {
    "first number flipped": lambda file: flip(file, 8 + int.from_bytes(file.read_bytes()[:8], "little")),
    "last number flipped": lambda file: flip(file, -1),
    "digest flipped": lambda file: flip(file, noted(file)[0] + len('__metadata__":{"note":"')),
    "manifest flipped": lambda file: flip(file, file.read_bytes().index(b"batch_size") + 5),
    "name flipped": lambda file: flip(file, file.read_bytes().index(b'"history.loss"') + 1),
    "header's length flipped": lambda file: flip(file, 0),
    "cut": cut,
    "cut to its header": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "emptied": lambda file: file.write_bytes(b""),
    "another program's": lambda file: safetensors.numpy.save_file({"x": np.zeros(3)}, file),
    "a folder": orbax,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_and_says_so(damage, whole, folder):
    DAMAGE[damage](folder / END)
    said, first = [], []
    out = problem(checkpoint=folder, notice=said.append, progress=lambda report: first.append(report.step))
    assert len(said) == 1 and said[0].startswith(f"checkpoint {END} is damaged")
    assert 150 < first[0] <= 160  # it went on from 150
    same(out, whole)
    assert f"damaged-{END}" in names(folder)


def test_nothing_intact_starts_anew(whole, folder):
    for run in folder.iterdir():
        cut(run)
    with pytest.warns(RuntimeWarning) as caught:
        out = problem(checkpoint=folder)
    assert "training starts anew" in str(caught[-1].message) and len(caught) == 4
    same(out, whole)


def test_every_byte_of_a_checkpoint_counts(folder):
    """A flipped bit anywhere is refused, or changes nothing of what is read."""
    checkpoints = Checkpoints(folder, None, None)
    before = checkpoints._read(folder / END)
    content = (folder / END).read_bytes()
    unseen = 0
    for place in range(0, len(content), 7):
        (folder / END).write_bytes(content)
        flip(folder / END, place)
        try:
            after = checkpoints._read(folder / END)
        except ValueError:
            continue
        unseen += 1
        assert after.arrays.keys() == before.arrays.keys() and after[:2] == before[:2] and after[3] == before[3]
        for name, array in before.arrays.items():
            assert after.arrays[name].dtype == array.dtype and after.arrays[name].tobytes() == array.tobytes()
    assert unseen <= 2  # a blank of the header's


def test_every_type_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, None, None)
    types = [
        jnp.float32,
        np.float64,
        np.complex128,
        np.complex64,
        jnp.bfloat16,
        jnp.float8_e4m3fn,
        jnp.int4,
        np.int64,
        bool,
    ]
    arrays = {str(np.dtype(dtype)): np.arange(6).reshape(2, 3).astype(dtype) for dtype in types}
    arrays |= {
        "scalar": np.asarray(1j),
        "none": np.zeros((0, 2), np.complex128),
        "columns": np.arange(6.0).reshape(2, 3).T,
    }
    checkpoints.write(Saved(7, "", arrays, {"key": [1, 2]}))
    read = Checkpoints(tmp_path, None, None).newest()
    assert (read.step, read.result, read.settings) == (7, "", {"key": [1, 2]}) and read.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        found = read.arrays[name]
        assert found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes(), name


def test_files_of_others_in_the_folder_are_left_alone(whole, folder):
    for name in (".DS_Store", "._step-0000000200-end.safetensors", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "more").mkdir()
    said = []
    same(problem(checkpoint=folder, notice=said.append), whole)
    assert said == [] and {".DS_Store", "notes.txt", "more"} <= set(names(folder))


def test_what_a_kill_left_half_written_is_ignored_and_swept(whole, folder):
    left = folder / "step-0000000250.safetensors.0badcafe.part"
    left.write_bytes(b"x")
    same(problem(checkpoint=folder), whole)
    assert not left.exists()


changed = {**rows(), "y": rows()["y"].at[63].multiply(1.000001)}
first_half = {name: leaf[:32] for name, leaf in rows().items()}
OTHER = {
    "optimizer": ({"optimizer": optax.sgd(0.1)}, "has changed"),
    "rate": ({"optimizer": optax.adam(0.010000001)}, r"expected optimizer .*, got"),
    "schedule": ({"optimizer": optax.adam(optax.constant_schedule(0.01))}, r"expected a checkpoint|expected optimizer"),
    "loss": ({"loss": lambda *a, key: 1.01 * loss(*a, key=key)}, r"expected loss \(digest .*, got"),
    "data": ({"data": changed}, r"expected data .*'x': f32\[64,4\].*, got .*'x': f32\[64,4\]"),
    "first weights": ({"scale": 1.000001}, r"expected model \(shapes, and a digest of .*'in': f32\[4,8\].*, got"),
    "fewer rows": ({"data": first_half}, r"expected data .*f32\[64,4\].*, got .*f32\[32,4\]"),
    "other validation": ({"validation": changed}, r"expected validation .*f32\[64,4\]"),
    "no average": ({"ema": None}, "decay"),
    "batch": ({"batch_size": 8}, "batch_size = 16"),
    "key": ({"key": jax.random.key(6)}, "key = "),
    "validation": ({"validation": None}, r"expected validation .*, got None"),
    "validation intervals": ({"validate_every": 40}, "validate_every = 50"),
    "steps": ({"steps": 100}, "expected steps >= 200"),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_run_is_refused_and_the_folder_left_alone(case, folder):
    change, message = OTHER[case]
    before = names(folder)
    with pytest.raises(ValueError, match=message):
        problem(checkpoint=folder, **change)
    assert names(folder) == before


@pytest.mark.parametrize("case", ["rate", "loss", "data", "first weights"])
def test_another_run_is_refused_where_this_one_has_finished(case, folder):
    problem(checkpoint=folder)
    change, message = OTHER[case]
    with pytest.raises(ValueError, match=message):
        problem(checkpoint=folder, **change)


def test_other_versions_are_said_and_programs_not_compared(whole, folder, monkeypatch):
    monkeypatch.setattr(_fingerprint, "_versions", lambda: {"nablax": "99", "jax": "98"})
    said = []
    same(problem(checkpoint=folder, notice=said.append), whole)
    assert len(said) == 1 and "jax " in said[0] and "this is nablax 99 jax 98" in said[0]
    with pytest.raises(ValueError, match="expected data"):
        problem(checkpoint=folder, data=changed)
    # From here on the newer versions are those to compare with.
    with pytest.raises(ValueError, match="expected optimizer"):
        problem(checkpoint=folder, **OTHER["rate"][0])


def source_of(scale):
    def source(first, count):
        return {name: np.stack([np.asarray(leaf[:16]) * scale] * count) for name, leaf in rows().items()}

    return source


def test_a_source_is_told_by_its_first_batch(tmp_path):
    settings = {"checkpoint": tmp_path / "run", "steps": 30}
    out = problem(data=source_of(1.0), **settings)
    same(problem(data=source_of(1.0), **settings), out)
    with pytest.raises(ValueError, match=r"expected data .*f32\[1,16,4\].*, got"):
        problem(data=source_of(1.001), **settings)


def test_a_longer_run_keeps_the_intervals_that_it_began_with(tmp_path):
    settings = {"checkpoint": tmp_path / "run", "validate_every": None}
    problem(steps=600, **settings)  # validated every 12 steps; 700 alone would be every 14
    out = problem(steps=700, **settings)
    assert (out.result, out.step) == ("completed", 700)
    measured = np.flatnonzero(np.isfinite(out.history.validation)) + 1
    np.testing.assert_array_equal(measured, [*range(12, 700, 12), 700])
    alone = problem(steps=700, validate_every=12)
    jax.tree.map(np.testing.assert_array_equal, out.last, alone.last)
    np.testing.assert_array_equal(out.history.loss, alone.history.loss)
    with pytest.raises(ValueError, match="validate_every = 12"):
        problem(steps=700, **{**settings, "validate_every": 14})


def test_another_model_is_refused(folder):
    def linear(model, batch, *, key):
        return jnp.mean((batch["x"] @ model["in"][:, 0] - batch["y"]) ** 2)

    data = rows()
    with pytest.raises(ValueError, match=r"expected a checkpoint with .*'in'.*\(4, 3\)"):
        fit(
            linear, {"in": jnp.zeros((4, 3)), "out": jnp.zeros(8)}, data, steps=300, optimizer=ADAM, batch_size=16,
            key=jax.random.key(5), validation=data, validate_every=50, ema=EMA(0.99), checkpoint=folder,
        )  # fmt: skip


def test_loading_runs_no_code(whole, folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    # Finished is loaded from the file alone.
    monkeypatch.setattr("nablax.follow._fit.run", refuse)
    out = problem(checkpoint=folder, steps=200)
    assert out.step == 200
    np.testing.assert_array_equal(out.history.loss, whole.history.loss[:200])


def test_divergence_is_remembered(tmp_path):
    optimizer = optax.sgd(lambda step: jnp.where(step == 20, jnp.inf, 0.01))
    settings = {"optimizer": optimizer, "checkpoint": tmp_path / "run", "checkpoint_every": 20}
    out = problem(**settings)
    assert (out.result, out.step) == ("diverged", 20)
    assert names(tmp_path / "run") == ["step-0000000020-end.safetensors", "step-0000000020.safetensors"]
    same(problem(**settings), out)


def test_a_run_killed_at_random_instants_ends_bit_identical(tmp_path):
    steps, folder = 4000, tmp_path / "run"
    command = [sys.executable, "-c", RUN, str(folder), str(steps)]
    seed = random.SystemRandom().randrange(10**6)
    draw, kills = random.Random(seed), 0
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        if child.stdout.readline():
            time.sleep(draw.uniform(0.0, 0.4))
            child.send_signal(signal.SIGKILL)
            kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
        child.wait()
    assert kills == 3, f"seed {seed}"
    assert any(name.startswith("step-") for name in names(folder)), f"seed {seed}"
    resumed = problem(steps=steps, checkpoint=folder)
    same(resumed, problem(steps=steps))


def test_safetensors_absent_says_which_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"nablax\[app\]"):
        problem(checkpoint=tmp_path / "run")
    assert os.listdir(tmp_path) == []
