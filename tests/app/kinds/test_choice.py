"""What kind a column is, as its own cells say."""

import time

import numpy as np
import polars as pl

from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table
from nablax.app._kinds._quantity import AbstractQuantity

from ..tables_at_hand import mixed


def test_kinds_are_chosen_from_the_data():
    codec = fit_codec(table(mixed()))
    kinds = {k.name: (k.word, isinstance(k, AbstractQuantity) and k.scale.log, k.missing) for k in codec.columns}
    assert kinds == {
        "length": ("number", False, True),
        "count": ("grid", False, True),
        "tenths": ("grid", False, False),
        "colour": ("category", False, True),
        "flag": ("category", False, False),
        "day": ("time", False, False),
        "price": ("number", True, False),
        "visits": ("grid", True, False),
        "name": ("identifier", False, False),
        "size": ("category", False, False),
    }
    assert "'name'" in codec.notices[0] and dict(codec.dropped).keys() == {"name"}
    assert [kind.states for kind in codec.modelled] == [2, 2, 1, 4, 2, 1, 1, 3, 3]
    assert codec.column("visits").atoms == (0.0, 1.0)  # nearly a fifth of the cells, and narrower than a knot
    assert codec.columns[-1].categories == ("S", "M", "L")


def test_thousands_of_categories_are_read_in_no_time():
    """A code is looked up, not searched for: four thousand of four thousand are sixteen million comparisons."""
    cells = pl.Series("place", [f"P{i % 4_000}" for i in range(12_000)])
    (kind,) = fit_codec(table(pl.DataFrame({"place": cells}))).modelled
    assert kind.word == "category" and kind.levels == 4_000
    began = time.process_time()
    state, _ = kind.encode(cells)
    assert time.process_time() - began < 1
    assert kind.decode(state, np.zeros(len(state))).equals(cells)
    more = pl.DataFrame({"place": [f"P{i % 4_100}" for i in range(12_300)], "x": [i % 7 for i in range(12_300)]})
    assert "more than 4096 categories" in fit_codec(table(more)).notices[0]
