"""Guides are read the same way by steering and by whoever looks whether rows satisfy them."""

import datetime
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from nablax.app._ask._comparisons import parse_guide
from nablax.app._ask._guide import _bounds, allowed_states, satisfies, windows
from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table
from nablax.app._errors import UserError
from nablax.app._model._normal_scores import fit_normal_scores

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
        ("day > 2020-08-26 and when <= '2020-12-04'", lambda f: f["day"].is_between(day(18501), day(18600))),
        ("2020-08-26 < day and when <= 2020-12-04 00:00:00", lambda f: f["day"].is_between(day(18501), day(18600))),
        ("flag == 'true'", lambda f: f["flag"]),
        ("flag == False", lambda f: ~f["flag"]),
        ("colour == 'red'", lambda f: f["colour"] == "Red"),
        ("colour == red", lambda f: f["colour"] == "Red"),
        ("red == colour and count<9", lambda f: (f["colour"] == "Red") & (f["count"] < 9)),
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


@pytest.fixture(scope="module")
def joint(frame, codec):
    """A model whose normal scores are fitted, and whose networks are not."""
    base = codec.encode(frame)[0][:, list(codec.valued)]
    there = (base[..., 0] == 0) & np.isfinite(base[..., 1])
    y = np.asarray(codec.measure(jnp.where(there, base[..., 1], 0.0), jax.random.key(0))[0])
    scores = fit_normal_scores([y[there[:, j], j] for j in range(y.shape[1])])
    return SimpleNamespace(normal_scores=scores)


def box(codec, joint, guide):
    return _bounds(joint, codec, *windows(codec, read(codec, guide)))


def scored(codec, joint, name, value):
    """The normal score of a number."""
    row = np.zeros((1, len(codec.valued)), np.float32)
    row[0, place(codec, name)] = codec.standardised(name, value)
    return float(joint.normal_scores.forward(jnp.asarray(row))[0][0, place(codec, name)])


def place(codec, name):
    return codec.valued.index(codec.place_of(name))


@pytest.mark.parametrize(
    "guide", ["length >= 10 and length <= 10", "10 < length < 10.01", "count >= 30 and count <= 30", "12 < price < 13"]
)
def test_a_narrow_window_is_no_contradiction(codec, joint, guide):
    comparisons = read(codec, guide)
    name, found = comparisons[0].column, box(codec, joint, guide)
    ends = sorted(scored(codec, joint, name, value) for _, _, value in comparisons)
    middle, at = 0.5 * (ends[0] + ends[1]), place(codec, name)
    assert float(found.lower[at]) == pytest.approx(min(middle, ends[0] + 0.05), abs=1e-5)
    assert float(found.upper[at]) == pytest.approx(max(middle, ends[1] - 0.05), abs=1e-5)
    assert np.isinf(np.delete(np.asarray(found.lower), at)).all()


def test_wide_windows_keep_their_margin(codec, joint):
    found = box(codec, joint, "length > 8")
    at = place(codec, "length")
    assert float(found.lower[at]) == pytest.approx(scored(codec, joint, "length", 8.0) + 0.05, abs=1e-5)
    assert jnp.isinf(found.upper).all()


@pytest.mark.parametrize(
    "guide",
    [
        "length > 5 and length < 2",
        "length > 5 and length <= 5",
        "length == 5 and length > 6",
        "colour == 'Red' and colour == 'Blue'",
        "year > 2001 and year < 2002",
    ],
)
def test_contradictions_are_refused(frame, guide):
    # Few years, each often: all of them are atoms, and none is left.
    codec = fit_codec(table(frame.with_columns(year=2000 + pl.int_range(pl.len()) % 4)))
    with pytest.raises(UserError, match="contradicts itself"):
        allowed_states(codec, read(codec, guide))


def test_states_that_a_guide_rules_out_are_not_drawn(frame):
    codec = fit_codec(table(frame.with_columns(year=2000 + pl.int_range(pl.len()) % 4)))
    allowed = allowed_states(codec, read(codec, "year >= 2002 and colour == 'Red' and length > 8"))
    year, colour, length = (codec.place_of(name) for name in ("year", "colour", "length"))
    kept = [codec.modelled[year].atoms[k - 1] for k in np.flatnonzero(allowed[year]) if k]
    assert kept == [2002.0, 2003.0]
    red = codec.modelled[colour].code_of("Red")
    assert np.flatnonzero(allowed[colour]).tolist() == [red]
    # It may be missing in the table, but a missing length is not above 8.
    assert codec.modelled[length].missing and not allowed[length, codec.modelled[length].levels]
    assert allowed[length, 0]
    assert allowed[codec.place_of("size")].sum() == codec.modelled[codec.place_of("size")].states


def test_categories_have_no_order(frame):
    codec = fit_codec(table(frame), kinds={"visits": "category"})
    for guide in ("visits > 2", "colour > 'red'", "colour >= red"):
        with pytest.raises(UserError, match="is a category: compare it with =="):
            allowed_states(codec, read(codec, guide))
    with pytest.raises(UserError, match="takes a number"):
        allowed_states(codec, read(codec, "length == 'ten'"))


@pytest.mark.parametrize(
    ("guide", "found"),
    [
        ("when > 2021-06-01", [("when", ">", "2021-06-01")]),
        ("5.3.2021 <= when < 2021-06-01 15:53:19.5", [("when", ">=", "5.3.2021"), ("when", "<", "2021-06-01 15:53:19.5")]),
        ("when < 15:53", [("when", "<", "15:53")]),
        ("1990-01 <= when < 1990-10", [("when", ">=", "1990-01"), ("when", "<", "1990-10")]),
        ("`body mass`>5and`class` == x", [("body mass", ">", 5), ("class", "==", "x")]),
        ("\u00b5 > 3", [("\u00b5", ">", 3)]),
        ("sex == 'on 2021-06-01'", [("sex", "==", "on 2021-06-01")]),
        ("`2021-06-01` > 1.5", [("2021-06-01", ">", 1.5)]),
    ],
)  # fmt: skip
def test_dates_words_and_names_of_any_sort(guide, found):
    columns = ["when", "sex", "body mass", "\u00b5", "class", "2021-06-01"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [tuple(comparison) for comparison in parse_guide(guide, columns)] == found


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        ("class > 3", "in backquotes: `body mass` > 5"),
        ("body mass > 3", "in backquotes"),
        ("when == sex", "two columns are not compared"),
        ("sexx == f", "no column 'sexx'"),
        ("sex > True", "a truth value is compared with =="),
    ],
)
def test_guides_that_are_none_say_what_to_write(guide, words):
    with pytest.raises(UserError, match=words):
        parse_guide(guide, ["when", "sex", "class", "body mass"])


def test_a_guide_beyond_the_range_says_the_range(codec):
    with pytest.raises(UserError, match="the guide asks for count > 99, and what was learnt lies from -3 to 39"):
        allowed_states(codec, read(codec, "count > 99 and tenths < 1"))
    with pytest.raises(UserError, match="the guide asks for day < 1999-01-01, and what was learnt lies from 2020-01-0"):
        allowed_states(codec, read(codec, "day < 1999-01-01"))
