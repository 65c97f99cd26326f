"""The training loop against the same loop by hand, closed forms, and its promises."""

import functools
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax._core import rows_of
from nablax.fields import EMA
from nablax.follow import _loop, fit

ROWS, BATCH = 50, 8
# Shared, so that tests share compiled programs: optimisers are told apart by identity.
ADAM, AVERAGE = optax.adam(0.1), EMA(0.9)


def data_of(seed=0, rows=ROWS):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3 + 0.1 * generator.normal(size=rows).astype(np.float32)
    return {"x": x, "y": y.astype(np.float32)}


class Line(eqx.Module):
    weight: jax.Array
    bias: jax.Array
    calls: jax.Array
    name: str

    def __init__(self):
        self.weight, self.bias, self.calls, self.name = jnp.zeros(3), jnp.zeros(()), jnp.array(7), "line"


def loss(model, batch, *, key):
    noise = 0.01 * jax.random.normal(key, batch["y"].shape)
    return jnp.mean((batch["x"] @ model.weight + model.bias + noise - batch["y"]) ** 2)


def plain(model, batch, *, key):
    return jnp.mean((batch["x"] @ model.weight + model.bias - batch["y"]) ** 2)


draw_rows = jax.jit(jax.vmap(lambda step, key: rows_of(step, ROWS, BATCH, key=key), in_axes=(0, None)))


def all_rows(key, steps):
    """Rows of every step."""
    shuffle = jax.random.fold_in(key, np.uint32(0xFFFFFFFF))
    return np.asarray(draw_rows(jnp.arange(200), shuffle))[:steps]


@functools.partial(jax.jit, static_argnums=0)
def hand_step(optimizer, params, state, batch, key):
    frozen = eqx.filter(Line(), eqx.is_inexact_array, inverse=True)
    value, gradient = jax.value_and_grad(lambda p: loss(eqx.combine(p, frozen), batch, key=key))(params)
    extra = {"value": value, "grad": gradient, "value_fn": lambda p: loss(eqx.combine(p, frozen), batch, key=key)}
    if not isinstance(optimizer, optax.MultiSteps):
        optimizer = optax.with_extra_args_support(optimizer)
    updates, state = optimizer.update(gradient, state, params, **extra)
    return optax.apply_updates(params, updates), state, value


def by_hand(data, steps, optimizer, key):
    """Models, losses, step by step in Python."""
    params = eqx.filter(Line(), eqx.is_inexact_array)
    state, models, losses, rows = optimizer.init(params), [], [], all_rows(key, steps)
    for k in range(steps):
        batch = {name: leaf[rows[k]] for name, leaf in data.items()}
        params, state, value = hand_step(optimizer, params, state, batch, jax.random.fold_in(key, k))
        models.append(params)
        losses.append(float(value))
    return models, losses


def close(one, other, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6),
        eqx.filter(one, eqx.is_inexact_array),
        eqx.filter(other, eqx.is_inexact_array),
    )


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, eqx.filter(one, eqx.is_array), eqx.filter(other, eqx.is_array))


def test_linear_regression_is_least_squares(key):
    data = data_of()
    out = fit(
        plain, Line(), data, optimizer=optax.sgd(0.2), steps=400, batch_size=ROWS, key=key
    )  # full batches: no gradient noise
    expected = least_squares(data)
    np.testing.assert_allclose(out.model.weight, expected[:3], atol=1e-5)
    np.testing.assert_allclose(out.model.bias, expected[3], atol=1e-5)
    assert out.result == "completed" and out.step == out.best_step == 400


