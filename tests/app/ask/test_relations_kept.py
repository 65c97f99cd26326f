"""A run that keeps relations: its samples, completions and scores, without a row that breaks one."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from nablax.app._ask._complete import complete
from nablax.app._ask._sample import sample
from nablax.app._ask._score import scored_frame
from nablax.app._errors import UserError
from nablax.app._report._evidence import Evidence
from nablax.app._report._relations_kept import Kept, judged, relations_kept
from nablax.app._report._report import headline
from nablax.app._report._verdict import verdict
from nablax.app._runs._config import Choices
from nablax.app._runs._learn import configure, learn, notices_of
from nablax.app._runs._run import codec_of, load

from ..tables_at_hand import bills

SMALL = Choices(steps=20, width=8, depth=1, batch_size=32)


def silent(text):
    """Say nothing."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bills") / "bills.csv"
    bills(100).drop("percent").write_csv(path)
    return path


@pytest.fixture(scope="module")
def model(file):
    """Hardly trained: the relations hold all the same."""
    config, opened = configure(str(file), choices=SMALL, keep_relations=True)
    learn(config, opened, file.parent / "run", notice=silent)
    return load(file.parent / "run")


def obeys(frame):
    cents = frame.select(100 * (pl.col("total") - pl.col("net") - pl.col("tax"))).to_series()
    towns = "T" + (frame["postcode"].str.slice(1).cast(pl.Int64) // 3).cast(pl.String)
    return (cents.abs() < 0.01) & (frame["sent"] <= frame["paid"]) & (frame["town"] == towns)


def test_what_learn_says_and_what_makes_another_run(file, model):
    kept, _ = configure(str(file), choices=SMALL, keep_relations=True)
    plain, _ = configure(str(file), choices=SMALL)
    assert model.config.differences(kept) == []
    assert model.config.differences(plain) == ["relations kept (--keep-relations)"]
    # A run from before relations were looked for goes on.
    before = dataclasses.replace(plain, codec={k: v for k, v in plain.codec.items() if k != "relations"})
    assert before.differences(plain) == []
    assert (
        "relation: total is net + tax in 100 % of 100 rows; 'total' is worked out, not modelled, and may leave the observed range"
        in notices_of(kept, keep_relations=True)
    )
    assert "--keep-relations" in notices_of(plain)[-1]


def test_samples_obey_whatever_is_asked(model):
    drawn = sample(model, 512, seed=1)
    assert obeys(drawn.frame).all() and drawn.frame.schema["total"] == pl.Float64
    assert drawn.notices[0].endswith("rows drawn for 512: the others broke sent is never above paid")
    given = sample(model, 512, condition={"net": "12.34", "postcode": "P5"}).frame
    assert obeys(given).all() and given["net"].unique().to_list() == [12.34]
    steered = sample(model, 512, guide="total > 60 and town == 'T1'").frame
    assert obeys(steered).all() and (steered["total"] > 60).all() and (steered["town"] == "T1").all()
    with pytest.raises(UserError, match="'total' is kept as net \\+ tax and not modelled: it follows from net and tax"):
        sample(model, 512, condition={"total": "60"})
    with pytest.raises(UserError, match="0 of 10240 rows obey the relations that are kept"):
        sample(model, 512, condition={"sent": "2021-11-30", "paid": "2020-01-05"})


def test_a_row_that_breaks_a_relation_is_said_so_and_a_column_that_follows_adds_nothing(model):
    rows = bills(8, seed=5).drop("percent")
    plain = scored_frame(model, rows)
    without = scored_frame(model, rows.drop("total", "town"))
    np.testing.assert_allclose(plain.frame["log_likelihood_nats"], without.frame["log_likelihood_nats"], rtol=1e-6)
    wrong = rows.with_columns(total=pl.when(pl.int_range(8) == 3).then(0.5).otherwise("total"))
    scored = scored_frame(model, wrong)
    assert np.flatnonzero(np.isneginf(scored.frame["log_likelihood_nats"].to_numpy())).tolist() == [3]
    net, tax = rows["net"][3], rows["tax"][3]
    assert f"likelihood -inf in row 4: 'total' is 0.5, and net + tax gives {round(net + tax, 2):g}" in scored.notices


def test_completions_obey_and_what_follows_is_not_drawn(model):
    rows = bills(6, seed=7).drop("percent")
    none = [("total", "town"), ("net",), ("net", "tax"), ("tax", "total"), ("sent",), ("postcode",)]
    torn = rows.with_columns(
        pl.when(pl.int_range(6).is_in([k for k in range(6) if name in none[k]])).then(None).otherwise(name).alias(name)
        for name in rows.columns
    )
    done = complete(model, torn)
    assert obeys(done.frame).all()
    assert done.frame[:2].select(rows.columns).equals(rows[:2])
    assert done.frame["total_spread"].to_list()[0] == 0.0 and done.frame["net_spread"].to_list()[1] == 0.0
    assert done.frame["net_spread"][2] > 0.0 and done.frame["total"][2] == rows["total"][2]
    drawn = complete(model, torn, draws=64).frame
    assert len(drawn) == 384 and obeys(drawn).all()
    whole = complete(model, rows.with_columns(total=pl.lit(None, pl.Float64)), interval=0.8)
    assert whole.frame["total"].equals(rows["total"]) and whole.frame["total_low"].cast(pl.Float64).equals(
        rows["total"].alias("total_low")
    )
    assert whole.notices == ("cells of total that follow from their rows, worked out and not drawn: 6",)


def test_the_report_counts_samples_that_keep_each_relation(file):
    config, _ = configure(str(file), choices=SMALL)
    codec = codec_of(config)
    rows = bills(100).drop("percent")
    broken = rows.with_columns(total=pl.when(pl.int_range(100) < 97).then(1.0).otherwise("total"))
    told = {kept.text: kept for kept in relations_kept(codec, broken)}
    assert told["total is net + tax"].sentence == "total is net + tax in 100 % of rows; samples keep it in 3 %"
    evidence = Evidence("bills", 100, 7, "", "", data={}, samples={}, relations=list(told.values()))
    (finding,) = (finding for finding in verdict(evidence).findings if finding.topic == "Relations")
    assert headline(evidence)["relation total is net + tax"] == "in 100 % of rows; samples keep it in 3 %"
    assert finding.level == "warning" and "break 1 of 3 exact relations" in finding.text
    assert "--keep-relations" in finding.fix
    (finding,) = judged(relations_kept(codec, rows))
    assert finding.level == "good"
    # 27 of 30 is within the error of 99 in 100; 10 fewer are not.
    assert not Kept("", 100, 0.99, 30, 0.9, False).lost and Kept("", 100, 0.99, 30, 0.6, False).lost
    assert list(judged([])) == []
    assert json.loads(config.to_json())["codec"]["relations"]
