"""A model's arrays in a file: bit for bit, whole or absent, refused where they do not fit, without code."""

import os
import pickle
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from nablax._core import is_key
from nablax.fields import EMA, MLP
from nablax.follow import Solver, load, save
from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport


def field(key, width=8):
    return MLP((2,), condition=3, width=width, depth=2, key=key)


def transport(key):
    return Transport(field(key), Linear(), Normal((2,)), Euclidean((2,)))


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
        assert type(a) is type(b)
        if is_key(a):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if hasattr(a, "dtype"):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a == b


TREES = {
    "a transport": transport(jax.random.key(0)),
    "an average": EMA(0.9).init(field(jax.random.key(0))),
    "one array": jnp.arange(3.0),
    "every type": {
        name: jnp.asarray(np.arange(6).reshape(2, 3), name)
        for name in ("float32", "float16", "bfloat16", "int8", "int32", "uint8", "bool", "complex64")
    },
    "not finite": {"x": jnp.array([jnp.nan, -jnp.nan, jnp.inf, -0.0])},
    "empty and scalar": {"empty": jnp.zeros((0, 3)), "scalar": jnp.array(2.0)},
    "columns first": {"x": np.arange(6.0).reshape(2, 3).T, "wide": np.float64(0.1), "skip": np.arange(10)[::3]},
    "keys": {"typed": jax.random.split(jax.random.key(3), 2), "raw": jax.random.PRNGKey(1)},
    "no arrays beside them": {"w": jnp.ones(2), "name": "line", "rate": 0.1, "function": jnp.tanh, "none": None},
}


@pytest.mark.parametrize("case", TREES)
def test_every_bit_comes_back(case, tmp_path):
    tree = TREES[case]
    save(tmp_path / "model.safetensors", tree)
    zeros = jax.tree.map(lambda x: x if not eqx.is_array(x) or is_key(x) else zeros_like(x), tree)
    same(load(tmp_path / "model.safetensors", zeros), tree)
    assert os.listdir(tmp_path) == ["model.safetensors"]


def zeros_like(leaf):
    zero = np.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(zero) if isinstance(leaf, jax.Array) else zero[()] if isinstance(leaf, np.generic) else zero


def test_columns_first_lie_as_other_readers_expect(tmp_path):
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3).T
    save(tmp_path / "x", {"x": x})
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "x")["['x']"], x)


def test_shapes_are_enough_to_load_into(tmp_path):
    model = transport(jax.random.key(0))
    save(tmp_path / "model", model)
    loaded = load(str(tmp_path / "model"), eqx.filter_eval_shape(transport, jax.random.key(1)))
    same(loaded, model)
    points = loaded.sample(4, key=jax.random.key(2), args=jnp.zeros((4, 3)), solver=Solver(steps=3))
    np.testing.assert_array_equal(
        points, model.sample(4, key=jax.random.key(2), args=jnp.zeros((4, 3)), solver=Solver(steps=3))
    )


def test_shapes_of_keys_know_their_generator(tmp_path):
    keys = jax.random.split(jax.random.key(3, impl="rbg"), 2)
    save(tmp_path / "keys", keys)
    same(load(tmp_path / "keys", jax.eval_shape(lambda: keys)), keys)
    with pytest.raises(ValueError, match=r"expected .*uint32 \(2, 2\), got uint32 \(2, 4\)"):
        load(tmp_path / "keys", jax.random.split(jax.random.key(3), 2))


WRONG = {
    "shape": ({"a": jnp.zeros(2), "b": jnp.zeros((3, 1))}, r"expected .*with \['b'\]: float32 \(3, 1\), got float32 \(3,\)"),
    "type": ({"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(3)}, r"with \['a'\]: bfloat16 \(2,\), got float32"),
    "more in the file": ({"a": jnp.zeros(2)}, r"with \['b'\]: nothing, got float32 \(3,\)"),
    "less in the file": ({"a": jnp.zeros(2), "b": jnp.zeros(3), "c": jnp.zeros(1)}, r"\['c'\]: float32 \(1,\), got nothing"),
    "another tree": ([jnp.zeros(2), jnp.zeros(3)], r"with \[0\]: float32 \(2,\), got nothing"),
    "one array": (jnp.zeros(2), r"with one array: float32 \(2,\), got nothing"),
    "nothing": ({}, r"with \['a'\]: nothing, got"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_another_tree_is_refused_by_its_first_difference(case, tmp_path):
    like, message = WRONG[case]
    save(tmp_path / "model", {"a": jnp.zeros(2), "b": jnp.zeros(3)})
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "model", like)
    assert "Build `like`" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_another_width_is_named(tmp_path):
    save(tmp_path / "model", field(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"float32 \(16, \d+\), got float32 \(8, \d+\)"):
        load(tmp_path / "model", field(jax.random.key(0), width=16))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "line"}, "expected a tree with arrays, got none"),
        (np.zeros(2, np.complex128), r"types that safetensors reads back, got one array: complex128 \(2,\)"),
        ({"w": jnp.zeros(2), "small": jnp.zeros(3, jnp.float8_e4m3fn)}, r"got \['small'\]: float8_e4m3fn \(3,\)"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_the_earlier_file_stays(tree, message, tmp_path):
    save(tmp_path / "model", jnp.ones(2))
    before = (tmp_path / "model").read_bytes()
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "model", tree)
    assert (tmp_path / "model").read_bytes() == before and os.listdir(tmp_path) == ["model"]


def test_a_write_that_fails_leaves_the_earlier_file_whole(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    save(tmp_path / "model", jnp.ones(2))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "model", jnp.zeros(2))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model"]
    np.testing.assert_array_equal(load(tmp_path / "model", jnp.zeros(2)), 1.0)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"\xff" + b[1:], lambda b: b"no" * 20])
def test_a_damaged_file_is_refused(damage, tmp_path):
    save(tmp_path / "model", jnp.ones(20))
    (tmp_path / "model").write_bytes(damage((tmp_path / "model").read_bytes()))
    with pytest.raises(ValueError, match=r"expected a whole file of safetensors, got .*model"):
        load(tmp_path / "model", jnp.ones(20))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent", jnp.ones(2))


def test_no_code_is_run(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, refuse)
    save(tmp_path / "model", jnp.ones(2))
    load(tmp_path / "model", jnp.ones(2))
    with (tmp_path / "evil").open("wb") as file:
        file.write(b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="safetensors"):
        load(tmp_path / "evil", jnp.ones(2))


def test_safetensors_absent_says_which_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"nablax\[app\]"):
        save(tmp_path / "model", jnp.ones(2))
    with pytest.raises(ImportError, match=r"nablax\[app\]"):
        load(tmp_path / "model", jnp.ones(2))
    assert list(Path(tmp_path).iterdir()) == []