def test_trajectory_history_average_and_validation_are_those_of_a_plain_loop(key):
    data, rows = data_of(), data_of(1, rows=19)
    optimizer, ema = ADAM, AVERAGE
    models, losses = by_hand(data, 60, optimizer, key)
    out = fit(
        loss, Line(), data, optimizer=optimizer, steps=60, batch_size=BATCH, key=key,
        validation=rows, validate_every=25, ema=ema,
    )  # fmt: skip
    np.testing.assert_array_equal(out.history.step, np.arange(1, 61))
    np.testing.assert_allclose(out.history.loss, losses, rtol=1e-5)
    close(out.last, models[-1])

    average = ema.init(eqx.filter(Line(), eqx.is_inexact_array))
    measured = {}
    validate = jax.random.fold_in(key, np.uint32(0xFFFFFFFE))
    for k, model in enumerate(models, 1):
        average = ema.update(average, model)
        if k in (25, 50, 60):
            total = 0.0
            for i in range(3):
                part = {name: leaf[i * BATCH : (i + 1) * BATCH] for name, leaf in rows.items()}
                mean = loss(average.average, part, key=jax.random.fold_in(validate, i))
                total += float(mean) * len(part["y"])
            measured[k] = (total / 19, average.average)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(out.history.validation)) + 1, list(measured))
    found = out.history.validation[np.array(list(measured)) - 1]
    np.testing.assert_allclose(found, [value for value, _ in measured.values()], rtol=1e-5)
    best = min(measured, key=lambda k: measured[k][0])
    assert out.best_step == best
    close(out.model, measured[best][1])


def test_without_validation_the_model_is_the_average(key):
    data, optimizer, ema = data_of(), ADAM, AVERAGE
    models, _ = by_hand(data, 12, optimizer, key)
    average = ema.init(eqx.filter(Line(), eqx.is_inexact_array))
    for model in models:
        average = ema.update(average, model)
    out = fit(loss, Line(), data, optimizer=optimizer, steps=12, batch_size=BATCH, key=key, ema=ema)
    close(out.model, average.average)
    close(out.last, models[-1])


def test_other_leaves_and_the_users_arrays_survive(key):
    model, data = Line(), jax.tree.map(jnp.asarray, data_of())
    out = fit(plain, model, data, optimizer=optax.sgd(0.1), steps=3, batch_size=BATCH, key=key)
    assert int(out.model.calls) == 7 and out.model.name == "line"
    np.testing.assert_array_equal(model.weight, 0.0)
    assert np.isfinite(data["x"]).all()
    # The record's arrays are its own: donating one leaves the other.
    jax.jit(lambda x: x + 1, donate_argnums=0)(out.last.weight).block_until_ready()
    assert np.isfinite(out.model.weight).all()


def test_the_length_of_calls_changes_no_bit(key, monkeypatch):
    outs = []
    for length in (1, 7, 1000):
        monkeypatch.setattr(_loop.Pace, "called", lambda self, *_, n=length: setattr(self, "count", n))
        outs.append(
            fit(
                loss,
                Line(),
                data_of(),
                optimizer=ADAM,
                steps=64,
                batch_size=BATCH,
                key=key,
                validation=data_of(1, rows=19),
                validate_every=20,
                ema=AVERAGE,
            )
        )
    for other in outs[1:]:
        same((outs[0].model, outs[0].last), (other.model, other.last))
        same(outs[0].history, other.history)


def test_one_program_whatever_the_number_of_steps(key):
    traces = []

    def counted(model, batch, *, key):
        traces.append(1)
        return loss(model, batch, key=key)

    optimizer, counts = ADAM, []
    for steps in (5, 333, 1001):
        fit(
            counted, Line(), data_of(), optimizer=optimizer, steps=steps, batch_size=BATCH, key=key,
            validation=data_of(1, rows=19), validate_every=77,
        )  # fmt: skip
        counts.append(len(traces))
    # The first run compiles training and validation; a later one only asks for the shape of the loss.
    assert counts[0] <= 5 and counts[1] - counts[0] == counts[2] - counts[1] == 1


def test_dtype_is_kept(x64, key):
    model, data = Line(), data_of()
    assert model.weight.dtype == jnp.float64
    out = fit(plain, model, data, optimizer=ADAM, steps=5, batch_size=BATCH, key=key, ema=AVERAGE)
    assert out.model.weight.dtype == out.history.loss.dtype == jnp.float64
    half = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model)
    data = jax.tree.map(lambda x: x.astype(np.float32), data)
    out = fit(plain, half, data, optimizer=ADAM, steps=5, batch_size=BATCH, key=key, ema=AVERAGE)
    assert out.model.weight.dtype == out.history.loss.dtype == jnp.float32


