"""Guides are read the same way by steering and by whoever looks whether rows satisfy them."""

import datetime

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from nablax.app._ask._comparisons import parse_guide
from nablax.app._ask._guide import _cost, satisfies
from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table
from nablax.app._errors import UserError

from ..tables_at_hand import mixed


@pytest.fixture(scope="module")
def frame():
    small = mixed(200).drop("name")
    return small.with_columns(
        pl.col("colour").str.to_titlecase(),
        pl.col("day").cast(pl.Datetime).alias("when"),
        pl.col("tenths").cast(pl.Float32).alias("single"),
    )


@pytest.fixture(scope="module")
def codec(frame):
    return fit_codec(table(frame))


def read(codec, guide):
    return parse_guide(guide, [column.name for column in codec.columns])


@pytest.mark.parametrize(
    ("guide", "truth"),
    [
        ("day > 18500 and when <= 18600", lambda f: f["day"].is_between(day(18501), day(18600))),
        ("flag == 'true'", lambda f: f["flag"]),
        ("flag == False", lambda f: ~f["flag"]),
        ("colour == 'red'", lambda f: f["colour"] == "Red"),
        ("size == 'm'", lambda f: f["size"] == "M"),
        ("3 <= count < 12.5", lambda f: f["count"].is_between(3, 12)),
        ("tenths == 0.3", lambda f: f["tenths"] == 0.3),
        ("single >= 0.3", lambda f: f["tenths"] >= 0.3),
    ],
)
def test_rows_that_satisfy_a_guide(codec, frame, guide, truth):
    wanted = truth(frame).fill_null(False).to_numpy()
    assert 0 < wanted.sum() < len(frame)
    np.testing.assert_array_equal(satisfies(codec, frame, read(codec, guide)), wanted)


def day(number):
    return datetime.date(1970, 1, 1) + datetime.timedelta(days=number)


def test_missing_cells_satisfy_nothing(codec, frame):
    none = frame.clear(3)
    assert not satisfies(codec, none, read(codec, "length > -99 and colour == 'red'")).any()


@pytest.mark.parametrize(
    "guide", ["length >= 10 and length <= 10", "10 < length < 10.01", "count >= 30 and count <= 30", "12 < price < 13"]
)
def test_a_narrow_window_is_no_contradiction(codec, guide):
    comparisons = read(codec, guide)
    box = _cost(codec, comparisons)
    place = int(codec.layout.value[codec.place_of(comparisons[0].column)])
    ends = sorted(codec.standardised(name, value) for name, _, value in comparisons)
    middle = 0.5 * (ends[0] + ends[1])
    assert float(box.lower[place]) == pytest.approx(min(middle, ends[0] + 0.05), abs=1e-6)
    assert float(box.upper[place]) == pytest.approx(max(middle, ends[1] - 0.05), abs=1e-6)
    assert np.isinf(np.delete(np.asarray(box.lower), place)).all()


def test_wide_windows_keep_their_margin(codec):
    box = _cost(codec, read(codec, "length > 8"))
    place = int(codec.layout.value[codec.place_of("length")])
    assert float(box.lower[place]) == pytest.approx(codec.standardised("length", 8.0) + 0.05, abs=1e-6)
    assert jnp.isinf(box.upper).all()


@pytest.mark.parametrize(
    "guide",
    [
        "length > 5 and length < 2",
        "length > 5 and length <= 5",
        "length == 5 and length > 6",
        "colour == 'Red' and colour == 'Blue'",
    ],
)
def test_contradictions_are_refused(codec, guide):
    with pytest.raises(UserError, match="contradicts itself"):
        _cost(codec, read(codec, guide))


def test_categories_have_no_order(frame):
    codec = fit_codec(table(frame), kinds={"visits": "category"})
    with pytest.raises(UserError, match="category"):
        _cost(codec, read(codec, "visits > 2"))
    with pytest.raises(UserError, match="takes a number"):
        _cost(codec, read(codec, "length == 'ten'"))
