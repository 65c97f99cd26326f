"""Any file whatever is read, encoded and spelled again without loss, or refused in one line."""

import csv
import random
import string

import numpy as np
import pytest

from nablax.app._data._codec import Codec, fit_codec
from nablax.app._data._sources import read, read_frame
from nablax.app._errors import UserError

ODD = ["NA", "", "-", "None", "nan", "inf", "-inf", "x", "True", " ", "?", "1e5", "0x10", "1_000", "٣", "½"]
ODD += ["1,5", "1.234.567,8", "$5", "5%", "−3", "12:30", "2020-02-30", "00", "+1", "1.", ".5", "'", '"']


def number(r):
    return f"{r.gauss(0.0, 10.0 ** r.randint(-8, 8)):.{r.randint(0, 6)}f}"


CELLS = [
    lambda r: str(r.randint(-5, 5)),
    lambda r: str(r.randint(0, 10 ** r.randint(1, 22))),
    number,
    lambda r: repr(r.gauss(0.0, 1.0) * 10.0 ** r.randint(-300, 300)),
    lambda r: f"{r.randint(1, 31)}.{r.randint(1, 12)}.{r.randint(1900, 2100)}",
    lambda r: f"{r.randint(1, 12)}/{r.randint(1, 31)}/{r.randint(10, 99)}",
    lambda r: f"20{r.randint(10, 30)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
    lambda r: f"{r.randint(0, 24):02}:{r.randint(0, 59):02}",
    lambda r: r.choice(ODD),
    lambda r: r.choice("abc"),
    lambda r: "".join(r.choice('ab",;\n\0 é漢=') for _ in range(r.randint(0, 5))),
    lambda r: f"{r.randint(0, 99):05}",
    lambda r: f"{r.randint(1, 999):,}",
    lambda r: number(r).replace(".", ","),
]
NAMES = ["", "a", "b c", "k=1", 'q"', "x,y", "2019", "image", "missing"]


def write(path, r):
    """A file of up to four columns, most of them of one sort of cell, some of two or three mixed."""
    columns = [[r.choice(CELLS) for _ in range(r.choice([1, 1, 1, 1, 2, 3]))] for _ in range(r.randint(1, 4))]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter=r.choice(",;\t|"), lineterminator=r.choice(["\n", "\r\n"]))
        out.writerow([r.choice(NAMES) + r.choice(["", string.ascii_letters[j]]) for j in range(len(columns))])
        out.writerows([r.choice(sorts)(r) for sorts in columns] for _ in range(r.choice([20, 25, 60, 130])))


@pytest.mark.parametrize("block", range(4))
def test_any_file_is_read_or_refused(tmp_path, block):
    learnt = 0
    for seed in range(60 * block, 60 * (block + 1)):
        write(tmp_path / "a.csv", random.Random(seed))
        try:
            source = read(tmp_path / "a.csv")
            codec = fit_codec(source)
        except UserError as error:
            assert "\n" not in str(error), seed
            continue
        learnt += 1
        assert Codec.from_json(codec.to_json()) == codec, seed
        base, _ = codec.encode(source.frame)
        assert not codec.impossible(base).any(), seed
        state, value = np.moveaxis(base, 2, 0).astype(float)
        for j, kind in enumerate(codec.modelled):
            value[:, j] = kind.standard(value[:, j])
        spelled = codec.spell(codec.decode_cells(state.astype(int), np.nan_to_num(value)))
        assert spelled.columns == list(source.columns), seed
        again, _ = codec.encode(spelled)
        np.testing.assert_array_equal(again[..., 0], base[..., 0], err_msg=str(seed))
        codec.encode(read_frame(tmp_path / "a.csv", "table"))
    assert learnt > 10
