"""The commands, one after the other, on a small mixed table."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from nablax.app import Model, open_run
from nablax.app._ask import _guide
from nablax.app._ask._complete import complete
from nablax.app._ask._sample import sample
from nablax.app._ask._score import encode_frame
from nablax.app._cli import app
from nablax.app._errors import UserError
from nablax.app._papers import listing
from nablax.app._report import _cost
from nablax.app._report._health import shifted
from nablax.app._runs._run import load
from nablax.papers import available
from nablax.transport import Bounds

SMALL = ["--steps", "1500", "--width", "32", "--depth", "2", "--batch-size", "64"]


def mixed(rows: int, seed: int = 0) -> pl.DataFrame:
    """Two groups that differ in everything: a length, a count, a colour, and a weight that is missing at times."""
    random = np.random.default_rng(seed)
    group = random.random(rows) < 0.5
    weight = np.where(group, 50.0, 70.0) + random.normal(0, 2, rows)
    return pl.DataFrame(
        {
            "length": np.where(group, 2.0, 8.0) + random.normal(0, 0.5, rows),
            "count": np.where(group, 3, 12) + random.integers(-2, 3, rows),
            "colour": np.where(group, "red", "blue"),
            "weight": [None if random.random() < 0.2 else float(w) for w in weight],
            "group": np.where(group, "a", "b"),
        }
    )


def call(*arguments, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if code == 2:
        assert isinstance(result.exception, UserError), result.output
        assert "\n" not in str(result.exception)
        return str(result.exception)
    assert result.exception is None or code != 0, result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("runs")
    mixed(400).write_csv(where / "table.csv")
    call("learn", where / "table.csv", "--condition", "group", "--out", where / "run", "--report", "full", *SMALL)
    return where


def test_a_run_folder_holds_what_it_should(folder):
    run = folder / "run"
    for name in ("config.json", "weights.safetensors", "metrics.csv", "samples.csv", "scores.csv", "report.html"):
        assert (run / name).stat().st_size > 0
    assert (run / "checkpoints").is_dir()
    config = json.loads((run / "config.json").read_text())
    assert set(config["reasons"]) == set(config["choices"])
    metrics = pl.read_csv(run / "metrics.csv")
    assert metrics["step"].to_list() == list(range(1, len(metrics) + 1)) and len(metrics) <= 1500
    assert metrics["loss"][-50:].mean() < metrics["loss"][:50].mean()


def test_the_report_opens_offline(folder):
    page = (folder / "run" / "report.html").read_text()
    body = page.replace("http://www.w3.org", "")
    assert 'src="http' not in body and 'href="http' not in body and "url(http" not in body
    assert "<script" not in body


def test_learning_again_does_nothing_and_another_configuration_is_refused(folder):
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()}
    said = call("learn", folder / "table.csv", "--condition", "group", "--out", folder / "run", *SMALL)
    assert "finished already" in said
    message = call(
        "learn", folder / "table.csv", "--condition", "group", "--out", folder / "run", *SMALL, "--seed", "1", code=2
    )
    assert "another configuration" in message and "seed" in message
    assert before == {path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()}


def test_samples_come_back_in_the_tables_own_types_and_ranges(folder):
    call("sample", folder / "run", "-n", 300, "-o", folder / "new.csv")
    table, new = mixed(400), pl.read_csv(folder / "new.csv")
    assert new.columns == table.columns and len(new) == 300
    assert new["count"].dtype == pl.Int64
    assert set(new["colour"]) == {"red", "blue"}
    assert table["length"].min() <= new["length"].min() and new["length"].max() <= table["length"].max()
    assert 0.05 < new["weight"].null_count() / 300 < 0.4
    # The groups are as far apart as they were, and as often: a sampler that ignores its condition mixes them.
    means = new.group_by("group").agg(pl.col("length").mean(), pl.len()).sort("group")
    assert means["length"][0] < 3.5 and means["length"][1] > 6.5
    assert abs(means["len"][0] - 150) < 50


def test_a_run_opens_from_python(folder):
    model, table = open_run(folder / "run"), mixed(400)
    assert isinstance(model, Model) and model.config.condition == ()  # any column can be one
    points, condition = model.encode(table, key=jax.random.key(0))
    # Cells come back through points that say where in a cell a value lies; a length to single precision.
    assert_frame_equal(model.decode(points, condition), table, rel_tol=1e-4)
    shuffled = table.select("weight", "group", "length", "colour", "count")
    np.testing.assert_array_equal(model.encode(shuffled, key=jax.random.key(0))[0], points)
    with pytest.raises(UserError, match="states of a table's cells are in the condition vectors"):
        model.decode(points)
    # Learned: in the states of the other group a point stands for a row of that group.
    present = table.drop_nulls("weight").sort("group")
    pairs = pl.concat([present[:32], present[-32:]])
    points, condition = model.encode(pairs, key=jax.random.key(0))
    swapped = model.decode(points, condition[::-1])
    assert (swapped["group"] == pairs["group"].reverse()).all()
    assert ((swapped["length"] < 5) == (swapped["group"] == "a")).mean() > 0.95
    points, condition = model.encode(table, key=jax.random.key(0))
    drawn = model.decode(model.transport.sample(200, key=jax.random.key(2), args=condition[:200]), condition[:200])
    assert ((drawn["length"] < 5) == (drawn["group"] == "a")).mean() > 0.95


def test_a_run_opens_under_double_precision(folder, x64):
    model = open_run(folder / "run")
    points, condition = model.encode(mixed(8), key=jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.transport.field)} == {"float32"}
    assert np.isfinite(model.transport.velocity(0.5, points[0], condition[0])).all()


def test_what_is_no_run_is_not_opened(folder, tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        open_run(tmp_path)
    shutil.copytree(folder / "run", tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"weights.safetensors cannot be read.*expected a whole file"):
        open_run(tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    shutil.copy(folder / "run" / "weights.safetensors", weights)
    config.write_text(config.read_text().replace('"width": 32', '"width": 64'))
    with pytest.raises(UserError, match=r"float32 \(64, \d+\), got float32 \(32, \d+\)"):
        open_run(tmp_path / "run")


def test_a_table_of_an_earlier_model_is_refused(folder, tmp_path):
    """Its weights have the same shapes, and would be added to something else."""
    shutil.copytree(folder / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    fields = json.loads(config.read_text())
    del fields["generation"]  # as it was before there was a second one
    config.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"another version's model of tables.*learn it again"):
        open_run(tmp_path / "run")


def test_conditions_and_seeds(folder):
    call("sample", folder / "run", "-n", 100, "-c", "group=a", "--seed", 4, "-o", folder / "a.csv")
    call("sample", folder / "run", "-n", 100, "-c", "group=a", "--seed", 4, "-o", folder / "again.csv")
    call("sample", folder / "run", "-n", 100, "-c", "group=a", "--seed", 5, "-o", folder / "other.csv")
    assert (folder / "a.csv").read_bytes() == (folder / "again.csv").read_bytes()
    assert (folder / "a.csv").read_bytes() != (folder / "other.csv").read_bytes()
    drawn = pl.read_csv(folder / "a.csv")
    assert set(drawn["group"]) == {"a"} and (drawn["length"] < 5).mean() > 0.9
    assert "known ones are a, b" in call("sample", folder / "run", "-c", "group=c", code=2)
    assert "no column 'hue'" in call("sample", folder / "run", "-c", "hue=red", code=2)
    # Columns that nobody named when it was learnt.
    call("sample", folder / "run", "-n", 100, "-c", "colour=red", "-c", "length=2.25", "-o", folder / "a.csv")
    drawn = pl.read_csv(folder / "a.csv")
    assert set(drawn["colour"]) == {"red"} and set(drawn["length"]) == {2.25} and (drawn["group"] == "a").mean() > 0.9


def test_guides(folder):
    said = call("sample", folder / "run", "-n", 50, "--guide", "length > 7.5", "-o", folder / "long.csv")
    assert "exact draws" in said
    drawn = pl.read_csv(folder / "long.csv")
    assert len(drawn) == 50 and drawn["length"].min() > 7.5
    said = call("sample", folder / "run", "-n", 20, "-c", "group=a", "--guide", "length > 8", "-o", folder / "far.csv")
    assert "steered" in said and "warning" in said  # group a has no such rows
    assert pl.read_csv(folder / "far.csv")["length"].min() > 8
    assert "contradicts" in call("sample", folder / "run", "--guide", "length > 5 and length < 2", code=2)
    assert "no column 'height'" in call("sample", folder / "run", "--guide", "height > 5", code=2)
    assert "not understood" in call("sample", folder / "run", "--guide", "__import__('os')", code=2)


def test_a_step_of_steering_closes_the_gap_of_a_column_however_little_it_varies(folder):
    model = open_run(folder / "run")
    points, condition = (jnp.asarray(x) for x in model.encode(mixed(60).drop_nulls(), key=jax.random.key(0)))
    scores, columns = jax.vmap(model.joint.scores), model.codec.cells
    free = condition[:, columns : columns + points.shape[1]] > 0.5
    for place in np.flatnonzero(free.any(0)):  # a count is an atom here, whose score is known
        lower = jnp.full(points.shape[1], -jnp.inf).at[place].set(1.5)
        cost = _guide._Inside(model.joint, Bounds(lower=lower, margin=0.0))
        moved = points - jax.vmap(jax.grad(cost))(points, condition)
        before, after = scores(points, condition)[:, place], scores(moved, condition)[:, place]
        assert (before < 1.5).any()
        wanted = jnp.where(free[:, place], jnp.maximum(before, 1.5), before)
        np.testing.assert_allclose(after, wanted, atol=1e-3)


def test_a_guide_is_sought_under_every_condition_and_anew_in_each_round(folder, monkeypatch):
    model, seeds = load(folder / "run"), []
    for seed in range(2):
        (line,) = sample(model, 1, guide="length > 7.5", seed=seed).notices
        # Half the rows are of the group that is long, and 0.84 of those satisfy the guide.
        assert 30 < float(line.split("%")[0]) < 55 and "exact draws" in line
    drawn_states = _guide.drawn_states

    def recorded(model, given, *, seed, allowed=None):
        seeds.append(seed)
        return drawn_states(model, given, seed=seed, allowed=allowed)

    monkeypatch.setattr(_guide, "drawn_states", recorded)
    assert len(sample(model, 400, guide="length > 7.5").frame) == 400
    assert len(seeds) == len(set(seeds)) > 1


def test_scores_name_their_unit_and_find_the_odd_row(folder):
    odd = mixed(60, seed=1)
    odd[7, "length"] = 5.0  # between the groups
    odd.write_csv(folder / "other.csv")
    call("score", folder / "run", folder / "other.csv", "-o", folder / "scored.csv")
    scored = pl.read_csv(folder / "scored.csv")
    assert {"log_likelihood_nats", "log_likelihood_nats_standard_error", "outlier_rank"} <= set(scored.columns)
    assert scored["outlier_rank"][7] == 1
    assert sorted(scored["outlier_rank"]) == list(range(1, 61))
    # The counts recur, so that each is a state: nothing is placed at random within a cell, and the scores are exact.
    assert (scored["log_likelihood_nats_standard_error"] == 0).all()
    call("score", folder / "run", folder / "other.csv", "--bits", "-o", folder / "bits.csv")
    bits = pl.read_csv(folder / "bits.csv")["bits_per_dimension"]
    np.testing.assert_allclose(bits, -scored["log_likelihood_nats"] / (5 * math.log(2)), rtol=1e-6)
    # Given the group its log-probability is taken off, and nothing else.
    call("score", folder / "run", folder / "other.csv", "--given", "group", "-o", folder / "given.csv")
    given = pl.read_csv(folder / "given.csv")["log_likelihood_nats"]
    assert (scored["log_likelihood_nats"] - given).mean() == pytest.approx(-math.log(2.0), abs=0.3)


def test_scores_are_densities_of_the_tables_own_units(folder):
    """Rows of the truth score within reach of the truth's own entropy: a lost Jacobian would be nats away."""
    fresh = mixed(300, seed=2)
    fresh.write_csv(folder / "fresh.csv")
    call("score", folder / "run", folder / "fresh.csv", "-o", folder / "fresh-scored.csv")
    mean = pl.read_csv(folder / "fresh-scored.csv")["log_likelihood_nats"].mean()
    normal = 0.5 * math.log(2 * math.pi * math.e)
    present = 0.8 * math.log(0.8) + 0.2 * math.log(0.2)
    truth = -math.log(2) - (normal + math.log(0.5)) - math.log(5) + present - 0.8 * (normal + math.log(2.0))
    assert truth - 1.5 < mean < truth + 0.1


