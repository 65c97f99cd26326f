"""A table's model from a notebook: the same folders as the command line's, tables in and out of either library."""

import datetime

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nablax.app import Table, open_run
from nablax.app._errors import UserError
from nablax.app._frames import to_polars
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
