"""Metrics in the history and a model's running statistics, against the loop by hand and across interruptions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax._core import rows_of
from nablax.follow import fit

ROWS, BATCH, STEPS = 40, 8, 12
X = np.random.default_rng(0).normal(2.0, 3.0, (ROWS, 3)).astype(np.float32)
DATA = {"x": X, "y": np.tanh(X @ np.array([0.3, -0.2, 0.1], np.float32))}
FRESH = {"x": X[:13] + 1, "y": DATA["y"][:13]}
ADAM = optax.adam(0.05)


class Normed(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(3, 8, key=a), eqx.nn.Linear(8, "scalar", key=b)
        self.norm = eqx.nn.BatchNorm(8, axis_name="rows", mode="ema")

    def __call__(self, x, state):
        hidden, state = self.norm(self.first(x), state)
        return self.last(jax.nn.relu(hidden)), state


def predicted(model, state, x):
    return jax.vmap(model, axis_name="rows", in_axes=(0, None), out_axes=(0, None))(x, state)


def loss(model, state, batch, *, key):
    out, state = predicted(model, state, batch["x"])
    out = out + 0.01 * jax.random.normal(key, out.shape)
    return jnp.mean((out - batch["y"]) ** 2), state


def measured(model, state, batch, *, key):
    value, state = loss(model, state, batch, key=key)
    return value, (state, {"worst": jnp.sqrt(value) + 1, "rows": jnp.int32(len(batch["y"]))})


def plain(model, batch, *, key):
    out = batch["x"] @ model["w"] + 0.01 * jax.random.normal(key, batch["y"].shape)
    error = out - batch["y"]
    return jnp.mean(error**2), {"absolute": jnp.mean(jnp.abs(error)), "right": jnp.mean(error < 0.1)}


@pytest.fixture
def made(key):
    return eqx.nn.make_with_state(Normed)(key)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, eqx.filter(one, eqx.is_array), eqx.filter(other, eqx.is_array))


def close(one, other, rtol=1e-4):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5),
        eqx.filter(one, eqx.is_array),
        eqx.filter(other, eqx.is_array),
    )


def by_hand(model, state, key, steps=STEPS):
    """Weights, state and losses after every step."""
    optimizer_state = ADAM.init(eqx.filter(model, eqx.is_inexact_array))
    shuffle, path = jax.random.fold_in(key, np.uint32(0xFFFFFFFF)), []

    @eqx.filter_jit
    def step(model, state, optimizer_state, k):
        rows = rows_of(k, ROWS, BATCH, key=shuffle)
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], DATA)
        function = eqx.filter_value_and_grad(loss, has_aux=True)
        (value, state), grads = function(model, state, batch, key=jax.random.fold_in(key, k))
        updates, optimizer_state = ADAM.update(grads, optimizer_state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, optimizer_state, value

    for k in range(steps):
        model, state, optimizer_state, value = step(model, state, optimizer_state, jnp.int32(k))
        path.append((model, state, value))
    return path


def test_running_statistics_are_those_of_the_loop_by_hand(made, key):
    out = fit(loss, made[0], DATA, optimizer=ADAM, steps=STEPS, batch_size=BATCH, key=key, state=made[1])
    path = by_hand(*made, key)
    np.testing.assert_allclose(out.history.loss, [value for *_, value in path], rtol=1e-4)
    close(out.last, path[-1][0])
    close(out.state, path[-1][1])
    same((out.model, out.state), (out.last, out.last_state))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a.astype(float) - b).max()), out.state, made[1])
    assert max(jax.tree.leaves(moved)) > 0.1


def test_validation_looks_with_running_statistics_and_keeps_the_best_with_its_weights(made, key):
    out = fit(
        measured, made[0], DATA, optimizer=ADAM, steps=STEPS, batch_size=BATCH, key=key, state=made[1], has_aux=True,
        validation=FRESH, validate_every=1,
    )  # fmt: skip
    path, draws = by_hand(*made, key), jax.random.fold_in(key, np.uint32(0xFFFFFFFE))
    expected = []
    for model, state, _ in path:
        parts = []
        for i, rows in enumerate((slice(0, 8), slice(8, 13))):
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], FRESH)
            fresh = jax.tree.map(lambda leaf: leaf, state)
            value, _ = loss(eqx.nn.inference_mode(model), fresh, batch, key=jax.random.fold_in(draws, i))
            parts.append((float(value), len(batch["y"])))
        sizes = [size for _, size in parts]
        expected.append([np.average([f(v) for v, _ in parts], weights=sizes) for f in (lambda v: v, np.sqrt)])
    means, roots = np.array(expected).T
    np.testing.assert_allclose(out.history.validation, means, rtol=1e-3)
    np.testing.assert_allclose(out.history.validation_metrics["worst"], roots + 1, rtol=1e-3)
    np.testing.assert_allclose(out.history.validation_metrics["rows"], (8 * 8 + 5 * 5) / 13, rtol=1e-6)
    assert out.best_step == 1 + np.argmin(means)
    close((out.model, out.state), path[out.best_step - 1][:2])
    close((out.last, out.last_state), path[-1][:2])


def test_metrics_land_beside_the_loss(key):
    start = {"w": jnp.zeros(3)}
    settings = {"optimizer": ADAM, "steps": 9, "batch_size": ROWS, "key": key}
    out = fit(plain, start, DATA, has_aux=True, validation=FRESH, validate_every=4, **settings)
    alone = fit(lambda m, b, *, key: plain(m, b, key=key)[0], start, DATA, **settings)
    np.testing.assert_allclose(out.history.loss, alone.history.loss, rtol=1e-6)
    close(out.last, alone.last)
    assert set(out.history.metrics) == set(out.history.validation_metrics) == {"absolute", "right"}
    noise = 0.01 * jax.random.normal(jax.random.fold_in(key, 0), (ROWS,))
    rows = np.asarray(rows_of(jnp.int32(0), ROWS, ROWS, key=jax.random.fold_in(key, np.uint32(0xFFFFFFFF))))
    np.testing.assert_allclose(out.history.metrics["absolute"][0], np.abs(noise - DATA["y"][rows]).mean(), rtol=1e-5)
    assert (np.flatnonzero(np.isfinite(out.history.validation_metrics["right"])) + 1).tolist() == [4, 8, 9]


def test_gone_on_with_in_another_call_it_is_bit_identical(made, key, tmp_path):
    settings = {
        "optimizer": ADAM, "batch_size": BATCH, "key": key, "state": made[1], "has_aux": True,
        "validation": FRESH, "validate_every": 2,
    }  # fmt: skip
    whole = fit(measured, made[0], DATA, steps=STEPS, **settings)
    fit(measured, made[0], DATA, steps=8, checkpoint=tmp_path, **settings)
    out = fit(measured, made[0], DATA, steps=STEPS, checkpoint=tmp_path, **settings)
    same((out.last, out.last_state, out.history), (whole.last, whole.last_state, whole.history))
    assert out.best_step == whole.best_step
    same((out.model, out.state), (whole.model, whole.state))


def test_a_step_that_is_not_finite_leaves_weights_and_statistics_before_it(made, key):
    data = jax.tree.map(np.copy, DATA)
    data["x"][:] = np.where(np.arange(ROWS)[:, None] == 17, np.nan, X)
    settings = {"optimizer": ADAM, "batch_size": BATCH, "key": key, "state": made[1]}
    out = fit(loss, made[0], data, steps=STEPS, **settings)
    assert out.result == "diverged" and 0 <= out.step < ROWS // BATCH
    before = fit(loss, made[0], data, steps=out.step, **settings) if out.step else None
    expected = made if before is None else (before.last, before.last_state)
    same((out.last, out.last_state), expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out.state))


def test_another_metric_estimator_or_extra_argument_is_another_run(made, key, tmp_path):
    start, twice = (
        {"w": jnp.zeros(3)},
        lambda function, **options: jax.value_and_grad(lambda *a: function(*a), **options),
    )
    settings = {"optimizer": optax.sgd(0.1), "steps": 4, "batch_size": BATCH, "key": key}
    fit(plain, start, DATA, has_aux=True, checkpoint=tmp_path, **settings)
    fit(plain, start, DATA, has_aux=True, checkpoint=tmp_path, value_and_grad=twice, **settings)  # the same program

    def halved(function, has_aux):
        inner = jax.value_and_grad(function, has_aux=has_aux)
        return lambda *args: (lambda value, grads: (value, jax.tree.map(lambda g: g / 2, grads)))(*inner(*args))

    with pytest.raises(ValueError, match=r"expected loss \(digest"):
        fit(plain, start, DATA, has_aux=True, checkpoint=tmp_path, value_and_grad=halved, **settings)
    with pytest.raises(ValueError, match=r"a checkpoint with history.metrics.other, got .*absolute"):

        def other(m, b, *, key):
            return (plain(m, b, key=key)[0], {"other": jnp.ones(())})

        fit(other, start, DATA, has_aux=True, checkpoint=tmp_path, **settings)
    settings["optimizer"] = optax.chain(
        optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(),
            lambda grads, state, params=None, *, factor, **extra: (jax.tree.map(lambda g: factor * g, grads), state),
        ),
        optax.sgd(0.1),
    )
    folder = tmp_path / "factors"

    def by(factor):
        return lambda model, batch, grads: {"factor": factor * jnp.mean(batch["y"])}

    fit(plain, start, DATA, has_aux=True, checkpoint=folder, extra=by(0.5), **settings)
    with pytest.raises(ValueError, match=r"expected optimizer \(digest"):
        fit(plain, start, DATA, has_aux=True, checkpoint=folder, extra=by(0.6), **settings)


WRONG = {
    "no metrics": (
        {"has_aux": True, "loss": lambda m, b: jnp.mean(m["w"])},
        r"returns \(value, metrics\), got f32\[\]",
    ),
    "a metric alone": (
        {"has_aux": True, "loss": lambda m, b: (jnp.mean(m["w"]), jnp.ones(()))},
        r"metrics in a dict by name, got f32\[\]. Return \(loss, \{",
    ),
    "a metric of rows": (
        {"has_aux": True, "loss": lambda m, b: (jnp.mean(m["w"]), {"rows": b["y"]})},
        r"the metric rows: one real number, got f32\[8\]. Take its mean",
    ),
    "a metric of metrics": (
        {"has_aux": True, "loss": lambda m, b: (jnp.mean(m["w"]), {"all": {"one": 1.0}})},
        r"the metric all: one real number, got \{'one': 1.0\}",
    ),
    "a word for a metric": (
        {"has_aux": True, "loss": lambda m, b: (jnp.mean(m["w"]), {"mode": "train"})},
        r"the metric mode: one real number, got 'train'",
    ),
    "no metric": (
        {"has_aux": True, "loss": lambda m, b: (jnp.mean(m["w"]), {"one": None})},
        r"the metric one: one real number, got None",
    ),
    "no state": (
        {"state": jnp.ones(2), "loss": lambda m, s, b: jnp.mean(m["w"])},
        r"returns \(value, state\), got f32",
    ),
    "another state": (
        {"state": jnp.ones(2), "loss": lambda m, s, b: (jnp.mean(m["w"]), s[:1])},
        r"a state that is shaped like f32\[2\], got f32\[1\]. Return the state",
    ),
    "other validation": (
        {"validation": {"x": X}},
        r"validation rows like those of data, \{'x': f32\[3\], 'y': f32\[\]\} each, got \{'x': f32\[3\]\}. Make",
    ),
    "other columns": ({"validation": {"x": X[:, :2], "y": X[:, 0]}}, r"rows like those of data, .*got .*f32\[2\]"),
    "estimator": ({"value_and_grad": "forward"}, "expected value_and_grad, a function, got 'forward'. Pass jax.value"),
    "extra": ({"extra": {"inputs": X}}, r"expected extra, a function, got .*Pass extra\(model, batch, grads\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments(case, key):
    change, message = WRONG[case]
    call = {"loss": lambda m, b: jnp.mean((b["x"] @ m["w"]) ** 2), **change}
    with pytest.raises(ValueError, match=message):
        fit(call.pop("loss"), {"w": jnp.zeros(3)}, DATA, optimizer=ADAM, steps=2, batch_size=BATCH, key=key, **call)


def test_what_is_measured_of_half_precision_is_kept_in_single(key):
    rows = 70_001  # more than float16 can count

    def counted(model, batch):
        return jnp.mean(model["w"]) + jnp.mean(batch), {"count": jnp.float32(1001.0)}

    data = jnp.ones(rows, jnp.float16)
    out = fit(
        counted,
        {"w": jnp.ones(3, jnp.float16)},
        data,
        optimizer=optax.sgd(0.0),
        steps=2,
        batch_size=1000,
        key=key,
        validation=data,
        has_aux=True,
    )
    assert out.model["w"].dtype == jnp.float16
    np.testing.assert_allclose(out.history.validation, 2.0, rtol=1e-5)
    np.testing.assert_allclose(out.history.validation_metrics["count"], 1001.0, rtol=1e-5)
    np.testing.assert_array_equal(out.history.metrics["count"], 1001.0)


def test_a_loss_without_randomness_needs_no_key(key):
    settings = {"optimizer": ADAM, "steps": 5, "batch_size": BATCH, "key": key, "validation": FRESH}
    without = fit(lambda m, b: jnp.mean((b["x"] @ m["w"]) ** 2), {"w": jnp.ones(3)}, DATA, **settings)
    given = fit(lambda m, b, *, key: jnp.mean((b["x"] @ m["w"]) ** 2), {"w": jnp.ones(3)}, DATA, **settings)
    same((without.last, without.history), (given.last, given.history))