def test_early_stop_returns_the_best(key):
    # Two rows teach a slope that the validation rows contradict after a while.
    data = {"x": np.eye(3, dtype=np.float32)[:2], "y": np.array([4.0, 4.0], np.float32)}
    rows = {"x": np.eye(3, dtype=np.float32)[:2], "y": np.array([1.0, 1.0], np.float32)}
    settings = {"optimizer": optax.sgd(0.01), "batch_size": 2, "key": key}
    out = fit(
        plain, Line(), data, steps=1000, validation=rows, validate_every=5, patience=3, **settings
    )  # fmt: skip
    measured = out.history.validation[4::5]
    assert out.result == "stopped early"
    assert out.step == out.best_step + 15 < 1000
    assert out.best_step == 5 * (1 + np.argmin(measured))
    assert np.isfinite(measured).all() and len(out.history.loss) == out.step
    again = fit(plain, Line(), data, steps=out.best_step, **settings)
    same(out.model, again.last)


def poisoned(at, data):
    def source(first, count):
        batches = [
            {name: leaf[:BATCH] + np.float32(k) / 100 for name, leaf in data.items()}
            for k in range(first, first + count)
        ]
        for k, batch in enumerate(batches, first):
            if k == at:
                batch["y"] = batch["y"] * np.float32(np.nan)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    return source


@pytest.mark.parametrize("guarded", ["loss", "update"])
def test_a_step_that_is_not_finite_ends_training_before_it(key, guarded):
    settings = {
        "batch_size": BATCH,
        "key": key,
        "ema": AVERAGE,
        "validation": data_of(1, rows=19),
        "validate_every": 10,
    }
    source, optimizer = poisoned(37 if guarded == "loss" else -1, data_of()), ADAM
    if guarded == "update":
        # A schedule that explodes at step 37.
        optimizer = optax.adam(lambda count: jnp.where(count == 37, jnp.inf, 0.1))
    out = fit(loss, Line(), source, optimizer=optimizer, steps=100, **settings)
    finite = fit(loss, Line(), poisoned(-1, data_of()), optimizer=ADAM, steps=37, **settings)
    assert (out.result, out.step, len(out.history.loss)) == ("diverged", 37, 37)
    assert np.isfinite(out.history.loss).all()
    same(out.last, finite.last)
    assert out.best_step <= 30 and np.isfinite(out.model.weight).all()


def test_divergence_at_the_first_step_returns_the_model_as_it_was(key):
    out = fit(loss, Line(), poisoned(0, data_of()), optimizer=ADAM, steps=9, batch_size=BATCH, key=key)
    assert (out.result, out.step, out.history.loss.shape) == ("diverged", 0, (0,))
    same(out.model, Line())


def test_exploding_validation_keeps_the_best(key):
    rows = data_of(1, rows=19)
    out = fit(
        plain, Line(), data_of(), optimizer=optax.sgd(0.9), steps=60, batch_size=BATCH, key=key,
        validation=rows, validate_every=1,
    )  # fmt: skip
    measured = out.history.validation
    assert np.nanmax(measured) > 10 * np.nanmin(measured)  # it did explode
    assert out.best_step == 1 + np.nanargmin(measured)
    np.testing.assert_allclose(plain(out.model, rows, key=key), np.nanmin(measured), rtol=1e-5)


