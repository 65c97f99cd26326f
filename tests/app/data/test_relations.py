"""Relations that were put into a table are found, word by word; where none was, none is; and what is kept holds."""

import dataclasses
import datetime
import json

import numpy as np
import polars as pl
import pytest

from nablax.app._data._codec import Codec, fit_codec
from nablax.app._data._find_relations import find_relations
from nablax.app._data._kept import keep, lines, on_grid, solved, why_not
from nablax.app._data._relations import Factor, Formula, Lookup, Order, Term, percent
from nablax.app._data._sources import table
from nablax.app._errors import UserError

from ..tables_at_hand import bills, days


def found(frame, **kinds):
    source = table(frame)
    return find_relations(source, fit_codec(source, kinds=kinds).columns)


def said(frame, **kinds):
    return sorted(map(str, found(frame, **kinds)))


def test_only_what_does_not_follow_from_the_rest_is_listed_what_is_needed_first():
    # percent is 100·tax / (net + tax) as well, and net is total − tax: both follow.
    relations = found(bills())
    assert sorted(map(str, relations)) == [
        "percent is 100·tax / total",
        "postcode says town",
        "sent is never above paid",
        "total is net + tax",
    ]
    targets = [relation.target for relation in relations if not isinstance(relation, Order)]
    assert targets.index("total") < targets.index("percent")
    assert all((relation.rows, relation.broken) == (300, 0) for relation in relations)


@pytest.mark.parametrize(
    ("columns", "relation"),
    [
        (
            lambda a, b, n: {"a": a, "b": b, "c": a[::-1], "d": b[::-1], "sum": np.round(a + b + a[::-1] + b[::-1], 2)},
            "sum is a + b + c + d",
        ),
        (lambda a, b, n: {"celsius": a, "fahrenheit": np.round(1.8 * a + 32, 1)}, "fahrenheit is 1.8·celsius + 32"),
        (lambda a, b, n: {"count": n, "price": a, "cost": np.round(n * a, 2)}, "cost is count·price"),
        (
            lambda a, b, n: {"count": n, "price": a, "post": b, "cost": np.round(n * a + b, 2)},
            "cost is count·price + post",
        ),
        (lambda a, b, n: {"mass": a, "height": b, "bmi": np.round(1e4 * a / b**2, 2)}, "bmi is 10000·mass / height²"),
        (lambda a, b, n: {"a": a, "b": b, "share": np.round(a / (a + b), 4)}, "share is a / (a + b)"),
        (
            lambda a, b, n: {"old": a, "new": b, "growth": np.round(100 * (b - a) / a, 1)},
            "growth is 100·new / old − 100",
        ),
        (lambda a, b, n: {"wage": a, "log_wage": np.log(a)}, "log_wage is log(wage)"),
        (lambda a, b, n: {"arrived": days(n), "left": days(n + n[::-1]), "stay": n[::-1]}, "left is arrived + stay"),
        (lambda a, b, n: {"first": n, "second": n[::-1], "gap": n - n[::-1]}, "gap is first − second"),
    ],
)
def test_a_formula_is_found_word_by_word(columns, relation):
    random = np.random.default_rng(1)
    a, b = (np.round(scale * random.gamma(4.0, 0.25, 400), 2) for scale in (40.0, 90.0))
    made = columns(a, b, random.integers(1, 60, 400)) | {"noise": random.normal(size=400)}
    (formula, *others) = found(pl.DataFrame(made))
    assert str(formula) == relation and formula.broken == 0
    assert not any(isinstance(other, Formula) for other in others)


def stones(rows, seed=0):
    """A twin of ggplot2's diamonds: a depth from three lengths that were rounded after it was measured."""
    random = np.random.default_rng(seed)
    width = random.gamma(9.0, 0.6, rows) + 2.0
    x, y = width * random.normal(1.0, 0.004, rows), width * random.normal(1.0, 0.004, rows)
    depth = random.normal(61.7, 1.4, rows)
    z = depth * (x + y) / 200.0
    price = np.exp(random.normal(0.0, 0.3, rows)) * 40.0 * width**3 / 10.0
    return pl.DataFrame(
        {
            "carat": np.round(0.0037 * width**3 * random.normal(1.0, 0.02, rows), 2),
            "depth": np.round(depth, 1),
            "table": np.round(random.normal(57.0, 2.0, rows)),
            "price": np.rint(price).astype(int),
            **{name: np.round(length, 2) for name, length in zip("xyz", (x, y, z))},
        }
    )