def test_holes_are_filled_from_the_other_cells(folder):
    whole = mixed(40, seed=3)
    holes = whole.with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0).then(None).otherwise(pl.col("length")).alias("length"),
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col("colour")).alias("colour"),
    )
    holes.write_csv(folder / "holes.csv")
    call("complete", folder / "run", folder / "holes.csv", "-o", folder / "filled.csv")
    filled = pl.read_csv(folder / "filled.csv")
    assert filled.select("length", "colour", "weight").null_count().sum_horizontal()[0] == 0
    assert (filled["colour"] == whole["colour"]).mean() > 0.9
    assert np.abs(filled["length"] - whole["length"]).max() < 4  # the group's own mean, not the table's
    there = holes["length"].is_not_null()
    assert (filled.filter(there)["length"] == whole.filter(there)["length"]).all()
    assert filled.filter(there)["length_spread"].null_count() == there.sum()
    assert (filled.filter(~there)["length_spread"] > 0).all()
    call("complete", folder / "run", folder / "holes.csv", "--interval", "0.8", "-o", folder / "between.csv")
    between = pl.read_csv(folder / "between.csv").filter(~there)
    assert (between["length_low"] <= between["length"]).all() and (between["length"] <= between["length_high"]).all()
    assert (between["length_low"] < between["length_high"]).all() and "length_spread" not in between.columns
    call("complete", folder / "run", folder / "holes.csv", "--draws", "3", "-o", folder / "draws.csv")
    long = pl.read_csv(folder / "draws.csv")
    assert long["completion"].to_list() == [k for k in (1, 2, 3) for _ in range(40)]
    assert long["length"].null_count() == 0 and long["length"][:40].to_list() != long["length"][40:80].to_list()
    assert "one of them" in call(
        "complete", folder / "run", folder / "holes.csv", "--draws", "3", "--interval", "0.8", code=2
    )