def test_host_source_and_resident_rows_give_the_same(key):
    data, asked = data_of(), []
    rows = all_rows(key, 150)

    def source(first, count):
        asked.append((first, count, threading.current_thread().name))
        return {name: leaf[rows[first : first + count]] for name, leaf in data.items()}

    settings = {"optimizer": ADAM, "steps": 150, "batch_size": BATCH, "key": key}
    out, other = fit(loss, Line(), source, **settings), fit(loss, Line(), data, **settings)
    close(out.last, other.last, rtol=1e-6)
    np.testing.assert_allclose(out.history.loss, other.history.loss, rtol=1e-6)
    # After the probe, all steps once, in order, in a thread of its own.
    assert [k for first, count, _ in asked[1:] for k in range(first, first + count)] == list(range(150))
    assert {name for *_, name in asked[1:]} == {"prefetch"}
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_the_source_works_ahead_of_the_device(key):
    reached = threading.Event()

    def source(first, count):
        if first > 0:
            reached.set()
        return {name: np.stack([leaf[:BATCH]] * count) for name, leaf in data_of().items()}

    def wait(progress):
        # While the first call is being reported, later blocks are under way.
        assert reached.wait(timeout=20)

    fit(loss, Line(), source, optimizer=ADAM, steps=200, batch_size=BATCH, key=key, progress=wait)


def test_what_the_source_raises_reaches_the_caller(key):
    def source(first, count):
        if first + count > 70:
            raise OSError("the disk is gone")
        return {name: np.stack([leaf[:BATCH]] * count) for name, leaf in data_of().items()}

    with pytest.raises(OSError, match="the disk is gone"):
        fit(loss, Line(), source, optimizer=ADAM, steps=200, batch_size=BATCH, key=key)
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_source_of_another_shape_is_refused(key):
    def source(first, count):
        return np.zeros((count, BATCH + 1))

    with pytest.raises(ValueError, match=r"expected arrays of shape \(1, 8, ...\)"):
        fit(loss, Line(), source, optimizer=optax.sgd(0.1), steps=2, batch_size=BATCH, key=key)


def test_progress(key):
    seen = []
    fit(
        loss, Line(), data_of(), optimizer=ADAM, steps=30_000, batch_size=BATCH, key=key,
        validation=data_of(1, rows=19), validate_every=10_000, ema=AVERAGE, progress=seen.append,
    )  # fmt: skip
    steps = [report.step for report in seen]
    assert steps == sorted(set(steps)) and steps[-1] == 30_000 and len(seen) >= 3
    last = seen[-1]
    assert last.steps == 30_000 and last.validation is not None and np.isfinite(last.loss)
    assert last.steps_per_second > 0 and last.seconds_left == 0
    assert all(report.seconds_left > 0 for report in seen[1:-1])


def test_an_optimizer_that_wants_the_value(key):
    optimizer = optax.chain(optax.sgd(0.5), optax.contrib.reduce_on_plateau(patience=2, factor=0.5))
    out = fit(loss, Line(), data_of(), optimizer=optimizer, steps=100, batch_size=BATCH, key=key)
    assert out.result == "completed" and out.history.loss[-10:].mean() < out.history.loss[:10].mean()


def test_random_state_in_the_optimizer(key):
    optimizer = optax.chain(optax.add_noise(1e-3, 0.5, key=jax.random.key(1)), optax.sgd(0.1))
    out = fit(loss, Line(), data_of(), optimizer=optimizer, steps=20, batch_size=BATCH, key=key)
    models, _ = by_hand(data_of(), 20, optimizer, key)
    close(out.last, models[-1])


def least_squares(data):
    design = np.concatenate([data["x"], np.ones((ROWS, 1), np.float32)], axis=1)
    return np.linalg.lstsq(design, data["y"])[0]


SEARCHES = {
    "L-BFGS": optax.lbfgs(),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=20)),
    "zoom": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(max_linesearch_steps=20)),
    "polyak": optax.polyak_sgd(0.5),
    "accumulated": optax.MultiSteps(optax.polyak_sgd(0.5), 2),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_line_searches_look_at_the_present_batch_and_noise(case, key):
    optimizer = SEARCHES[case]
    out = fit(loss, Line(), data_of(), optimizer=optimizer, steps=12, batch_size=BATCH, key=key)
    models, losses = by_hand(data_of(), 12, optimizer, key)
    np.testing.assert_allclose(out.history.loss, losses, rtol=1e-4)
    close(out.last, models[-1], rtol=1e-4)


