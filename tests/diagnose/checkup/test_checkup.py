import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.calculus import Estimate
from nablax.diagnose import checkup, watch

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(48, 5)), jnp.float32)
Y = jnp.asarray(RANDOM.integers(0, 3, size=48))
BATCH = (X, Y)
KEY = jax.random.key(1)
OPTIMIZER = optax.adam(1e-3)


class Net(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    act: object
    count: jax.Array

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.first, self.second = eqx.nn.Linear(5, 8, key=a), eqx.nn.Linear(8, 3, key=b)
        self.act, self.count = jax.nn.relu, jnp.arange(3)

    def __call__(self, x):
        return self.second(self.act(self.first(x)))


def as_dict(net):
    """A nested tree of plain arrays, as Flax and Haiku keep them."""
    return {
        "params": {
            "first": {"kernel": net.first.weight.T, "bias": net.first.bias},
            "second": {"kernel": net.second.weight.T, "bias": net.second.bias},
        }
    }


def module_logits(net, batch):
    return jax.vmap(net)(batch[0])


def dict_logits(variables, batch):
    first, second = variables["params"]["first"], variables["params"]["second"]
    hidden = jax.nn.relu(batch[0] @ first["kernel"] + first["bias"][None])
    return hidden @ second["kernel"] + second["bias"][None]


def cross_entropy(logits):
    return lambda params, batch: jnp.mean(
        optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1])
    )


def decay(params, batch):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(eqx.filter(params, eqx.is_inexact_array)))


TRACES = []


def counted(params, batch):
    TRACES.append(None)
    return cross_entropy(dict_logits)(params, batch)


MODULE_LOSS, DICT_LOSS = cross_entropy(module_logits), cross_entropy(dict_logits)
LOSSES = {"fit": counted, "decay": decay}
FIELD = jax.grad(DICT_LOSS)


def examine(params, batch=BATCH, opt_state=None, key=KEY):
    return checkup(
        counted,
        params,
        batch,
        optimizer=OPTIMIZER,
        opt_state=opt_state,
        key=key,
        losses=LOSSES,
        logits=dict_logits,
        field=FIELD,
    )


NET = Net(jax.random.key(0))
PLAIN = as_dict(NET)


@pytest.fixture(scope="module")
def record():
    return examine(PLAIN, opt_state=OPTIMIZER.init(PLAIN))


def test_parts_are_right(record):
    gradient = jax.grad(DICT_LOSS)(PLAIN, BATCH)
    update, _ = OPTIMIZER.update(gradient, OPTIMIZER.init(PLAIN), PLAIN)
    moved = optax.apply_updates(PLAIN, update)
    np.testing.assert_allclose(record.loss, DICT_LOSS(PLAIN, BATCH), rtol=1e-6)
    np.testing.assert_allclose(record.step.slope.value, optax.tree.vdot(gradient, update), rtol=1e-4)
    np.testing.assert_allclose(record.step.actual.value, DICT_LOSS(moved, BATCH) - record.loss, atol=1e-6)
    np.testing.assert_allclose(record.noise.mean_loss, record.loss, rtol=1e-5)
    # The gradient of one loss does not turn.
    assert abs(record.rotation.share.value) < 1e-4
    np.testing.assert_allclose(record.conflicts.values[1], decay(PLAIN, BATCH), rtol=1e-6)
    assert record.conflicts.names == ("fit", "decay") and record.step.radius > 1
    assert record.sharpness.rule.kind == "Adam" and record.notes == ()


def test_repeated_calls_trace_once(record):
    """Each of its programs: that for other rates where a run first needs it, which these do."""
    counts = []
    for scale in (2, 3):
        other = jax.tree.map(lambda leaf: scale * leaf, PLAIN)  # noqa: B023
        found = examine(other, (X + scale, Y), OPTIMIZER.init(other), jax.random.key(scale))
        counts.append(len(TRACES))
        assert np.isfinite(found.rehearsal.multiples[1])
    assert counts[0] == counts[1]