def test_what_is_there_stays_as_it_is(folder):
    model = load(folder / "run")
    colours = pl.Enum(["blue", "red", "green"])
    whole = mixed(20, seed=5).with_columns(
        pl.col("weight").fill_null(60.0), pl.col("count").cast(pl.Float64), pl.col("colour").cast(colours)
    )
    whole[1, "count"], whole[2, "colour"] = 3.7, "green"  # no training row had such cells
    holes = whole.clone()
    holes[0, "count"], holes[0, "colour"] = None, None
    filled = complete(model, holes).frame
    assert filled.columns == ["length", "count", "count_spread", "colour", "colour_probability", "weight", "group"]
    assert filled.select(whole.columns)[1:].equals(whole[1:])
    assert filled[0, "count"] in range(1, 15) and filled[0, "colour"] in ("red", "blue")
    again = complete(model, holes.with_columns(count_spread=pl.lit(0.5))).frame
    assert (again["count_spread"] == 0.5).all() and again["count_spread_2"].equals(filled["count_spread"])


def test_every_row_is_scored_and_filled(folder):
    lines = mixed(4, seed=6).write_csv().splitlines()
    (folder / "empty.csv").write_text("\n".join([*lines[:3], ",,,,a", *lines[3:], ""]))
    holes = pl.read_csv(folder / "empty.csv").drop("group")
    holes.write_csv(folder / "empty.csv")
    call("complete", folder / "run", folder / "empty.csv", "-o", folder / "full.csv")
    filled = pl.read_csv(folder / "full.csv")
    assert len(filled) == 5 and filled["length"][[0, 1, 3, 4]].equals(holes["length"][[0, 1, 3, 4]])
    assert filled["length"].null_count() == 0
    # No training row lacked these cells, so the row has no probability; the others have theirs.
    holes.with_columns(group=pl.lit("a")).write_csv(folder / "empty.csv")
    call("score", folder / "run", folder / "empty.csv", "-o", folder / "scored.csv")
    scores = pl.read_csv(folder / "scored.csv")["log_likelihood_nats"].cast(pl.Float64)
    assert scores[2] == -math.inf and scores[[0, 1, 3, 4]].is_finite().all()


