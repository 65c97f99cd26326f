"""A table's model from a notebook: the same folders as the command line's, tables in and out of either library."""

import datetime

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nablax.app import Table, open_run
from nablax.app._errors import UserError
from nablax.app._frames import like, to_polars
from nablax.app._report._evaluate import check
from nablax.app._runs._lock import held

SMALL = {"steps": 300, "width": 32, "depth": 2, "batch_size": 64, "quiet": True}


def people(rows=120, seed=0):
    random = np.random.default_rng(seed)
    tall = random.random(rows) < 0.5
    weight = np.where(tall, 80.0, 60.0) + random.normal(0, 3, rows)
    return pl.DataFrame(
        {
            "height": np.where(tall, 185, 165) + random.integers(-4, 5, rows),
            "weight": pl.Series(weight).round(1),
            "team": np.where(tall, "blue", "red"),
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return Table.learn(people(), out=tmp_path_factory.mktemp("runs") / "people", condition=["team"], **SMALL)


def test_it_draws_scores_and_completes(table):
    drawn = table.sample(50, condition={"team": "blue"})
    assert drawn.schema == people().schema and drawn["team"].unique().to_list() == ["blue"] and len(drawn) == 50
    assert_frame_equal(drawn, table.sample(50, condition={"team": "blue"}))
    strange = pl.DataFrame({"height": [185, 165], "weight": [80.0, 100.0], "team": ["blue", "red"]})
    scored = table.score(strange)
    assert scored["outlier_rank"].to_list() == [2, 1]
    assert scored.columns[:3] == strange.columns
    filled = table.complete(strange.with_columns(weight=pl.Series([None, 100.0])))
    assert filled["weight"].null_count() == 0 and filled["weight"][1] == 100.0 and filled["weight_spread"][1] is None


def test_the_report_is_shown_beneath_the_cell(table):
    page = table.report()
    assert page.path == table.folder / "report.html"
    shown = page._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and shown.count('"') == 8
    assert "120 rows" in repr(table)


def test_the_command_line_opens_it_and_it_is_opened_again(table):
    again = Table.open(table.folder)
    assert_frame_equal(again.sample(5, seed=1), table.sample(5, seed=1))
    assert open_run(table.folder).config.name == "people"
    # The same call again finds it finished, and another table is refused.
    assert_frame_equal(
        Table.learn(people(), out=table.folder, condition=["team"], **SMALL).sample(5, seed=1), table.sample(5, seed=1)
    )
    with pytest.raises(UserError, match="holds a run of other data"):
        Table.learn(people(seed=1), out=table.folder, condition=["team"], **SMALL)
    with pytest.raises(UserError, match="holds a run of another configuration"):
        Table.learn(people(), out=table.folder, **SMALL)


def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="a DataFrame of Polars or of pandas"):
        Table.learn([[1, 2]], out=tmp_path / "run")
    with pytest.raises(ValueError, match="choices among"):
        Table.learn(people(), out=tmp_path / "run", number_of_steps=3)
    with pytest.raises(ValueError, match="report none, standard or full"):
        Table.learn(people(), out=tmp_path / "run", report="long")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="is no run folder"):
        Table.learn(people(), out=tmp_path / "mine")
    with pytest.raises(UserError, match="too few rows"):
        Table.learn(people(5), out=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "thesis.txt"]
    with held(tmp_path / "run"), pytest.raises(UserError, match="is in use by process"):
        Table.learn(people(), out=tmp_path / "run", **SMALL)


def test_tables_of_pandas_go_in_and_come_out(table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "n": [1, 2, 3],
            "x": [0.5, np.nan, 2.0],
            "name": ["a", None, "c"],
            "whole": pandas.array([1, None, 3], dtype="Int64"),
            "yes": [True, False, True],
            "day": pandas.to_datetime(["2020-01-01", None, "2020-03-05"]),
            "kind": pandas.Categorical(["u", "v", None]),
            7: [1, 1, 2],
        },
        index=[10, 20, 30],
    )
    made = to_polars(frame)
    assert made.columns == ["n", "x", "name", "whole", "yes", "day", "kind", "7"]
    assert made.row(0) == (1, 0.5, "a", 1, True, datetime.datetime(2020, 1, 1), "u", 1)
    assert made.row(1) == (2, None, None, None, False, None, "v", 1)
    rows = people(6, seed=3)
    given = pandas.DataFrame(rows.to_dict(as_series=False), index=list("uvwxyz"))
    scored = table.score(given)
    assert isinstance(scored, pandas.DataFrame) and list(scored.index) == list("uvwxyz")
    np.testing.assert_allclose(scored["log_likelihood_nats"], table.score(rows)["log_likelihood_nats"])
    drawn = Table.open(table.folder, pandas=True).sample(4)
    assert isinstance(drawn, pandas.DataFrame) and drawn["team"].isin(["blue", "red"]).all()


def odd_types(pandas, rows=60):
    """Columns of types that pandas has and NumPy has not."""
    random = np.random.default_rng(0)
    whole = [2**60 + 7 * k if k % 9 else None for k in range(rows)]
    spans = pandas.to_timedelta(random.integers(0, 10**6, rows), "s")
    return pandas.DataFrame(
        {
            "zone": pandas.date_range("2021-03-26 12:00", periods=rows, freq="7h", tz="Europe/Berlin"),
            "offset": pandas.date_range("2021-03-26 12:00", periods=rows, freq="7h", tz="+02:00"),
            "whole": pandas.array(whole, dtype="Int64"),
            "small": pandas.array([k % 5 if k % 7 else None for k in range(rows)], dtype="UInt8"),
            "yes": pandas.array([k % 3 > 1 if k % 7 else None for k in range(rows)], dtype="boolean"),
            "word": pandas.array(["a" if k % 3 else None for k in range(rows)], dtype="string"),
            "level": pandas.Categorical.from_codes(random.integers(0, 2, rows), ["u", "v", "never"], ordered=True),
            "number": pandas.Categorical.from_codes(random.integers(-1, 3, rows), [3, 1, 2]),
            "second": pandas.date_range("2021-03-26", periods=rows, freq="7h").astype("datetime64[s]"),
            "took": spans.astype("timedelta64[ns]"),
            "day": np.array([datetime.date(2021, 3, 1 + k % 9) for k in range(rows)], object),
            "x": random.normal(size=rows),
        },
        index=[f"r{k}" for k in range(rows)],
    )


