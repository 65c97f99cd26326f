"""What is chosen from the data: sizes, batches, conditions that were not named; and data at the edge of enough."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from nablax.app import FlowDensity
from nablax.app._ask import _density
from nablax.app._ask._draw import conditions_for
from nablax.app._data._cells import decode_conditions
from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table
from nablax.app._errors import UserError
from nablax.app._kinds._category import Category
from nablax.app._runs._config import Choices, choose, part_sizes
from nablax.app._runs._rows import split


def chosen(rows, kind="table", **asked):
    return choose(Choices(**asked), kind=kind, rows=rows, dim=4, condition_dim=0)[0]


def test_batches_can_be_shared_by_devices_and_are_no_larger_than_the_training_rows():
    for rows in (20, 33, 60, 150, 1000, 9999, 20_000):
        batch = chosen(rows)["batch_size"]
        training = rows - sum(part_sizes(rows, 0.2, 0.1))
        assert 1 <= batch <= training and (batch % 16 == 0 or training < 16)
        assert len(split(rows, 0, 0.2, 0.1)[0]) == training


def test_no_row_is_held_out_where_none_is_asked_for_and_some_decide_when_to_stop_all_the_same():
    assert chosen(100, held_out=0.0)["held_out"] == 0.0
    training, validation, held_out = split(100, 0, 0.0, 0.1)
    assert [len(part) for part in (training, validation, held_out)] == [90, 10, 0]
    assert sorted(np.concatenate([training, validation])) == list(range(100))
    with pytest.raises(UserError, match=r"--held-out should lie between 0 and 0\.9, not -0\.1"):
        chosen(100, held_out=-0.1)


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -float("inf"), 1.0, 0.95])
def test_shares_that_are_none_are_refused(share):
    for name in ("held_out", "validation"):
        with pytest.raises(UserError, match=rf"--{name.replace('_', '-')} should lie between 0"):
            chosen(100, **{name: share})


def test_what_cannot_be_trained_is_refused_before_anything_is_written():
    with pytest.raises(UserError, match="--batch-size should lie between 1 and 72"):
        chosen(100, batch_size=90)
    with pytest.raises(UserError, match="leave no rows to train on"):
        chosen(20, held_out=0.9, validation=0.9)
    with pytest.raises(UserError, match="transformer is for images"):
        chosen(100, network="transformer")
    assert chosen(100, kind="images", network="transformer")["network"] == "transformer"


def test_categories_may_differ_by_their_case_alone():
    frame = pl.DataFrame({"allele": ["A", "a", "a", "A"] * 20, "x": np.arange(80.0)})
    codec = fit_codec(table(frame))
    base, _ = codec.encode(frame)
    column = next(c for c in codec.modelled if c.name == "allele")
    place = codec.modelled.index(column)
    assert [column.categories[int(code)] for code in base[:4, place, 0]] == ["A", "a", "a", "A"]
    with pytest.raises(UserError, match="no value 'á'"):
        column.code_of("á")
    other = Category(name="colour", categories=("Red", "RED", "blue"))
    assert other.code_of("BLUE") == 2
    with pytest.raises(UserError, match="no value 'red'; the known ones are Red, RED, blue"):
        other.code_of("red")


def test_conditions_that_are_not_named_come_from_rows_that_agree():
    random = np.random.default_rng(0)
    species = random.choice(["x", "y"], 600)
    length = np.where(species == "x", 1.0, 9.0) + 0.1 * random.normal(size=600)
    site = np.where(species == "x", random.choice(["n", "s"], 600), "w")
    frame = pl.DataFrame({"v": random.normal(size=600), "species": species, "length": length, "site": site})
    codec = fit_codec(table(frame), condition=("species", "length", "site"))
    # Of images, whose conditions are not drawn by the model.
    face = SimpleNamespace(encode_condition=codec.encode_condition, conditioned=codec.conditioned)
    model = SimpleNamespace(codec=face, conditions=codec.encode(frame)[1])

    def drawn(**values):
        return pl.DataFrame(decode_conditions(codec.conditioned, conditions_for(model, 200, values, 0)))

    named = drawn(species="x")
    assert set(named["species"]) == {"x"} and set(named["site"]) == {"n", "s"} and named["length"].max() < 2
    assert 0.3 < (named["site"] == "n").mean() < 0.7
    near = drawn(length="9")
    assert set(near["species"]) == {"y"} and set(near["site"]) == {"w"} and (near["length"] == near["length"][0]).all()
    assert set(drawn()["site"]) == {"n", "s", "w"}
    both = drawn(species="y", length="9", site="w")
    assert both.n_unique() == 1


def test_small_units_are_standardised(monkeypatch):
    history = SimpleNamespace(loss=[0.0])
    monkeypatch.setattr(_density, "fit", lambda loss, field, *_, **__: SimpleNamespace(model=field, history=history))
    rows = 1e-19 * np.random.default_rng(0).normal(3.0, 2.0, (60, 2))
    for data, scale in ((rows, rows.std(axis=0)), (np.full((5, 1), 1e8), [1.0]), (np.zeros((5, 1)), [1.0])):
        density = FlowDensity(width=4, depth=1, random_state=0).fit(data)
        np.testing.assert_allclose(density.scale_, scale)