def test_only_the_table_goes_to_stdout(folder):
    mixed(4, seed=6).with_columns(colour=pl.lit(None)).write_csv(folder / "holes.csv")
    guided = ["sample", folder / "run", "-n", 3, "--guide", "length > 7.5"]
    for arguments, words in ((["complete", folder / "run", folder / "holes.csv"], "filled 4 rows"), (guided, "exact")):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.stdout.startswith("length,") and len(done.stdout.splitlines()) in (4, 5)
        assert words in done.stderr and words not in done.stdout
    assert "exact" in CliRunner().invoke(app, [*map(str, guided), "-o", str(folder / "three.csv")]).stdout


def test_complete_refuses_a_table_without_holes(folder):
    mixed(30).drop_nulls().write_csv(folder / "whole.csv")
    assert "nothing to fill" in call("complete", folder / "run", folder / "whole.csv", code=2)


def test_check_prints_the_fields_health_and_names_the_column_that_has_shifted(folder):
    other = mixed(300, seed=4)
    other.with_columns(other["length"].shuffle(seed=0)).write_csv(folder / "other.csv")
    said = call("check", folder / "run", folder / "other.csv")
    measured = ("test of distances", "given away by", "antisymmetric share", "round-trip error", "held-out, this model")
    for words in ("verdict", *measured, "training rows told by samples"):
        assert words in said
    assert "Lipschitz constant" in said and "straightness" in said
    shifted = said[said.index("columns have shifted") :]
    assert "length" in shifted.splitlines()[1], shifted