def test_a_small_difference_of_large_columns_is_not_worked_out():
    """A trip's seconds follow from two moments of a month to no digit that a model of these has; the end follows."""
    random = np.random.default_rng(3)
    start = np.datetime64("2024-05-01T00:00:00", "us") + random.integers(0, 30 * 86_400, 400) * np.timedelta64(1, "s")
    seconds = random.integers(20, 3_000, 400)
    frame = pl.DataFrame({"start": start, "end": start + seconds * np.timedelta64(1, "s"), "seconds": seconds})
    (end,) = found(frame)  # and that the end is never before the start follows
    assert end.target == "end"


def test_the_ratio_that_was_rounded_follows_and_not_what_it_was_made_of():
    random = np.random.default_rng(4)
    height, weight = np.round(random.normal(1.7, 0.1, 300), 2), np.round(random.normal(70, 12, 300), 1)
    (index,) = found(pl.DataFrame({"h": height, "w": weight, "bmi": np.round(weight / height**2, 1)}))
    assert index.target == "bmi"


def test_orders_that_a_formula_does_not_imply_stay():
    random = np.random.default_rng(5)
    x, y = random.integers(0, 100, (2, 400))
    orders = set(said(pl.DataFrame({"x": x, "y": y, "most": np.maximum(x, y), "least": np.minimum(x, y)})))
    assert {"least is never above x", "y is never above most"} <= orders


def test_few_rows_prove_no_order_of_numbers():
    """With none of n broken 3/n may be; dates, which have an order by their meaning, take fewer."""
    random = np.random.default_rng(6)
    low = np.round(random.normal(size=250), 2)
    frame = pl.DataFrame({"low": low, "high": low + np.round(random.exponential(1.0, 250), 2)})
    assert said(frame) == []
    assert said(pl.concat([frame, frame])) == ["low is never above high"]


def test_rounded_lengths_and_wrong_rows_do_not_hide_a_formula():
    frame = stones(6000)
    # Six rows in a thousand are wrong, some of them grossly, and in one the ratio is 0 / 0.
    wrong = np.arange(6000) % 1000 < 6
    z = np.where(wrong, frame["z"].to_numpy() * 10.0, frame["z"].to_numpy())
    frame = frame.with_columns(z=pl.Series(z))
    frame = frame.with_columns(pl.when(pl.int_range(6000) == 3).then(0.0).otherwise(pl.col(n)).alias(n) for n in "xyz")
    (depth,) = found(frame)
    assert str(depth) == "depth is 200·z / (x + y)"
    assert (depth.rows, depth.broken, depth.examples) == (6000, 36, (0, 1, 2, 3, 4))
    assert percent(depth.share) == "99.4 %"
    # In one row of fifty it is no relation.
    wrong = np.arange(6000) % 50 == 0
    assert said(frame.with_columns(z=pl.Series(np.where(wrong, 1.1 * z, z)))) == []


def independent(seed):
    random = np.random.default_rng(seed)
    rows = int(random.choice([20, 30, 60, 150, 500]))
    latent = random.normal(size=(rows, 4))
    columns = {}
    for j in range(12):
        x = latent[:, j % 4] * (j < 6) + random.normal(size=rows)
        made = (
            np.round(x, 1),
            np.rint(3.0 * x).astype(int),
            (x > 0.0).astype(int),
            np.round(np.exp(x), 2),
            random.poisson(2.0, rows),
            days(np.rint(40.0 * x)),
            random.choice(list("abcdef"), rows),
            x,
        )
        columns[f"c{j}"] = made[random.integers(8)]
    return pl.DataFrame(columns)


def test_nothing_is_found_where_there_is_nothing():
    # Few rows and coarse columns leave room for any formula; half of the columns hang together by pairs.
    assert [said(independent(seed)) for seed in range(20)] == [[]] * 20


def test_noise_of_the_size_of_a_unit_is_no_rounding():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 500, 300), random.integers(0, 500, 300)
    assert said(pl.DataFrame({"a": a, "b": b, "c": a + b})) == ["c is a + b"]
    assert not any(
        "c is" in text for text in said(pl.DataFrame({"a": a, "b": b, "c": a + b + random.integers(0, 2, 300)}))
    )