def test_types_of_pandas_come_back_as_they_came():
    pandas = pytest.importorskip("pandas")
    frame = odd_types(pandas)
    made = to_polars(frame)
    assert made["zone"].dtype == pl.Datetime("us", "Europe/Berlin")
    assert made["zone"][0].isoformat() == "2021-03-26T12:00:00+01:00" and made["whole"][1] == 2**60 + 7
    pandas.testing.assert_frame_equal(like(made, frame), frame)
    # What a type cannot hold: a new category widens it, a fraction in whole numbers gives floats.
    wider = made.with_columns(level=pl.lit("new"), small=pl.lit(0.5))
    back = like(wider, frame)
    assert list(back["level"].cat.categories) == ["u", "v", "never", "new"] and (back["level"] == "new").all()
    assert back["small"].dtype == float


def test_a_model_of_pandas_draws_and_completes_in_the_types_that_it_learnt():
    pandas = pytest.importorskip("pandas")
    frame = odd_types(pandas)
    table = Table.learn(frame, steps=20, width=16, report="none", quiet=True)
    drawn = table.sample(3, condition={"yes": True})
    assert drawn.dtypes.equals(frame.dtypes) and drawn["yes"].all()
    holes = frame.head(3).copy()
    holes.loc["r1", "x"] = np.nan
    kept = ["zone", "offset", "second", "took"]
    pandas.testing.assert_frame_equal(table.complete(holes)[kept], holes[kept])
    pandas.testing.assert_frame_equal(table.score(frame.head(3))[list(frame.columns)], frame.head(3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda pd: pd.DataFrame({"c": [("a", 1, 2.5, None)[k % 4] for k in range(40)]}), "'c' holds str and int and"),
        (lambda pd: pd.DataFrame({"c": pd.cut(np.arange(40.0), 5)}), "'c' holds Interval"),
        (lambda pd: pd.DataFrame({"c": pd.period_range("2000-01", periods=40, freq="M")}), "'c' holds Period"),
        (lambda pd: pd.DataFrame({"c": np.arange(40) * 1j}), "'c' holds complex"),
        (lambda pd: pd.DataFrame({"c": np.arange(40).astype(np.longdouble)}), "'c' holds longdouble"),
        (lambda pd: pd.DataFrame(np.zeros((40, 2)), columns=["a", "a"]), "'a' occurs more than once"),
        (lambda pd: pd.DataFrame(np.zeros((40, 2)), columns=[1, "1"]), "'1' occurs more than once"),
    ],
)
def test_columns_of_pandas_that_have_no_type_are_refused_in_one_line(make, words, tmp_path):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UserError, match=words) as caught:
        Table.learn(make(pandas), out=tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_columns_of_any_object_are_refused_in_one_line(tmp_path):
    frame = pl.DataFrame({"c": pl.Series([object()] * 40, dtype=pl.Object)})
    with pytest.raises(UserError, match="column 'c' holds object, which is no column of numbers"):
        Table.learn(frame, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda table: Table.learn(people(), steps="20"), "steps as a whole number, got '20'"),
        (lambda table: Table.learn(people(), steps=20.5), "steps as a whole number, got 20.5"),
        (lambda table: Table.learn(people(), learning_rate=True), "learning_rate as a number, got True"),
        (lambda table: Table.learn(people(), condition="team"), r"Pass condition=\['team'\]"),
        (lambda table: table.sample(2, condition="team=blue"), "condition as columns to values, got 'team=blue'"),
        (lambda table: table.score(people(), given="team"), r"Pass given=\['team'\]"),
    ],
)
def test_arguments_of_another_type_are_named(table, call, words):
    with pytest.raises(ValueError, match=words):
        call(table)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_cannot_be_is_refused_before_there_is_a_folder(tmp_path, seed):
    with pytest.raises(UserError, match="--seed should lie between 0 and"):
        Table.learn(people(), out=tmp_path / "run", seed=seed, **SMALL)
    assert not (tmp_path / "run").exists()


def test_cells_that_completing_cannot_use_are_named(table, capsys):
    rows = people(4).with_columns(
        weight=pl.Series([None, 70.0, None, None]), team=pl.Series(["green", "green", "red", "x"])
    )
    filled = table.complete(rows)
    said = capsys.readouterr().out
    assert "not used in row 1 and 1 more: 'team' is 'green', unseen in training" in said and said.count("not used") == 1
    assert filled["team"].to_list() == rows["team"].to_list() and filled["weight"].null_count() == 0
    with pytest.raises(
        UserError, match="none of the columns was learnt: the table has 'HEIGHT', and the model 'height'"
    ):
        table.complete(rows.select(HEIGHT="height"))


def test_no_rows_are_not_scored(table):
    with pytest.raises(UserError, match="nothing to score: the table has no rows"):
        table.score(people().clear())


def test_one_row_is_too_few_to_check_against(table, tmp_path):
    people(1).write_csv(tmp_path / "one.csv")
    with pytest.raises(UserError, match="too few rows to check against: 1, at least 2"):
        check(table.folder, str(tmp_path / "one.csv"), notice=print)