def test_programs_hold_no_host_callback_and_are_found_again(folder, tmp_path, monkeypatch):
    """What is kept of a first call serves a second: of all it asks for, nothing is compiled."""
    monkeypatch.setenv("NABLAX_CACHE", str(tmp_path / "cache"))
    mixed(12, seed=7).with_columns(count=pl.lit(None)).write_csv(tmp_path / "holes.csv")
    mixed(60, seed=8).write_csv(tmp_path / "other.csv")
    run, counted = folder / "run", Counter()
    calls = (
        ("sample", run, "-n", 20, "-o", tmp_path / "new.csv"),
        ("sample", run, "-n", 20, "-c", "group=a", "--guide", "length > 8", "-o", tmp_path / "far.csv"),
        ("score", run, tmp_path / "other.csv", "-o", tmp_path / "scored.csv"),
        ("complete", run, tmp_path / "holes.csv", "-o", tmp_path / "filled.csv"),
    )

    def count(event, *_, **__):
        counted[event.rsplit("/", 1)[-1]] += 1

    jax.config.update("jax_dump_ir_to", str(tmp_path / "programs"))
    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for arguments in calls:
            jax.clear_caches()
            call(*arguments)
            jax.clear_caches()
            counted.clear()
            call(*arguments)
            assert 0 < counted["backend_compile_duration"] == counted["cache_hits"], (arguments[0], counted)
        call("check", run, tmp_path / "other.csv")
    finally:
        jax.config.update("jax_dump_ir_to", "")
        jax.monitoring.unregister_event_listener(count)
        jax.monitoring.unregister_event_duration_listener(count)
    programs = {path.name: path.read_text() for path in (tmp_path / "programs").iterdir()}
    for name in ("drawn_values", "value_log_density", "drawn", "steer", "follow"):  # the last one is check's
        assert any(f"jit_{name}" in file or f"jit__{name}" in file for file in programs), (name, sorted(programs))
    for program in programs.values():
        assert not [line for line in program.splitlines() if "custom_call" in line and "callback" in line]