def test_l_bfgs_on_all_rows_arrives_in_few_steps(key):
    data, settings = data_of(), {"steps": 12, "batch_size": ROWS, "key": key}
    out = fit(plain, Line(), data, optimizer=optax.lbfgs(), **settings)
    np.testing.assert_allclose(out.model.weight, least_squares(data)[:3], atol=1e-5)
    np.testing.assert_allclose(out.model.bias, least_squares(data)[3], atol=1e-5)
    other = fit(plain, Line(), data, optimizer=ADAM, **settings)
    assert np.abs(other.model.weight - least_squares(data)[:3]).max() > 0.1  # not what any optimiser does


def test_a_resumed_line_search_is_bit_identical(key, tmp_path):
    settings = {"optimizer": SEARCHES["L-BFGS"], "batch_size": BATCH, "key": key}
    whole = fit(loss, Line(), data_of(), steps=12, **settings)
    fit(loss, Line(), data_of(), steps=7, checkpoint=tmp_path / "run", **settings)
    out = fit(loss, Line(), data_of(), steps=12, checkpoint=tmp_path / "run", **settings)
    same(out.last, whole.last)
    same(out.history, whole.history)


def texts():
    return {"x": np.zeros((ROWS, 3)), "y": np.array(["a"] * ROWS)}