def test_an_order_needs_ranges_that_overlap_and_no_exception():
    random = np.random.default_rng(0)
    start, gap = random.integers(0, 300, 200), random.integers(0, 200, 200)
    frame = pl.DataFrame({"start": days(start), "end": days(start + gap)})
    (order,) = found(frame)
    assert (order.low, order.high, order.broken) == ("start", "end", 0)
    # The share of pairs drawn apart that lie the other way round, by brute force.
    assert order.expected == pytest.approx(np.mean(start[:, None] > (start + gap)[None]))
    assert said(frame.with_columns(end=pl.Series(days(np.where(np.arange(200) == 7, -1, start + gap))))) == []
    assert said(pl.DataFrame({"start": days(start), "end": days(400 + gap)})) == []
    # a <= b <= c says a <= c.
    c = start + gap + random.integers(0, 200, 200)
    assert said(pl.DataFrame({"a": days(start), "b": days(start + gap), "c": days(c)})) == [
        "a is never above b",
        "b is never above c",
    ]


def test_a_level_that_occurs_once_says_nothing():
    random = np.random.default_rng(0)
    street, side = np.arange(100) // 2, random.choice(["left", "right"], 100)
    names = [f"s{k}" for k in np.where(np.arange(100) < 40, street, np.arange(100))]
    assert said(pl.DataFrame({"street": names, "side": side}), street="category") == []
    frame = pl.DataFrame({"street": [f"s{k}" for k in street % 10], "side": np.where(street % 10 < 4, "left", "right")})
    assert said(frame) == ["street says side"]