def test_weights_that_throw_the_field_out_of_every_bound_are_refused_by_every_verb(folder, tmp_path):
    """The library's solver gives up under a jit; the fixed steps of the verbs do not, and look at what came of them."""
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder / "run", tmp_path / "run")
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    wild = {name: array if "normal_scores" in name else array * 1e9 for name, array in weights.items()}
    save_file(wild, tmp_path / "run" / "weights.safetensors")
    model = load(tmp_path / "run")
    columns, values = model.codec.cells, len(model.codec.valued)
    args = jnp.zeros((5, columns + 2 * values)).at[:, columns : columns + values].set(1.0)  # all free
    with pytest.raises(eqx.EquinoxRuntimeError, match="maximum number of solver steps"):
        eqx.filter_jit(lambda model: model.sample(5, key=jax.random.key(0), args=args))(model.transport)
    mixed(5, seed=9).write_csv(tmp_path / "rows.csv")
    mixed(5, seed=9).with_columns(length=pl.lit(None)).write_csv(tmp_path / "holes.csv")
    rows, holes = (str(tmp_path / f"{name}.csv") for name in ("rows", "holes"))
    for verb, arguments in (("sample", ["-n", "5"]), ("score", [rows]), ("complete", [holes])):
        result = CliRunner().invoke(app, [verb, str(tmp_path / "run"), *arguments])
        assert isinstance(result.exception, UserError) and "cannot be followed" in str(result.exception), verb


def test_weights_that_are_damaged_are_refused(folder, tmp_path):
    import shutil

    shutil.copytree(folder / "run", tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be read" in call("sample", tmp_path / "run", code=2)
    weights.unlink()
    assert "not trained yet" in call("sample", tmp_path / "run", code=2)
    assert "no run folder" in call("sample", tmp_path, code=2)
    message = call("score", folder / "table.csv", folder / "run", code=2)
    assert message == f"{folder / 'table.csv'} is a file, not a run folder"
    assert call("learn", folder / "table.csv", "--out", folder / "table.csv", code=2) == message


def test_no_code_is_executed_on_loading():
    from pathlib import Path

    import nablax

    for path in Path(nablax.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for word in ("import pickle", "pickle.load", "allow_pickle=True", "joblib", "dill", "eval(", "exec("):
            assert word not in text.replace('mode="eval"', "").replace("_eval(", ""), f"{path.name}: {word}"


def test_the_model_can_be_opened_from_python(folder):
    model = load(folder / "run")
    assert model.transport.space.shape == (3,)  # length, count and weight
    assert model.joint is not None and len(model.joint.network.code.sizes) == model.codec.cells == 5


def test_papers_are_listed_by_room_and_cut_to_the_terminal():
    said = call("papers").splitlines()
    rooms = [line for line in said if line and " " not in line]
    assert rooms == sorted(rooms) and "transport" in rooms
    assert any("rectified-flow" in line for line in said[said.index("transport") :])
    whole, cut = listing().splitlines(), listing(100).splitlines()
    slugs = [line[3:].split(" ")[0] for line in whole if line[:3] in ("   ", "*  ")]
    assert set(slugs) - {"paper"} == {paper.slug for paper in available()}
    for long, short in zip(whole[: len(slugs)], cut):
        assert short == long if len(long) <= 100 else len(short) == 100 and long.startswith(short[:-1])
    assert "no paper 'nonsense'" in call("papers", "run", "nonsense", code=2)
    for arguments in ((), ("rectified-flow", "--all"), ("--all", "--stale")):
        assert "one of the three" in call("papers", "run", *arguments, code=2)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "empty"),
        ("header.csv", b"a,b\n", "row"),
        ("few.csv", b"a,b\n1,2\n3,4\n", "too few rows"),
        ("ragged.csv", b"a,b\n1,2\n" + b"3,4,5\n" * 30, ""),
        ("constant.csv", b"a,b\n" + b"".join(b"%d,1\n" % i for i in range(30)), "no column remains to be modelled"),
        (
            "infinite.csv",
            b"a,b\n" + b"".join(b"%d,%d.5\n" % (i, i * i) for i in range(30)) + b"1,inf\n",
            "line 32 has 'inf'",
        ),
        ("image.xyz", b"?", ""),
        ("array.npy", b"\x93NUMPY broken", ""),
        ("table.parquet", b"PAR1 broken", ""),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(folder, tmp_path, name, content, words):
    import shutil

    shutil.copytree(folder / "run", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    (tmp_path / name).write_bytes(content)
    assert words in call("learn", tmp_path / name, "--out", tmp_path / "run", code=2)
    assert "absent.csv" in call("learn", tmp_path / "absent.csv", "--out", tmp_path / "run", code=2)
    assert call("score", tmp_path / "run", tmp_path / name, "-o", tmp_path / "scored.csv", code=2)
    assert not (tmp_path / "scored.csv").exists()
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}


def test_the_process_exits_with_two_and_one_line(tmp_path):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "nablax", "learn", str(tmp_path / "absent.csv")], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("nablax: ")


