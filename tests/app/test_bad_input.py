"""Each bad input gets one clear line; this is the table of them."""

import os
import pickle

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from nablax.app._cli import app
from nablax.app._data._codec import Codec, fit_codec
from nablax.app._data._images import fit_image_codec
from nablax.app._data._sources import read, table
from nablax.app._errors import UserError
from nablax.app._runs._learn import configure

from .data.test_odd_files import PLAIN, REFUSED
from .tables_at_hand import mixed


def text(content):
    return lambda path: path.write_text(content)


def array(content):
    return lambda path: np.save(path, content)


def cut(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def cut_parquet(path):
    mixed().write_parquet(path)
    cut(path)


def cut_npy(path):
    np.save(path, np.zeros((100, 3)))
    cut(path)


def cut_npz(path):
    np.savez(path, np.zeros((100, 3)))
    cut(path)


def objects_npz(path):
    np.savez(path, np.array([{"a": 1}] * 30, object), allow_pickle=True)


def pickled(path):
    path.write_bytes(pickle.dumps(np.zeros((30, 2))))


def two_arrays(path):
    np.savez(path, one=np.zeros((30, 2)), two=np.zeros((30, 2)))


ROWS = "".join(f"{k},{k * k}\n" for k in range(30))

UNREADABLE = [
    ("absent.csv", lambda path: None, "no such file or folder, nor a named set (digits, moons"),
    ("moonz", lambda path: None, "no such file or folder, nor a named set (digits, moons"),
    ("a.xlsx", text("x"), "unknown kind of file; the known ones are .csv"),
    ("a.csv", text(""), "the file is empty"),
    ("a.csv", text("\n\n"), "the file is empty"),
    ("a.npy", text(""), "the file is empty"),
    ("a.csv", text("a,b\n"), "a header and no rows"),
    ("a.csv", text("a,b\n1,2\n3,4\n"), "too few rows: 2, at least 20 are needed"),
    ("a.csv", text("a,b\n" + ROWS + "1,2,3\n"), "line 32 has 3 cells, the first line has 2"),
    ("a.csv", text("a,b\n" + ROWS + "1\n"), "line 32 has 1 cell, the first line has 2"),
    ("a.csv", text("a,a\n" + ROWS), "the column name 'a' occurs more than once"),
    ("a.csv", lambda path: path.write_bytes(b"a,b\n" + ROWS.encode() + b"\xe9,2\n"), "not UTF-8"),
    ("a.csv", lambda path: path.write_bytes("é,b\n".encode("latin1")), "not UTF-8"),
    ("a.csv", lambda path: path.mkdir(), "no pictures in the folder"),
    ("a.parquet", cut_parquet, "no readable Parquet file"),
    ("a.parquet", text("hello"), "no readable Parquet file"),
    ("a.npy", cut_npy, "no readable NumPy file"),
    ("a.npz", cut_npz, "no readable NumPy file"),
    ("a.npy", pickled, "Python objects, which are never loaded"),
    ("a.npy", array(np.array([{"a": 1}] * 30, object)), "Python objects, which are never loaded"),
    ("a.npz", objects_npz, "Python objects, which are never loaded"),
    ("a.npz", two_arrays, "name the array of rows 'data'; the arrays are one, two"),
    ("a.npy", array(np.array(["x"] * 30)), "of type <U1, expected numbers"),
    ("a.npy", array(np.zeros(30, complex)), "of type complex128, expected numbers"),
    ("a.npy", array(np.float64(3.0)), "the array has 0 axes"),
    ("a.npy", array(np.zeros((2, 2, 2, 2, 2))), "the array has 5 axes"),
    ("a.npy", array(np.zeros((0, 3))), "the array is empty"),
    ("a.npy", array(np.zeros((30, 3, 8, 8))), "the channels, at most 4, come last"),
    ("a.npy", array(np.full((30, 8, 8), np.nan)), "the images hold NaN or infinite pixels"),
    ("a.npy", array(np.full((30, 8, 8), np.inf)), "the images hold NaN or infinite pixels"),
]


@pytest.mark.parametrize(("name", "write", "message"), UNREADABLE)
def test_unreadable_sources(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(UserError) as caught:
        read(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("a,b\n" + ROWS)
    (tmp_path / "a.csv").chmod(0)
    try:
        (tmp_path / "a.csv").read_text()
    except PermissionError:
        with pytest.raises(UserError, match="cannot be read: Permission denied"):
            read(tmp_path / "a.csv")
    else:
        pytest.skip("this user may read every file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match="a pipe or a device, which is read once; send it to the standard input"):
        read(tmp_path / "a.csv")


def test_damaged_pictures(tmp_path):
    from PIL import Image

    for k in range(30):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (32, 32), np.uint8)).save(tmp_path / f"{k:02}.png")
    cut(tmp_path / "07.png")
    with pytest.raises(UserError, match=r"07.png: no readable picture"):
        read(tmp_path)
    cut(tmp_path / "07.png", 0.01)
    with pytest.raises(UserError, match=r"07.png: no readable picture"):
        read(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "07.png").rename(tmp_path / "sub" / "07.png")
    with pytest.raises(UserError, match="some pictures lie in sub-folders"):
        read(tmp_path)


def test_absent_condition():
    with pytest.raises(UserError, match="no column 'label' to condition on; the columns are x, y"):
        read("moons", condition=["label"])


N = 40
GOOD = np.random.default_rng(0).normal(size=N)
UNLEARNABLE = [
    ({"x": [3.0] * N}, {}, "no column remains to be modelled: column 'x' is not modelled: the same in each row (3.0)"),
    ({"x": ["a"] * N}, {}, "no column remains to be modelled: column 'x' is not modelled: the same in each row (a)"),
    ({"x": [None] * N}, {}, "no column remains to be modelled: column 'x' is not modelled: empty in each row"),
    ({"x": [float("nan")] * N}, {}, "no column remains to be modelled"),
    ({"x": [None] * N, "y": GOOD}, {"kinds": {"x": "category"}}, "column 'x' is empty in each row: no category"),
    ({"x": [3.0] * N, "y": GOOD}, {"kinds": {"y": "constant"}}, "column 'y' is no constant: it has 40 values"),
    ({"x": [float("inf"), *GOOD[1:]], "y": GOOD}, {}, "column 'x' holds infinite values"),
    ({"x": [[1, 2]] * N, "y": GOOD}, {}, "column 'x' holds List(Int64), which is no number, text or date"),
    ({"x": [{"a": 1}] * N, "y": GOOD}, {}, "column 'x' holds Struct"),
    ({"x": [b"raw"] * N, "y": GOOD}, {}, "column 'x' holds Binary"),
    (
        {"id": [f"u{k}" for k in range(100)]},
        {},
        "no column remains to be modelled: column 'id' is not modelled: an identifier",
    ),
    ({"x": GOOD}, {"kinds": {"x": "real"}}, "unknown kind 'real'; the known ones are constant, identifier"),
    ({"x": GOOD}, {"kinds": {"x": "grid"}}, "column 'x' sits on no grid"),
    ({"x": GOOD, "t": list("ab") * 20}, {"kinds": {"t": "number"}}, "column 't' holds text"),
    ({"x": GOOD}, {"kinds": {"z": "grid"}}, "no column 'z' in table; the columns are x"),
    ({"x": GOOD}, {"kinds": {"x": "omit"}}, "no column remains to be modelled"),
    ({"x": GOOD}, {"condition": ["x"]}, "no column remains to be modelled"),
    ({"x": GOOD}, {"condition": ["z"]}, "no column 'z' in table; the columns are x"),
    ({"x": np.arange(N) + 2.0**60, "y": GOOD}, {"condition": ["x"]}, "column 'x' is the same in each row"),
]


@pytest.mark.parametrize(("columns", "options", "message"), UNLEARNABLE)
def test_unlearnable_tables(columns, options, message):
    with pytest.raises(UserError) as caught:
        fit_codec(table(pl.DataFrame(columns)), **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_whole_numbers_that_floats_cannot_tell_apart():
    frame = pl.DataFrame({"x": pl.Series(range(100), dtype=pl.Int64) + 2**60, "y": GOOD.tolist() * 2 + [0.0] * 20})
    codec = fit_codec(table(frame))
    assert codec.column("x").word == "identifier"
    few = frame.with_columns(pl.col("x") // 10 * 10)
    codec = fit_codec(table(few))
    assert codec.column("x").word == "category"
    state, coordinate = np.moveaxis(codec.encode(few)[0], 2, 0)
    assert codec.decode_cells(state.astype(int), coordinate)["x"].equals(few["x"])  # digit by digit


def test_a_column_of_nothing_is_carried_through(tmp_path):
    frame = pl.DataFrame({"x": [None] * N, "y": GOOD})
    frame.write_parquet(tmp_path / "a.parquet")
    codec = fit_codec(read(tmp_path / "a.parquet"))
    again = Codec.from_json(codec.to_json())
    assert again == codec and again.column("x").word == "constant"
    base, _ = again.encode(frame)
    assert again.spell(again.decode_base(base)).schema == frame.schema


def test_the_image_is_no_condition():
    with pytest.raises(UserError, match="cannot be the condition"):
        fit_image_codec(read("digits"), condition=["image"])


@pytest.mark.parametrize(("content", "flags", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_the_command_refuses_before_it_trains_and_leaves_nothing(tmp_path, content, flags, words):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(app, ["learn", str(tmp_path / "a.csv"), "--out", str(tmp_path / "run"), *given])
    assert isinstance(result.exception, UserError) and words in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_naming_every_column_as_a_condition_of_a_table_is_no_fault_and_is_said(tmp_path):
    (tmp_path / "a.csv").write_text(PLAIN)
    config, _ = configure(str(tmp_path / "a.csv"), condition=("x", "size"))
    assert config.condition == () and any(
        "changes nothing in what is learnt" in line for line in config.codec["notices"]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "x"], "--kind takes COLUMN=VALUE"),
        (["--kind", "z=grid"], "no column 'z'"),
        (["--kind", "x=real"], "unknown kind 'real'; the known ones are constant"),
        (["--kind", "x=category", "--condition", "z"], "no column 'z' to condition on"),
        (["--kind", '"x"=omit', "--kind", "size=omit"], "no column remains to be modelled"),
        (["--seed", "-1"], "--seed should lie between 0 and"),
        (["--seed", str(2**64)], "--seed should lie between 0 and"),
    ],
)
def test_flags_are_refused_in_one_line(tmp_path, arguments, words):
    (tmp_path / "a.csv").write_text(PLAIN)
    result = CliRunner().invoke(app, ["learn", str(tmp_path / "a.csv"), "--out", str(tmp_path / "run"), *arguments])
    assert isinstance(result.exception, UserError) and words in str(result.exception), result.exception
    assert "\n" not in str(result.exception) and not (tmp_path / "run").exists()
