"""Every kind of source is read as what it holds, and large ones without being held."""

import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from nablax.app._data._codec import fit_codec
from nablax.app._data._named import NAMED, named
from nablax.app._data._sources import read, read_frame
from nablax.app._data._spool import spool
from nablax.app._errors import UserError

from ..tables_at_hand import mixed


def test_tables_come_back_from_csv_and_parquet(tmp_path):
    frame = mixed()
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    source = read(tmp_path / "a.csv", condition=["colour"])
    # A cell of text is kept as it stands in the file.
    assert source.frame.write_csv().encode() == (tmp_path / "a.csv").read_bytes()
    assert set(source.frame.dtypes) == {pl.String}
    assert (source.name, source.kind, source.rows) == ("a", "table", len(frame))
    assert read(tmp_path / "a.parquet").frame.equals(frame)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_quotes(tmp_path, separator):
    frame = pl.DataFrame({"a": [str(k) for k in range(30)], "b": ["x,y;z"] * 30, "ü c": ["1.5"] * 30})
    (tmp_path / "a.csv").write_bytes(
        b"\xef\xbb\xbf" + frame.write_csv(separator=separator, quote_style="always").encode()
    )
    assert read(tmp_path / "a.csv").frame.equals(frame)


def test_a_table_without_a_header_is_noticed(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{k},{k / 2}\n" for k in range(30)))
    source = read(tmp_path / "a.csv")
    assert source.columns == ("x0", "x1") and source.rows == 30
    assert "no header" in source.notices[0]


def test_missing_words_and_late_surprises(tmp_path):
    # The type of a column may only show after the rows that are looked at first.
    lines = [f"{k},,NA,1" for k in range(12_000)] + ["0.5,3,7,1", "1,?,nan,2"]
    (tmp_path / "a.csv").write_text("a,b,c,d\n" + "\n".join(lines) + "\n\n")
    source = read(tmp_path / "a.csv")
    codec = fit_codec(source, kinds={"a": "number"})
    assert [column.dtype for column in codec.columns] == ["Float64", "String", "String", "Int64"]
    assert source.rows == 12_002 == len(source.frame)
    assert codec.column("b").missing and codec.column("b").categories == ("3",)
    assert codec.column("a").scale.high == 11_999
    assert "1 empty rows skipped" in source.notices[0]


def test_arrays_are_tables_or_images(tmp_path):
    random = np.random.default_rng(0)
    flat = random.normal(size=(40, 3)).astype(np.float32)
    flat[3, 1] = np.nan
    for name, array in {"flat": flat, "line": flat[:, 0], "big": flat.astype(">f8")}.items():
        np.save(tmp_path / f"{name}.npy", array)
    assert read(tmp_path / "flat.npy").columns == ("x0", "x1", "x2")
    np.testing.assert_array_equal(read(tmp_path / "flat.npy").frame.to_numpy(), flat)
    np.testing.assert_array_equal(read(tmp_path / "big.npy").frame.to_numpy(), flat)
    assert read(tmp_path / "line.npy").columns == ("x0",)
    assert fit_codec(read(tmp_path / "flat.npy")).columns[1].missing
    images = random.integers(0, 256, (30, 4, 5), dtype=np.uint8)
    np.savez(tmp_path / "i.npz", data=images, label=np.arange(30) % 3)
    source = read(tmp_path / "i.npz")
    assert source.kind == "images" and source.columns == ("image", "label")
    np.testing.assert_array_equal(source.frame["image"].to_numpy(), images[..., None])
    np.savez(tmp_path / "only.npz", whatever=flat)
    assert read(tmp_path / "only.npz").kind == "table"


@pytest.mark.parametrize("name", NAMED)
def test_named_sets(name):
    source = read(name, rows=500, seed=3)
    assert source.frame.equals(read(name, rows=500, seed=3).frame)
    assert source.rows == (1797 if name == "digits" else 500)
    if name != "digits":
        assert not source.frame.equals(read(name, rows=500, seed=4).frame)
        assert source.fingerprint != read(name, rows=500, seed=4).fingerprint
        assert 0.3 < source.frame["x"].std() < 3.0 and len(read(name).frame) == 10_000


def test_the_plane_sets_have_their_shapes():
    x, y = named("checkerboard", n=20_000).to_numpy().T
    assert np.all((np.floor(x) + np.floor(y)) % 2 == 0) and np.abs([x, y]).max() <= 2
    counts = np.histogram2d(x, y, bins=[range(-2, 3)] * 2)[0]
    np.testing.assert_allclose(counts[counts > 0], 2500, rtol=0.1)
    points = named("8gaussians", n=20_000).to_numpy()
    angle = np.arctan2(points[:, 1], points[:, 0]) / (np.pi / 4)
    assert np.abs(angle - np.rint(angle)).std() < 0.2
    np.testing.assert_allclose(np.linalg.norm(points, axis=1).mean(), 2.0, atol=0.05)


def test_fingerprints_follow_the_contents(tmp_path):
    frame = mixed()
    frame.write_csv(tmp_path / "a.csv")
    first = read(tmp_path / "a.csv").fingerprint
    assert read(tmp_path / "a.csv").fingerprint == first
    frame.with_columns(count=pl.lit(3)).write_csv(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv").fingerprint != first


@pytest.mark.parametrize("ending", ["csv", "parquet", "npy"])
def test_rows_on_disk_encode_as_rows_in_memory(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    frame = mixed(n=70_000, missing=0.05).drop("name")
    if ending == "npy":
        np.save(path, np.random.default_rng(0).normal(size=(70_000, 3)).astype(np.float32))
    else:
        getattr(frame, f"write_{ending}")(path)
    held, streamed = read(path), read(path, memory_limit=1)
    assert streamed.frame is None and streamed.rows == held.rows == 70_000
    assert streamed.schema == held.schema
    condition = ["colour"] if ending != "npy" else []
    codec = fit_codec(streamed, condition=condition)
    base, vectors, resident = spool(streamed, codec, tmp_path / "run")
    assert not resident and isinstance(base, np.memmap)
    whole, whole_vectors, _ = spool(held, codec, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    np.testing.assert_array_equal(base, whole)
    np.testing.assert_array_equal(vectors, whole_vectors)
    # What is there is used again, unless it came from another codec.
    written = (tmp_path / "run" / "encoded" / "base.npy").stat().st_ino
    spool(streamed, codec, tmp_path / "run")
    assert (tmp_path / "run" / "encoded" / "base.npy").stat().st_ino == written
    spool(streamed, fit_codec(held, kinds={held.columns[0]: "omit"}), tmp_path / "run")
    assert np.load(tmp_path / "run" / "encoded" / "base.npy", mmap_mode="r").shape[1] == len(held.columns) - 1


def test_an_interrupted_spool_leaves_nothing(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.random.default_rng(0).normal(size=(100, 2)))
    streamed = read(path, memory_limit=1)
    codec = fit_codec(streamed)
    np.save(path, np.full((100, 2), np.nan))  # the file changes under the reader
    with pytest.raises(UserError, match="the file changed while it was read"):
        spool(read(path, memory_limit=1), codec, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


_MEASURE = """
import re, sys, threading, time
from pathlib import Path
from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import read
from nablax.app._data._spool import spool

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.005)

small = read(sys.argv[2], memory_limit=1)
spool(small, fit_codec(small), Path(sys.argv[3]) / "small")  # code and buffers are loaded
peak = before = anonymous()
threading.Thread(target=watch, daemon=True).start()
source = read(sys.argv[1], memory_limit=1)
base, _, _ = spool(source, fit_codec(source), Path(sys.argv[3]) / "large")
total = 0.0
for at in range(0, len(base), 50_000):
    total += float(base[at : at + 1024].sum())
print(peak - before, base.nbytes / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("ending", ["parquet", "npy"])
def test_memory_stays_flat(tmp_path, ending):
    random = np.random.default_rng(0)
    rows, columns = 2_500_000, 12

    def write(path, rows):
        if ending == "npy":
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(rows, columns))
            for at in range(0, rows, 100_000):
                array[at : at + 100_000] = random.normal(size=array[at : at + 100_000].shape)
        else:
            frame = pl.DataFrame({f"c{j}": random.normal(size=rows) for j in range(columns)})
            frame.write_parquet(path, row_group_size=100_000)

    write(tmp_path / f"large.{ending}", rows)
    write(tmp_path / f"small.{ending}", 100_000)
    arguments = [str(tmp_path / f"large.{ending}"), str(tmp_path / f"small.{ending}"), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", _MEASURE, *arguments], capture_output=True, text=True, check=True)
    grown, encoded = (float(word) for word in done.stdout.split())
    # The rows take 229 MiB in float64; memory may grow by buffers, not by rows.
    assert encoded > 100
    assert grown < 60, f"memory grew by {grown:.0f} MiB"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_to_score_are_kept_however_empty(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(end.join(["a,b", "1,2", ",", "", "3,4", "", ""]).encode())
    assert read_frame(path, "table").rows() == [("1", "2"), (None, None), ("3", "4")]  # blank lines are no rows here
    path.write_bytes(end.join(["1,2", "", ",", "3,4"]).encode())
    assert read_frame(path, "table").rows() == [("1", "2"), (None, None), ("3", "4")]
    path.write_bytes(end.join(["a", "1", "", "3", "", ""]).encode())
    assert read_frame(path, "table")["a"].to_list() == ["1", None, "3", None]
    path.write_bytes(end.join(["a,b,c", "1,2,3", ",", ""]).encode())
    with pytest.raises(UserError, match="line 3 has 2 cells"):
        read_frame(path, "table")
    # Training goes without them, and says so.
    path.write_bytes(end.join(["a,b", ",", *(f"{k},{k}" for k in range(30))]).encode())
    source = read(path)
    assert source.rows == 30 == len(source.frame) and "1 empty rows skipped" in source.notices[0]


def test_rows_to_score_are_of_the_models_kind(tmp_path):
    mixed(n=3).write_csv(tmp_path / "a.csv")
    assert len(read_frame(tmp_path / "a.csv", "table")) == 3
    with pytest.raises(UserError, match=re.escape("the model was learnt from images, and these are a table")):
        read_frame(tmp_path / "a.csv", "images")