def test_a_report_is_as_long_as_asked_for(folder, monkeypatch):
    """None at all; without what takes long, where training was short; and what was left out when it is checked."""
    flags = ["--steps", "5", "--width", "8", "--depth", "1", "--batch-size", "32"]
    run, table = folder / "toy", folder / "ring.csv"
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)  # straight lines say nothing of it
    pl.DataFrame({"x": np.cos(angle), "y": np.sin(angle)}).sample(400, shuffle=True, seed=0).write_csv(table)
    said = call("learn", table, "--out", run, "--report", "none", *flags)
    assert f"'nablax check {run}' writes its report" in said and not (run / "report.html").exists()
    (run / "cost.json").write_text('{"training_cpu_seconds": 0.5}')
    with monkeypatch.context() as patch:
        patch.setattr(_cost, "_LEAST", 0.0)  # which is as much as this small model's whole report takes
        said = call("learn", table, "--out", run, *flags)
    assert "report: drawing samples" in said and "held-out, this model" not in said and "Do not trust" in said
    page = (run / "report.html").read_text()
    assert f"'nablax check {run}' measures it" in page.replace("&#39;", "'") and not (run / "scores.csv").exists()
    assert len(pl.read_csv(run / "samples.csv")) == 1000
    (run / "report.html").unlink()
    (run / "cost.json").write_text('{"training_cpu_seconds": 1000}')
    said = call("learn", table, "--out", run, *flags)
    assert "held-out, this model" in said and "antisymmetric share" not in said
    assert "It had not finished learning" in (run / "report.html").read_text()


def test_a_run_that_held_no_rows_out_is_checked_against_others(folder, tmp_path):
    run, few = tmp_path / "run", ["--steps", "20", "--width", "8", "--depth", "1", "--held-out", 0]
    said = call("learn", folder / "table.csv", "--out", run, *few, code=2)
    assert said == "--held-out 0 leaves no rows to report on: give --report none as well" and not run.exists()
    said = " ".join(call("learn", folder / "table.csv", "--out", run, "--report", "none", *few).split())
    assert f"'nablax check {run} ROWS' writes its report" in said
    assert "was learnt from all of its rows" in call("check", run, code=2)
    pl.concat([mixed(60, seed=1), pl.read_csv(folder / "table.csv")], how="vertical_relaxed").write_csv(
        tmp_path / "others.csv"
    )
    said = " ".join(call("check", run, tmp_path / "others.csv").split())
    assert "columns have shifted against rows kept from training" in said and "rows held out" not in said
    for words in (said, (run / "report.html").read_text()):
        assert "of the rows that it is checked on are training rows" in words


