"""What is filled in keeps to the type of the cells that were there, and its spread to the column's unit."""

import datetime
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from nablax.app import Table
from nablax.app._ask._complete import DRAWS, _of_one_type, _sure
from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table

NOON = datetime.datetime(2020, 1, 1, 12)


@pytest.mark.parametrize(
    ("there", "fills", "dtype"),
    [
        (pl.Series([3.7, None]), pl.Series([2]), pl.Float64),
        (pl.Series([3, None]), pl.Series([2.5]), pl.Float64),
        (pl.Series([3, None]), pl.Series([2.0]), pl.Int64),
        (pl.Series([300, None]), pl.Series([2], dtype=pl.Int8), pl.Int64),
        (pl.Series([3, None], dtype=pl.Int8), pl.Series([300]), pl.Int64),
        (pl.Series([0.1, None], dtype=pl.Float32), pl.Series([0.2]), pl.Float32),
        (pl.Series(["L", None], dtype=pl.Enum(["S", "L"])), pl.Series(["S"]), pl.Enum(["S", "L"])),
        (pl.Series(["L", None], dtype=pl.Enum(["L"])), pl.Series(["S"], dtype=pl.Enum(["S"])), pl.String),
        (pl.Series([1, None]), pl.Series([True]), pl.Int64),
        (pl.Series([True, None]), pl.Series(["maybe"]), pl.String),
        (pl.Series([NOON.date(), None]), pl.Series([NOON]), pl.Datetime("us")),
        (pl.Series([Decimal("1.25"), None]), pl.Series([1.5]), pl.Decimal(38, 2)),
        (pl.Series([2**60 + 1, None]), pl.Series([0.5]), pl.String),
        (pl.Series([None, None], dtype=pl.String), pl.Series([2.5]), pl.Float64),
        (pl.Series([None, None]), pl.Series(["S"]), pl.String),
    ],
)
def test_cells_keep_their_type_where_it_holds_what_is_filled_in(there, fills, dtype):
    cells, filled = _of_one_type(there.alias("x"), fills)
    assert cells.dtype == filled.dtype == dtype and cells.name == "x"
    assert cells.equals(there.cast(dtype)) and filled.equals(fills.cast(dtype))


def kind_of(cells):
    """The kind of a column that holds these cells, many times over."""
    return fit_codec(table(pl.DataFrame({"x": pl.concat([cells] * 40)}))).columns[0]


def test_the_centre_keeps_the_columns_type_and_the_spread_is_in_its_own_unit():
    prices = [pl.Series("x", [Decimal(text)], dtype=pl.Decimal(10, 2)) for text in ("1.25", "1.75", "2.25")]
    kind = kind_of(pl.concat(prices))
    middle = kind.centre(prices)
    assert middle.to_list() == [Decimal("1.75")]
    (spread,) = _sure(prices, middle, kind, None)
    assert spread.name == "x_spread" and spread.to_list() == pytest.approx([0.5])
    for unit in ("ms", "us", "ns"):
        moments = [pl.Series("x", [NOON + datetime.timedelta(days=k)], dtype=pl.Datetime(unit)) for k in (4, 0, 2)]
        kind = kind_of(pl.concat(moments))
        middle = kind.centre(moments)
        assert middle.to_list() == [NOON + datetime.timedelta(days=2)] and middle.dtype == pl.Datetime(unit)
        np.testing.assert_allclose(_sure(moments, middle, kind, None)[0], [2.0])


def test_a_number_is_filled_by_the_mean_of_its_draws_on_its_own_grid():
    # Of skewed draws the mean is what has the least squared error; the median would be 0.
    counts = [pl.Series("x", [n, 10 * n]) for n in (0, 0, 0, 1, 9)]
    centre = kind_of(pl.Series("x", [*range(50), 90])).centre(counts)
    assert centre.to_list() == [2, 20] and centre.dtype == pl.Int64
    prices = [pl.Series("x", [price]) for price in (1.25, 1.5, 9.99)]
    assert kind_of(pl.Series("x", [k / 100 for k in range(100, 1000, 7)])).centre(prices).to_list() == [
        4.22
    ]  # of 4.2467, in steps of 0.07 from 1
    real = [pl.Series("x", [x]) for x in (0.1, 0.2, 0.9123456)]
    assert kind_of(pl.Series("x", np.random.default_rng(0).random(60))).centre(real)[0] == pytest.approx(0.4041152)


def test_a_category_is_filled_by_vote_with_its_share_of_the_votes():
    drawn = [pl.Series("x", ["a", "b"]), pl.Series("x", ["b", "b"]), pl.Series("x", ["a", "b"])]
    kind = kind_of(pl.Series("x", ["a", "b"]))
    middle = kind.centre(drawn)
    assert middle.to_list() == ["a", "b"]
    (share,) = _sure(drawn, middle, kind, None)
    assert share.name == "x_probability"
    np.testing.assert_allclose(share, [2 / 3, 1.0])


def test_an_interval_holds_its_share_of_fresh_draws():
    # A fresh draw lies below the k-th of n with probability k / (n + 1), whatever the distribution.
    random = np.random.default_rng(0)
    values = random.normal(size=(20_000, DRAWS + 1))
    drawn = [pl.Series("x", column) for column in values[:, :-1].T]
    kind = kind_of(pl.Series("x", values[:50, 0]))
    for share in (0.5, 0.8, 0.9):
        low, high = _sure(drawn, kind.centre(drawn), kind, share)
        assert (low.name, high.name) == ("x_low", "x_high")
        inside = (low.to_numpy() <= values[:, -1]) & (values[:, -1] <= high.to_numpy())
        assert inside.mean() == pytest.approx(share, abs=0.01 + 3 * np.sqrt(share * (1 - share) / len(values)))


def test_cells_that_are_there_for_some_rows_only_do_not_speak_for_the_others(tmp_path):
    """In three rows of ten, the tall ones, a number is there: where it and the size are empty, tall ones are as many."""
    random = np.random.default_rng(0)
    grown = random.random(600) < 0.3
    size, left = np.where(grown, 4.0, 0.0) + random.normal(size=600), random.normal(size=600)
    crown = [x if there else None for x, there in zip(1.0 + random.normal(size=600), grown)]
    rows = pl.DataFrame({"size": size, "crown": crown, "left": left})
    table = Table.learn(rows, out=tmp_path / "run", report="none", steps=400, width=16, quiet=True)
    holes = pl.DataFrame({"size": [None], "crown": [None], "left": [0.0]}, schema=rows.schema)
    drawn = table.complete(holes, draws=1000)
    assert drawn["crown"].null_count() == 0
    tall = np.mean(table.sample(2000)["size"].to_numpy() > 2.0)
    assert 0.2 < tall < 0.4
    assert np.mean(drawn["size"].to_numpy() > 2.0) == pytest.approx(tall, abs=3 * np.sqrt(0.25 * (1 / 1000 + 1 / 2000)))