def test_modules_and_plain_trees_agree(record):
    # A module with functions and whole numbers among its leaves: those stay where they are.
    moving = eqx.filter(NET, eqx.is_inexact_array)
    state = OPTIMIZER.init(moving)
    other = checkup(MODULE_LOSS, NET, BATCH, optimizer=OPTIMIZER, opt_state=state, key=KEY, rows=0)
    for part in ("ratio", "headroom", "sharpness"):
        expected = getattr(record.sharpness, part).value
        np.testing.assert_allclose(getattr(other.sharpness, part).value, expected, rtol=2e-2)
    assert other.noise is None and "rows=0" in other.notes[0]
    np.testing.assert_allclose(other.step.predicted.value, record.step.predicted.value, rtol=1e-3)
    assert other.layers.names == ("first.weight", "first.bias", "second.weight", "second.bias")
    assert record.layers.names[0] == "params.first.bias"
    assert np.isnan(other.step.radius) and other.conflicts is None and other.rotation is None


def test_planted_faults_are_named(record):
    dead = {"params": {**PLAIN["params"], "first": dict(PLAIN["params"]["first"])}}
    dead["params"]["first"]["bias"] = PLAIN["params"]["first"]["bias"].at[jnp.array([2, 5])].set(-100.0)
    found = examine(dead, opt_state=OPTIMIZER.init(dead))
    assert ("params.first.bias", 0, 2, 8) in found.layers.without_gradient()
    assert any("params.first.bias: 2 of 8" in text for text in found.advice)
    assert not any(name == "params.first.bias" for name, *_ in record.layers.without_gradient())

    broken = {"params": {**PLAIN["params"], "second": dict(PLAIN["params"]["second"])}}
    broken["params"]["second"]["kernel"] = PLAIN["params"]["second"]["kernel"].at[0, 0].set(jnp.nan)
    found = examine(broken, opt_state=OPTIMIZER.init(broken))
    assert found.findings[0].topic == "not finite" and "params.second.kernel (1 of 24)" in found.advice[0]
    found.table(), found.to_html()

    # The last weights ten thousand times too large: what lies before them gets gradients that explode.
    steep = {"params": {**PLAIN["params"], "second": dict(PLAIN["params"]["second"])}}
    steep["params"]["second"]["kernel"] = PLAIN["params"]["second"]["kernel"] * 1e5
    found = examine(steep, opt_state=OPTIMIZER.init(steep))
    ratio = found.layers.gradient / found.layers.gradient[2]
    assert ratio[0] > 1e3 and any(name.startswith("params.first") for name, _ in found.layers.exploding())


def test_without_optimiser_rows_or_update_it_says_so():
    record = checkup(lambda p, b: jnp.sum((p - 1) ** 2 * jnp.array([1.0, 3.0])), jnp.zeros(2), None, key=KEY)
    assert record.step is None and record.noise is None and len(record.notes) == 2
    assert np.isnan(record.sharpness.ratio.value) and "unknown" in record.sharpness.rule.name()
    # Unknown is the threshold, not the curvature.
    np.testing.assert_allclose(record.sharpness.sharpness.value, 6.0, rtol=1e-5)
    assert "cannot be said" in " ".join(record.advice)
    record.table(), record.to_html()
    with pytest.raises(ValueError, match="both"):
        checkup(DICT_LOSS, PLAIN, BATCH, optimizer=OPTIMIZER, learning_rate=0.1, key=KEY)
    with pytest.raises(ValueError, match="learning_rate with momentum"):
        checkup(DICT_LOSS, PLAIN, BATCH, momentum=0.9, key=KEY)


def test_a_loss_that_is_no_mean_over_rows_is_noticed():
    def coupled(p, batch):
        return jnp.var(batch @ p)

    record = checkup(coupled, jnp.ones(5), X, learning_rate=0.1, key=KEY)
    assert any("not the mean of its rows" in text for text in record.advice)


def test_watch_collects(record, tmp_path):
    watching = watch(counted, every=2, key=KEY, optimizer=OPTIMIZER, losses=LOSSES, logits=dict_logits, field=FIELD)
    params, state = PLAIN, OPTIMIZER.init(PLAIN)
    for number in range(5):
        found = watching.step(params, BATCH, state)
        assert (found is None) == (number % 2 == 1)
        updates, state = OPTIMIZER.update(jax.grad(DICT_LOSS)(params, BATCH), state, params)
        params = optax.apply_updates(params, updates)
    assert [number for number, _ in watching.records] == [0, 2, 4]
    losses = [float(r.loss) for _, r in watching.records]
    assert losses[2] < losses[0]
    # The record handed out is whole; the one kept holds nothing of the parameters' size.
    assert found.sharpness.rule.rates is not None
    assert all(r.sharpness.rule.rates is None for _, r in watching.records)
    assert len(watching.table().splitlines()) > 4
    page = watching.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page
    assert page.count("<svg") >= 5 and "http://" not in page.replace("http://www.w3.org", "")
    with pytest.raises(ValueError, match="every"):
        watch(counted, every=0, key=KEY)


