"""A cell that is given is the table's own, however it was written."""

import datetime

import numpy as np
import polars as pl
import pytest

from nablax.app._ask._given import equal_rows, told_of, with_values
from nablax.app._data._codec import fit_codec
from nablax.app._data._plain_text import TextOptions
from nablax.app._data._sources import read, table
from nablax.app._errors import UserError

from ..tables_at_hand import mixed


@pytest.fixture(scope="module")
def frame():
    spans = [datetime.timedelta(minutes=15 * (k % 80), days=k % 3) for k in range(200)]
    single = pl.Series(np.random.default_rng(1).normal(size=200)).cast(pl.Float32)
    return mixed(200).drop("name").with_columns(took=pl.Series(spans), single=single)


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
        ("count", "7.6", 8),
        ("day", "2020-03-05", datetime.date(2020, 3, 5)),
        ("took", "2 days 01:30:00", datetime.timedelta(days=2, hours=1, minutes=30)),
        ("took", "1 day, 1:30:00", datetime.timedelta(days=1, hours=1, minutes=30)),
        ("took", "01:30:00", datetime.timedelta(hours=1, minutes=30)),
        ("took", "01:30", datetime.timedelta(hours=1, minutes=30)),
        ("took", "0.25", datetime.timedelta(hours=6)),
        ("took", "1 day", datetime.timedelta(days=1)),
        ("took", datetime.timedelta(hours=3), datetime.timedelta(hours=3)),
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


@pytest.mark.parametrize("written", ["an hour", "", "1h", "01:3", "2 days 1", "01:30:00 2 days"])
def test_a_duration_that_is_none_is_told_how(codec, written):
    with pytest.raises(UserError, match="takes a duration, such as '2 days 01:30:00', 01:30 or a number of days, not"):
        equal_rows(codec, {"took": written}, 1)


def test_a_duration_before_midnight(codec):
    back = codec.column("took")
    assert back.value_of("-1 day, 23:00:00") == pytest.approx(-1 / 24) == back.value_of("-01:00:00")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"price": "1e9"}, ["price=1e9 is out of the range that was learnt, "]),
        ({"count": "-9"}, ["count=-9 is out of the range that was learnt, -3 to 39"]),
        ({"count": "2.6"}, ["count=2.6 is none of its column's steps, and is taken for 3"]),
        ({"tenths": "0.33"}, ["tenths=0.33 is none of its column's steps, and is taken for 0.3"]),
        ({"day": "2035-01-01"}, ["day=2035-01-01 is out of the range that was learnt, 2020-01-0"]),
        ({"count": "2", "tenths": "0.3", "length": "9.123", "day": "2020-02-02", "colour": "red", "flag": "true"}, []),
    ],
)
def test_a_given_number_that_is_far_out_or_taken_for_another_is_said(codec, values, words):
    lines = told_of(codec, values)
    assert len(lines) == len(words) and all(word in line for word, line in zip(words, lines, strict=True)), lines


def test_either_end_of_the_range_as_it_is_printed_is_within(codec, frame):
    for name in ("single", "price", "tenths", "count", "day", "took"):
        ends = frame[name].cast(pl.Float32) if name == "single" else frame[name]
        assert told_of(codec, {name: str(ends.min())}) == told_of(codec, {name: str(ends.max())}) == ()


def test_a_date_is_given_in_the_columns_own_way_or_as_iso_has_it(tmp_path):
    lines = ["day,x", *(f"{k % 28 + 1}.{k % 7 + 1}.2021,{k * k % 17}" for k in range(200))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    source = read(tmp_path / "a.csv", text=TextOptions(dates="day-first"))
    kind = fit_codec(source).column("day")
    assert kind.value_of("5.3.2021") == kind.value_of("2021-03-05") == datetime.date(2021, 3, 5).toordinal() - 719163
    with pytest.raises(UserError, match="takes a date or time, not 'soon'"):
        kind.value_of("soon")
