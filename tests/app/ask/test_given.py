"""A cell that is given is the table's own, however it was written."""

import datetime

import numpy as np
import polars as pl
import pytest

from nablax.app._ask._given import equal_rows, with_values
from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table
from nablax.app._errors import UserError

from ..tables_at_hand import mixed


@pytest.fixture(scope="module")
def frame():
    spans = [datetime.timedelta(minutes=15 * (k % 80), days=k % 3) for k in range(200)]
    return mixed(200).drop("name").with_columns(took=pl.Series(spans))


@pytest.fixture(scope="module")
def codec(frame):
    return fit_codec(table(frame))


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("flag", "True", True),
        ("flag", "true", True),
        ("flag", "false", False),
        ("flag", True, True),
        ("colour", "RED", "red"),
        ("size", "m", "M"),
        ("count", "7", 7),
        ("day", "2020-03-05", datetime.date(2020, 3, 5)),
    ],
)
def test_a_given_cell(codec, frame, name, written, meant):
    given = equal_rows(codec, {name: written}, 3)
    assert given.cells.sum() == 3
    drawn = with_values(codec, codec.decode_base(codec.encode(frame[:3])[0]), {name: written})
    assert drawn[name].to_list() == [meant] * 3 and drawn.schema == frame.select(drawn.columns).schema
    j = codec.place_of(name)
    there = codec.encode(frame.with_columns(pl.lit(meant, frame[name].dtype).alias(name))[:1])[0]
    np.testing.assert_array_equal(given.base[:, j], there[[0] * 3, j])


def test_a_truth_value_that_is_none(codec):
    with pytest.raises(UserError, match="column 'flag' has no value 'maybe'; the known ones are False, True"):
        equal_rows(codec, {"flag": "maybe"}, 1)