def test_page_and_table_hold_the_numbers(record):
    page, table = record.to_html(), record.table()
    for text in record.advice:
        assert text in table
    assert f"{record.sharpness.ratio.value:.3g}" in page and page.count("<svg") >= 4
    assert "nan" not in page.split("<details>")[0].lower().replace("finance", "")


def test_names_are_escaped():
    name = '<i>w</i> & "v"'
    fit = r"<b>fit</b> & 'co' $\frac$"  # no formula, and none to be made of it
    losses = {
        fit: lambda p, b: jnp.mean((b @ p[name] - 1) ** 2),
        "size": lambda p, b: 1e3 * jnp.sum(p[name] ** 2),  # so uneven that the advice names both
    }
    loss = losses[fit]
    made = checkup(loss, {name: jnp.ones(5)}, X, learning_rate=0.1, key=KEY, losses=losses)
    watching = watch(loss, key=KEY)
    watching.records.append((0, made))
    for page in (made.to_html(), watching.to_html()):
        assert "<i>" not in page and "<b>fit" not in page and "&lt;b&gt;fit&lt;/b&gt; &amp; " in page
        assert "&lt;svg" not in page and page.count("<svg") >= 4
    assert "&lt;i&gt;w&lt;/i&gt; &amp; &#34;v&#34;</td>" in made.to_html()


