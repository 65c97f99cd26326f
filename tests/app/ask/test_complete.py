"""What is filled in keeps to the type of the cells that were there, and its spread to the column's unit."""

import datetime
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from nablax.app._ask._complete import _middle, _of_one_type

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


def test_the_spread_is_in_the_columns_own_unit():
    prices = [pl.Series([Decimal(text)], dtype=pl.Decimal(10, 2)) for text in ("1.25", "1.75", "2.25")]
    value, spread = _middle(prices, True)
    assert value.to_list() == [Decimal("1.75")] and spread == pytest.approx([0.5])
    for unit in ("ms", "us", "ns"):
        moments = [pl.Series([NOON + datetime.timedelta(days=k)], dtype=pl.Datetime(unit)) for k in (4, 0, 2)]
        value, spread = _middle(moments, True)
        assert value.to_list() == [NOON + datetime.timedelta(days=2)] and value.dtype == pl.Datetime(unit)
        np.testing.assert_allclose(spread, [2.0])


def test_the_spread_of_a_category_is_the_share_that_disagrees():
    value, spread = _middle([pl.Series(["a", "b"]), pl.Series(["b", "b"]), pl.Series(["a", "b"])], False)
    assert value.to_list() == ["a", "b"]
    np.testing.assert_allclose(spread, [1 / 3, 0.0])