RIGHT = {"optimizer": optax.sgd(0.1), "steps": 2, "batch_size": BATCH}
# Each fault says what was expected, what came, and what to do.
WRONG = {
    "steps": ({"steps": 0}, "expected steps as a whole number, at least 1, got 0. Pass steps=1 or more"),
    "fractional steps": ({"steps": 40.0}, "expected steps as a whole number, at least 1, got 40.0. Pass"),
    "steps in words": ({"steps": "40"}, "expected steps as a whole number, at least 1, got '40'. Pass"),
    "steps by truth": ({"steps": True}, "expected steps as a whole number, at least 1, got True. Pass"),
    "batch_size": ({"batch_size": 0}, "expected batch_size as a whole number, at least 1, got 0. Pass"),
    "fractional batch_size": ({"batch_size": 8.5}, "expected batch_size as a whole number, at least 1, got 8.5. Pass"),
    "large batch": ({"batch_size": ROWS + 1}, "at least 51 rows, got 50. Pass more rows or a smaller batch_size"),
    "empty": ({"data": {"x": np.zeros((0, 3)), "y": np.zeros(0)}}, "at least 8 rows, got 0. Pass more rows"),
    "no arrays": ({"data": {}}, "expected data: arrays of numbers with a leading axis of rows, got {}. Pass some"),
    "scalar": ({"data": {"x": np.zeros(())}}, r"with a leading axis of rows, got f64\[\].*Make one array"),
    "lists": ({"data": {"x": [[1.0, 2.0, 3.0]] * 9, "y": [1.0] * 9}}, "rows, got a float among them. Make one array"),
    "a list": ({"data": [1.0, 2.0]}, "expected data: arrays of numbers .*, got a float among them. Make one array"),
    "strings": ({"data": texts()}, r"rows, got <U1\[50\].*numbers of words"),
    "a string": ({"data": "table.csv"}, "expected data: arrays .*, got a str among them. Make one array"),
    "objects": ({"data": {"x": np.array([None] * 9)}}, r"expected data: arrays .*, got object\[9\].*Make one array"),
    "ragged": ({"data": {"x": np.zeros((9, 3)), "y": np.zeros(10)}}, "as many rows each, got .*Cut them"),
    "patience": ({"patience": 2}, "validation rows with patience, got none. Pass validation"),
    "no patience": ({"patience": 0, "validation": data_of()}, "expected patience as .* 1, got 0. Pass"),
    "validate_every": ({"validate_every": 0, "validation": data_of()}, "expected validate_every as .*, got 0. Pass"),
    "checkpoint_every": ({"checkpoint_every": 2.5}, "expected checkpoint_every as .*, got 2.5. Pass"),
    "empty validation": ({"validation": {"x": np.zeros((0, 3)), "y": np.zeros(0)}}, "validation: at least 1 rows, got 0"),
    "validation in lists": ({"validation": [1, 2]}, "expected validation: arrays .*, got a int among them. Make"),
    "no weights": ({"model": {"n": 3}}, r"expected a model with floating arrays, got \{'n': 3\}. There is nothing to train"),
    "whole weights": ({"model": {"n": jnp.arange(3)}}, r"floating arrays, got \{'n': i32\[3\]\}"),
    "lookahead": ({"model": optax.LookaheadParams.init_synced(Line())}, "the model itself, got .*Pass model.fast"),
    "vector loss": ({"loss": lambda m, b, *, key: b["y"]}, r"returns one real number, got f32\[8\]. Take the mean"),
    "auxiliary values": ({"loss": lambda m, b, *, key: (m.bias, b)}, "one real number, got \\(f32.*the loss alone"),
    "whole loss": ({"loss": lambda m, b, *, key: jnp.int32(1)}, r"one real number, got i32\[\]. Return a floating"),
    "complex loss": ({"loss": lambda m, b, *, key: m.bias * 1j}, r"one real number, got c64\[\]. Return its real"),
    "loss of Python": ({"loss": lambda m, b, *, key: 1.0}, "one real number, got 1.0. Compute it from the parameters"),
    "no loss": ({"loss": lambda m, b, *, key: None}, "one real number, got None. Compute it"),
    "loss of one": ({"loss": lambda m: m.bias}, r"a loss of two arguments, the key apart, got one of \(m\)\. Pass loss\("),
    "loss of three": ({"loss": lambda m, s, b, *, key: m.bias}, r"two arguments, the key apart, got one of \(m, s, b, \*"),
    "jitted loss of one": ({"loss": jax.jit(lambda m: m.bias)}, r"a loss of two arguments, the key apart, got one of \(m\)"),
    "loss without state": ({"state": {"n": jnp.ones(())}}, r"three arguments.*, as there is a state, got one of .*Pass loss"),
    "loss that is none": ({"loss": 3.0}, "expected loss, a function, got 3.0. Pass loss\\(model"),
    "uncalled": ({"optimizer": optax.adam}, r"with init and update, got the function adam. Call it: optimizer=optax.adam\("),
    "a rate": ({"optimizer": 1e-3}, "with init and update, got 0.001. Pass optimizer=optax.adam"),
    "progress": ({"progress": 1}, "expected progress, a function, got"),
    "notice": ({"notice": "loud"}, "expected notice, a function, got"),
    "checkpoint": ({"checkpoint": 3}, "expected checkpoint.*got.*Pass the folder's path"),
    "decay": ({"ema": 0.999}, r"expected ema, an EMA, got 0.999. Pass ema=nablax.fields.EMA\(0.999\)"),
    "seed": ({"key": 0}, r"expected key: a random key, got 0. Pass jax.random.key\(0\)"),
    "no key": ({"key": None}, r"expected key: a random key, got None. Pass jax.random.key\(0\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments(case, key):
    change, message = WRONG[case]
    call = {"loss": loss, "model": Line(), "data": data_of(), **RIGHT, **change}
    with pytest.raises(ValueError, match=message):
        fit(call.pop("loss"), call.pop("model"), call.pop("data"), **{"key": key, **call})


def test_numpys_whole_numbers_and_decays_are_numbers(tmp_path):
    options = {"optimizer": ADAM, "key": jax.random.key(0), "validation": data_of(1)}
    counts = {"steps": np.int64(6), "batch_size": np.int64(BATCH), "validate_every": np.int64(2)}
    done = fit(plain, Line(), data_of(), ema=EMA(np.float32(0.9)), checkpoint=tmp_path, **counts, **options)
    again = fit(plain, Line(), data_of(), ema=EMA(np.float32(0.9)), checkpoint=tmp_path, **counts, **options)
    assert done.step == again.step == 6 and bool(jnp.all(done.model.weight == again.model.weight))