def test_a_watch_without_check_ups_says_so():
    page = watch(counted, key=KEY).to_html()
    assert "No check-up yet" in page and "<ul" not in page and "<section" not in page


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_page_without_its_packages_names_the_extra(record, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'{package}'.*pip install 'nablax\[app\]'"):
        record.to_html()


def test_noise_that_hides_the_gradient_has_no_scale(record):
    part = record.noise
    hidden = Estimate(jnp.asarray(-1e-3), jnp.asarray(1e-3))
    hidden = eqx.tree_at(lambda n: (n.signal, n.preconditioned.value), part, (hidden, jnp.asarray(-40.0)))
    hidden = eqx.tree_at(lambda r: r.noise, record, hidden)
    assert f"≥ {hidden.noise.at_least:.3g}" in hidden.to_html() and "e+29" not in hidden.to_html()
    clear = Estimate(jnp.asarray(1.0), jnp.asarray(1e-3))
    clear = eqx.tree_at(lambda n: (n.signal, n.preconditioned.value), part, (clear, jnp.asarray(40.0)))
    clear = eqx.tree_at(lambda r: r.noise, record, clear)
    assert clear.to_html().count("<svg") == hidden.to_html().count("<svg") + 1 == 6
    watching = watch(counted, key=KEY)
    watching.records.append((0, hidden))
    assert f"≥ {hidden.noise.at_least:.3g}" in watching.table() and "-40" not in watching.table()
    watching.to_html()


def test_a_step_after_which_the_loss_is_no_number_is_a_fault(record):
    for change in (jnp.nan, jnp.inf):
        broken = eqx.tree_at(lambda r: r.step.actual.value, record, jnp.asarray(change))
        first = broken.findings[0]
        assert first.level == "fault" and first.topic == "step" and f"the loss is {change}" in first.text


def test_a_loss_in_half_precision_is_judged_to_its_own_rounding(record):
    """64 roundings of bfloat16 are half of the loss: no smaller rise can be seen."""
    for share, said in ((0.4, False), (0.6, True)):
        changed = (record.step.loss.astype(jnp.bfloat16), jnp.asarray(share * record.step.loss))
        rough = eqx.tree_at(lambda r: (r.step.loss, r.step.actual.value), record, changed)
        assert any("raises the loss" in text for text in rough.advice) == said


def test_a_sum_over_rows_is_noticed_from_a_part_of_them(record):
    # As many rows again were not looked at: their mean may differ somewhat, but not by the number of rows.
    for factor, noticed in ((1 / 96, True), (0.8, False)):
        part = replace(record.noise, batch=96, mean_loss=record.loss * factor)
        found = eqx.tree_at(lambda r: r.noise, record, part, is_leaf=lambda n: n is record.noise)
        assert any("not the mean of its rows" in text for text in found.advice) == noticed


def test_a_loss_that_falls_after_all_is_not_said_to_pay(record):
    values = (jnp.array([[1.0, -0.9], [-0.9, 1.0]]), jnp.array([1e-3, -1.0]), jnp.array([-9.0, -1.0]))
    part = eqx.tree_at(
        lambda c: (c.cosines.value, c.first_order.value, c.changes, c.cosines.standard_error),
        record.conflicts,
        (*values, jnp.zeros((2, 2))),
    )
    part = eqx.tree_at(lambda c: c.first_order.standard_error, part, jnp.zeros(2))
    said = [f for f in eqx.tree_at(lambda r: r.conflicts, record, part).findings if "pull against" in f.text]
    assert said[0].level == "note" and "raises" not in said[0].text


def test_a_part_of_the_rows_stands_for_the_whole_batch():
    """Rows in order of their class, one unit alive in one row only, and a fifteenth of them looked at."""
    batch = jnp.stack([jnp.linspace(-2, 2, 480), jnp.zeros(480).at[7].set(1.0)], axis=1)

    def losses(p, batch):
        return (batch @ p - 1) ** 2

    loss = lambda p, batch: jnp.mean(losses(p, batch))  # noqa: E731
    record = checkup(loss, jnp.ones(2), batch, learning_rate=0.1, key=KEY, rows=32)
    assert record.layers.without_gradient() == []
    # Standard errors are those of the mean over all rows, for that is the value; the mean is near that of all rows.
    update = -0.1 * jax.grad(loss)(jnp.ones(2), batch)
    changes = losses(jnp.ones(2) + update, batch) - losses(jnp.ones(2), batch)
    expected = np.std(changes) / np.sqrt(480)
    assert 0.5 * expected < record.step.actual.standard_error < 1.6 * expected
    rows = 2 * batch[:, 0] ** 2 / 20
    expected = np.std(rows) / np.sqrt(480)
    assert 0.4 * expected < record.sharpness.ratio.standard_error < 2 * expected
    assert abs(record.noise.mean_loss - record.loss) < 0.3 * record.loss


def test_rows_masked_to_nothing_are_noticed():
    weights = jnp.ones(48).at[::3].set(0.0)

    def masked(p, batch):
        x, w = batch
        return jnp.sum(w * (x @ p - 1) ** 2) / jnp.sum(w)

    record = checkup(masked, jnp.ones(5), (X.at[:, 4].set(0.0), weights), learning_rate=0.1, key=KEY)
    said = [f for f in record.findings if f.topic == "batch"]
    assert said[0].level == "warning" and "masked" in said[0].text and "rows=0" in said[0].text
    # The dead input shows in the rows that do have numbers.
    assert record.layers.without_gradient() == [("params", 0, 1, 5)]
    # An error that is not known is not one of zero.
    worse = eqx.tree_at(lambda r: r.step.actual.value, record, jnp.asarray(0.1))
    assert [f.text.count("±") for f in worse.findings if "raises the loss" in f.text] == [0]


def test_coupled_rows_are_sent_elsewhere():
    def losses(p, batch):
        return -jnp.diagonal(jax.nn.log_softmax((batch * p[None]) @ batch.T))

    loss = lambda p, batch: jnp.mean(losses(p, batch))  # noqa: E731
    record = checkup(loss, jnp.ones(5), X, example_losses=losses, learning_rate=1e-3, key=KEY)
    said = [f.text for f in record.findings if f.topic == "batch"]
    assert len(said) == 1 and "rows=0" in said[0] and "example_losses=" not in said[0]
    assert record.layers.without_gradient() == []


def test_a_gradient_that_few_rows_hide_is_no_reason_for_more_rows(record):
    """The bound is below the batch there is: only more measured rows can tell."""
    numbers = (Estimate(jnp.asarray(s), jnp.asarray(e)) for s, e in ((300.0, 40.0), (-2.0, 9.0)))
    noise = replace(record.noise, rows=128, batch=4096, noise=next(numbers), signal=next(numbers))
    few = replace(record, noise=replace(noise, mean_loss=record.loss), batch_size=4096)
    said = next(f for f in few.findings if f.topic == "batch")
    assert said.level == "note" and "rows=4096" in said.text and "Raise" not in said.text
    assert few.noise.suggested == 16  # 300 / 18 = 16.7
    said = next(f for f in replace(few, batch_size=2).findings if f.topic == "batch")
    assert "at least 16.7" in said.text and "A batch of 16 or more" in said.text


def test_curvature_that_is_no_number_is_named(record):
    broken = eqx.tree_at(lambda r: r.sharpness.ratio.value, record, jnp.asarray(jnp.nan))
    assert any("curvature is not finite" in f.text for f in broken.findings if f.topic == "learning rate")


def test_a_step_lost_in_rounding_is_not_held_against_the_model(record):
    lost = eqx.tree_at(lambda r: (r.step.lost, r.step.holds), record, (jnp.asarray(0.9), jnp.asarray(0.0)))
    said = [f.text for f in lost.findings if f.topic == "step"]
    assert len(said) == 1 and "float32 copy" in said[0] and "quadratic" not in said[0]


@pytest.mark.parametrize(("cosine", "level"), [(-0.2, None), (-0.6, "note"), (-0.95, "note")])
def test_a_conflict_whose_error_is_not_known_has_to_be_plain(record, cosine, level):
    cosines, nan = jnp.array([[1.0, cosine], [cosine, 1.0]]), jnp.full((2, 2), jnp.nan)
    part = eqx.tree_at(lambda c: (c.cosines.value, c.cosines.standard_error), record.conflicts, (cosines, nan))
    slopes = Estimate(jnp.ones(2), jnp.full(2, jnp.nan))
    # Raised by too little for the step to be dear to a loss.
    part = eqx.tree_at(lambda c: (c.first_order, c.changes), part, (slopes, jnp.full(2, 1e-6)))
    found = [f for f in eqx.tree_at(lambda r: r.conflicts, record, part).findings if "pull against" in f.text]
    assert [f.level for f in found] == ([] if level is None else [level])
    assert all("not known" in f.text for f in found)


def quadratic(params, batch):
    return jnp.mean(batch**2) * (100 * jnp.sum(params["still"] ** 2) + jnp.sum(params["moving"] ** 2)) / 2


ONES = {"still": jnp.ones(2), "moving": jnp.ones(3)}


def test_curvature_of_frozen_parts_is_no_danger():
    optimizer = optax.multi_transform(
        {"still": optax.set_to_zero(), "moving": optax.sgd(0.5)}, {"still": "still", "moving": "moving"}
    )
    record = checkup(quadratic, ONES, jnp.ones((16, 1)), optimizer=optimizer, key=KEY)
    np.testing.assert_allclose(record.sharpness.ratio.value, 0.25, rtol=1e-4)
    np.testing.assert_allclose(record.sharpness.sharpness.value, 1.0, rtol=1e-4)
    np.testing.assert_allclose(record.step.actual.value, 3 / 2 * (0.5**2 - 1), rtol=1e-4)
    assert "gradient descent" in record.sharpness.rule.name() and record.notes == ()


def test_accumulated_gradients_are_judged_by_the_step_they_make():
    optimizer, batch = optax.MultiSteps(optax.sgd(0.015), 4), jnp.ones((16, 1))
    state = optimizer.init(ONES)
    for _ in range(2):
        record = checkup(quadratic, ONES, batch, optimizer=optimizer, opt_state=state, key=KEY)
        np.testing.assert_allclose(record.sharpness.ratio.value, 0.75, rtol=1e-4)
        np.testing.assert_allclose(record.step.predicted.value, record.step.actual.value, rtol=1e-3)
        np.testing.assert_allclose(record.step.slope.value, -0.015 * (2 * 100**2 + 3), rtol=1e-4)
        assert any("gradients are accumulated" in note for note in record.notes)
        update, state = optimizer.update(jax.grad(quadratic)(ONES, batch), state, ONES)
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(update))  # which says nothing of the step to come


def test_noise_is_told_at_every_scale_of_the_loss():
    unit, *others = (
        checkup(lambda p, b, c=c: c * DICT_LOSS(p, b), PLAIN, BATCH, learning_rate=0.1 / c, key=KEY, steps=2, count=1)
        for c in (1.0, 1e-20, 1e20)
    )
    topics = [(f.level, f.topic) for f in unit.findings if f.topic == "batch"]
    assert topics
    for found in others:
        for part in ("simple", "preconditioned", "curved"):
            np.testing.assert_allclose(getattr(found.noise, part).value, getattr(unit.noise, part).value, rtol=2e-2)
        assert [(f.level, f.topic) for f in found.findings if f.topic == "batch"] == topics