def test_a_table_without_a_number_goes_through_every_verb(tmp_path):
    random = np.random.default_rng(0)
    letter = random.choice(["a", "b", "c"], 200)
    words = pl.DataFrame({"letter": letter, "same": np.where(letter == "a", "yes", "no")})
    words.write_csv(tmp_path / "words.csv")
    run = tmp_path / "run"
    said = call("learn", tmp_path / "words.csv", "--out", run, "--steps", "400", "--width", "16", "--depth", "1")
    assert "held-out, this model" in said and "hidden numbers" not in said
    drawn = tmp_path / "drawn.csv"
    call("sample", run, "-n", 50, "--condition", "letter=a", "-o", drawn)
    assert (pl.read_csv(drawn)["same"] == "yes").mean() > 0.8
    (tmp_path / "holes.csv").write_text("letter,same\n,yes\nb,\n")
    call("complete", run, tmp_path / "holes.csv", "-o", tmp_path / "filled.csv")
    filled = pl.read_csv(tmp_path / "filled.csv")
    assert filled["letter"].to_list() == ["a", "b"] and filled["same"].to_list() == ["yes", "no"]
    call("score", run, tmp_path / "words.csv", "--given", "letter", "-o", tmp_path / "scored.csv")
    assert pl.read_csv(tmp_path / "scored.csv")["log_likelihood_nats"].mean() > -0.2
    call("check", run)


def test_flags_out_of_range_are_named(folder):
    message = call("learn", folder / "table.csv", "--out", folder / "other", "--width", "0", code=2)
    assert "--width" in message
    assert not (folder / "other").exists()


def test_a_shift_that_cannot_be_tested_is_said_in_one_line(folder):
    model = load(folder / "run")
    base, _ = encode_frame(model, mixed(20))
    (line,) = shifted(model, base, base[:1], 0)
    assert line.startswith("column shift was not measured: expected at least")


def test_what_is_read_is_not_written_over(folder, tmp_path):
    rows, before = tmp_path / "rows.csv", (folder / "table.csv").read_bytes()
    mixed(5).write_csv(rows)
    for command, *data in (("sample",), ("score", rows), ("complete", rows)):
        said = call(command, folder / "run", *data, "-o", folder / "table.csv", code=2)
        assert (
            said
            == f"-o {folder / 'table.csv'} would write over the data that the run was learnt from: name another file"
        )
    (tmp_path / "link.csv").symlink_to(rows)
    assert "would write over the rows to score" in call(
        "score", folder / "run", rows, "-o", tmp_path / "link.csv", code=2
    )
    assert "would write over the rows to complete" in call("complete", folder / "run", rows, "-o", rows, code=2)
    assert (folder / "table.csv").read_bytes() == before and len(pl.read_csv(rows)) == 5


def test_a_seed_of_more_than_64_bits_is_refused(folder):
    assert "--seed should lie between" in call("sample", folder / "run", "--seed", 2**64, code=2)
    call("sample", folder / "run", "-n", 1, "--seed", -(2**63))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_what_cannot_be_printed_is_one_line(folder):
    command = [sys.executable, "-m", "nablax", "sample", str(folder / "run"), "-n", "2000"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "nablax: the standard output cannot be written: No space left on device\n"


def test_few_rows_are_checked_without_a_two_sample_test(folder, tmp_path):
    mixed(6, seed=3).write_csv(tmp_path / "six.csv")
    call("check", folder / "run", tmp_path / "six.csv")
    assert "it takes 10 rows, and there are 6" in (folder / "run" / "report.html").read_text()
    # One draw of the noise tells nothing of its spread: the cell is empty, not zero.
    scores = pl.read_csv(folder / "run" / "scores.csv")
    assert scores["log_likelihood_nats_standard_error"].null_count() == len(scores) == 6