def test_levels_that_no_row_looked_at_had_are_learnt_from_all_rows():
    # Of 9,000 rows every second one is looked at; the rare postcodes stand in the others.
    rows = np.arange(9000)
    place = np.where((rows % 2 == 1) & (rows < 200), 100 + rows // 20, rows % 97)
    town = np.where(rows == 4001, 3, place % 5)
    (lookup,) = found(pl.DataFrame({"postcode": [f"P{k}" for k in place], "town": [f"T{k}" for k in town]}))
    assert isinstance(lookup, Lookup) and len(lookup.said) == len(np.unique(place))
    assert (lookup.rows, lookup.broken, lookup.examples) == (9000, 1, (4001,))


@pytest.mark.parametrize(
    ("cells", "value", "cell"),
    [
        (pl.Series("x", [1, 2, 100], dtype=pl.Int8), [99.6, 300.0, -128.0], [100, None, None]),
        (pl.Series("x", [1, 2, 100], dtype=pl.UInt16), [-1.0, 65535.0, 65536.0], [None, 65535, None]),
        (
            pl.Series("x", [datetime.time(6), datetime.time(7), datetime.time(23)]),
            [0.5, 1.0, -0.1],
            [datetime.time(12), None, None],
        ),
        (pl.Series("x", days([0, 1, 9])), [18262.4, 1e9, np.inf], [datetime.date(2020, 1, 1), None, None]),
        (pl.Series("x", [0.1, 0.2, 0.5]), [0.3400001, np.nan, 1e300], [0.3, None, None]),
    ],
)
def test_a_number_that_a_column_cannot_hold_leaves_its_cell_empty(cells, value, cell):
    (kind,) = fit_codec(table(pl.DataFrame([pl.concat([cells] * 20)]))).columns
    assert on_grid(kind, np.array(value)).to_list() == cell


def kept_codec(frame):
    source = table(frame)
    codec = fit_codec(source)
    return Codec(codec.columns, codec.condition, relations=keep(find_relations(source, codec.columns)))


def test_what_is_kept_is_worked_out_and_not_modelled():
    frame = bills()
    codec = kept_codec(frame)
    assert [kind.name for kind in codec.modelled] == ["net", "tax", "sent", "paid", "postcode"]
    random = np.random.default_rng(0)
    states = np.stack([random.integers(0, kind.levels, 500) for kind in codec.modelled], axis=1)
    drawn = codec.decode_cells(states, random.normal(size=(500, 5)))
    assert drawn.schema == frame.schema
    net, tax, total = (drawn[name].to_numpy() for name in ("net", "tax", "total"))
    np.testing.assert_array_equal(total, np.round(net + tax, 2))
    np.testing.assert_allclose(drawn["percent"], 100.0 * tax / total, atol=0.05 + 1e-9)
    assert drawn.select(
        (pl.col("town") == "T" + (pl.col("postcode").str.slice(1).cast(pl.Int64) // 3).cast(pl.String)).all()
    ).item()
    wrong = (drawn["sent"] > drawn["paid"]).to_numpy()
    assert 0 < wrong.sum() < 500
    np.testing.assert_array_equal(codec.obeys(drawn), ~wrong)
    # Rows as they were come back from what is modelled of them alone.
    assert codec.decode_base(codec.encode(frame.drop("total", "percent", "town"))[0]).equals(frame)
    assert Codec.from_json(codec.to_json()) == codec
    with pytest.raises(UserError, match="'total' is kept as net \\+ tax and not modelled"):
        codec.place_of("total")


def test_holes_with_one_answer_are_filled_with_it():
    frame = bills(200)
    codec = kept_codec(frame)
    holes = {name: np.zeros(200, bool) for name in frame.columns}
    for row, names in enumerate(
        [
            ("total",),
            ("net",),
            ("net", "tax"),
            ("total", "percent"),
            ("tax", "percent"),
            ("town",),
            ("postcode",),
            ("paid",),
        ]
    ):
        for name in names:
            holes[name][row] = True
    torn = frame.with_columns(
        pl.when(pl.Series(holes[name])).then(None).otherwise(frame[name]).alias(name) for name in frame.columns
    )
    mended, follows = solved(codec.by_name, codec.relations, torn, holes)
    # Of net and tax the percentage, rounded to a tenth, says too little; a town has several postcodes.
    open_ = {"net": {2}, "tax": {2}, "postcode": {6}, "paid": {7}}
    for name in frame.columns:
        assert set(np.flatnonzero(mended[name].is_null())) == open_.get(name, set())
        assert set(np.flatnonzero(follows[name])) == set(np.flatnonzero(holes[name])) - open_.get(name, set())
        there = mended[name].is_not_null()
        assert mended[name].filter(there).equals(frame[name].filter(there))


def test_a_column_that_says_more_than_its_formula_stays_modelled():
    frame = bills(300).select("net", "tax", "total")
    holes = pl.int_range(300) % 10 == 0
    (total,) = keep(found(frame.with_columns(tax=pl.when(~holes).then("tax"))))
    assert total.unfounded == 30 and not total.kept
    assert why_not(total) == "total is there in 30 rows where what it follows from is missing"
    (total,) = keep(found(frame.with_columns(total=pl.when(~holes).then("total"))))
    assert total.silent == 30 and total.kept
    (line,) = lines([total], kept=True, most=8)
    assert line == (
        "relation: total is net + tax in 100 % of 270 rows; 'total' is worked out, not modelled, and may leave the observed range, "
        "though 30 rows leave it empty"
    )


def test_words():
    a_plus_b = Factor(names=("a", "b"))
    product = Term(coefficient=-0.5, factors=(a_plus_b, Factor(names=("c d e",), power=-2.0)))
    formula = Formula(
        target="t", terms=(product, Term(coefficient=1 / 3, factors=(Factor(names=("x",)),))), constant=-2.0
    )
    assert str(formula) == "t is −0.5·(a + b) / `c d e`² + 1/3·x − 2"
    assert Codec.from_json(json.dumps(json.loads(Codec((), relations=(formula,)).to_json()))).relations == (formula,)
    x = {"a": np.array([1.0]), "b": np.array([2.0]), "c d e": np.array([0.5]), "x": np.array([9.0])}
    assert formula.value(x) == pytest.approx(-5.0)
    x["t"] = formula.value(x)
    for name in ("a", "c d e", "x"):
        np.testing.assert_allclose(formula.solved(x, name), x[name])
    assert str(Lookup(source="postcode", target="town", said=((0, 0),))) == "postcode says town"
    (note, how) = lines([Order(low="a", high="b", rows=9)], kept=False, most=8)
    assert note == "relation: a is never above b, in any of 9 rows" and "--keep-relations" in how


def test_what_is_worked_out_is_not_below_zero_where_the_column_never_is():
    """Rows that would be are drawn anew; of a column that has both signs none is."""
    random = np.random.default_rng(7)
    few, many = random.poisson(2.0, 400) + 5, random.poisson(20.0, 400)
    frame = pl.DataFrame({"few": few, "many": many, "both": few + many, "gap": few - many})
    source = table(frame)
    codec = fit_codec(source)
    codec = dataclasses.replace(codec, relations=keep(find_relations(source, codec.columns)))
    drawn = pl.DataFrame({"few": [-9, 9], "many": [4, 4]})
    assert {"both", "gap"} == set(codec.computed)
    assert codec.obeys(codec.work_out(drawn)).tolist() == [False, True]
    assert codec.work_out(drawn)["gap"].to_list() == [-13, 5]
