"""The step, the spectrum, conflicts, rotation and layers, each against what can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import given_rule
from nablax.diagnose import conflicts, layer_health, rotation, sharpness, step_quality, subspace

MATRIX = np.random.default_rng(0).normal(size=(12, 12))
MATRIX = MATRIX @ MATRIX.T / 12 + np.diag([9.0, 5.0, *np.zeros(10)])


def quadratic(params, matrix):
    p = jnp.concatenate([params["a"], params["b"]])
    return p @ matrix @ p / 2


def tree(vector):
    return {"a": jnp.asarray(vector[:5]), "b": jnp.asarray(vector[5:])}


def test_step_on_a_quadratic_is_exact(x64):
    p, u = np.random.default_rng(1).normal(size=(2, 12))
    record = step_quality(quadratic, tree(p), tree(u), jnp.asarray(MATRIX))
    np.testing.assert_allclose(record.slope.value, p @ MATRIX @ u, rtol=1e-10)
    np.testing.assert_allclose(record.curvature.value, u @ MATRIX @ u, rtol=1e-10)
    np.testing.assert_allclose(record.actual.value, record.predicted.value, rtol=1e-10)
    np.testing.assert_allclose(record.model_best, -(p @ MATRIX @ u) / (u @ MATRIX @ u), rtol=1e-10)
    assert record.holds == 16 and np.isnan(record.radius)
    record.table()


def test_where_the_model_stops_holding(x64):
    # q = -s + s²/2 and a quartic term c s⁴: the error passes a quarter of (s + s²/2) between two multiples.
    def loss(p):
        return -p + p**2 / 2 + 0.05 * p**4

    error = lambda s: 0.05 * s**4 / (s + s**2 / 2)  # noqa: E731
    record = step_quality(loss, jnp.zeros(()), jnp.ones(()))
    assert error(2.0) < 0.25 < error(4.0) and record.holds == 2
    assert record.best == 1.0
    with pytest.raises(ValueError, match="1 among them"):
        step_quality(loss, jnp.zeros(()), jnp.ones(()), multiples=(0.5, 2.0))


def test_step_errors_are_over_rows(x64, key):
    x = jax.random.normal(key, (500, 12))

    def losses(params, x):
        return (x @ jnp.concatenate([params["a"], params["b"]]) - 1) ** 2

    p, u = np.random.default_rng(2).normal(size=(2, 12)) / 4
    record = step_quality(lambda q, x: jnp.mean(losses(q, x)), tree(p), tree(u), x, losses=losses)
    slopes = 2 * (x @ p - 1) * (x @ u)
    np.testing.assert_allclose(record.slope.standard_error, np.std(slopes, ddof=1) / np.sqrt(500), rtol=1e-8)
    changes = losses(tree(p + u), x) - losses(tree(p), x)
    np.testing.assert_allclose(record.actual.value, changes.mean(), rtol=1e-8)
    np.testing.assert_allclose(record.actual.standard_error, np.std(changes, ddof=1) / np.sqrt(500), rtol=1e-8)


def test_a_step_below_the_rounding_of_its_parameters_is_lost():
    loss = lambda p: jnp.sum(p**2)  # noqa: E731
    for kind, size, lost in ((jnp.bfloat16, 1e-3, 1.0), (jnp.bfloat16, 0.1, 0.0), (jnp.float32, 1e-3, 0.0)):
        record = step_quality(loss, jnp.ones(8, kind), jnp.full(8, -size, kind).at[0].set(0))
        assert record.lost == lost


def test_radius_of_a_linear_classifier(x64):
    x = jnp.array([[1.0], [-3.0]])
    logits = lambda p, x: x * p["w"][None]  # noqa: E731
    loss = lambda p, x: -jnp.mean(jax.nn.log_softmax(logits(p, x))[:, 0])  # noqa: E731
    w, u = jnp.array([0.5, 0.0]), jnp.array([0.2, -0.1])
    record = step_quality(loss, {"w": w}, {"w": u}, x, logits=logits)
    np.testing.assert_allclose(record.radius, np.hypot(0.5 * 3, np.pi) / 0.9, rtol=1e-10)
    assert record.rows_beyond == 0.0
    far = step_quality(loss, {"w": w}, {"w": 5 * u}, x, logits=logits)
    assert far.rows_beyond == 0.5


def test_top_of_the_spectrum_against_dense(x64, key):
    p, u = np.random.default_rng(3).normal(size=(2, 12))
    rates = np.exp(np.random.default_rng(4).normal(size=12))
    for given, scale in ((None, np.ones(12)), (tree(rates), np.sqrt(rates))):
        record = subspace(quadratic, tree(p), jnp.asarray(MATRIX), update=tree(u), rates=given, key=key, count=3)
        values, vectors = np.linalg.eigh(scale[:, None] * MATRIX * scale)
        np.testing.assert_allclose(record.values, values[::-1][:3], rtol=1e-8)
        top = vectors[:, ::-1][:, :3]
        for share, direction in ((record.gradient_share, scale * (MATRIX @ p)), (record.update_share, u / scale)):
            expected = np.cumsum((top.T @ direction) ** 2) / (direction @ direction)
            np.testing.assert_allclose(share, expected, rtol=1e-6)
        assert np.all(record.residuals < 1e-6)
    indefinite = MATRIX - 2 * np.eye(12)
    record = subspace(quadratic, tree(p), jnp.asarray(indefinite), key=key)
    np.testing.assert_allclose(record.lowest, np.linalg.eigvalsh(indefinite)[0], rtol=1e-8)
    assert record.lowest < 0


def test_sharpness_residual_trace_and_row_error(x64, key):
    x = jax.random.normal(key, (400, 12)) * jnp.linspace(0.5, 2.0, 12)[None]

    def losses(p, x):
        return (x @ p) ** 2 / 2

    loss = lambda p, x: jnp.mean(losses(p, x))  # noqa: E731
    params = jnp.ones(12)
    record = sharpness(loss, params, x, rule=given_rule(params, 0.1), key=key, losses=losses, steps=12)
    hessian = np.asarray(x.T @ x / 400)
    values, vectors = np.linalg.eigh(hessian)
    np.testing.assert_allclose(record.sharpness.value, values[-1], rtol=1e-8)
    np.testing.assert_allclose(record.threshold, 20.0, rtol=1e-10)
    np.testing.assert_allclose(record.ratio.value, values[-1] / 20, rtol=1e-8)
    np.testing.assert_allclose(record.headroom.value, 20 / values[-1], rtol=1e-8)
    spread = np.std(np.asarray(x @ vectors[:, -1]) ** 2, ddof=1) / np.sqrt(400)
    np.testing.assert_allclose(record.sharpness.standard_error, spread, rtol=1e-5)
    np.testing.assert_allclose(record.trace.value, 0.1 * np.trace(hessian), rtol=0.2)
    few = sharpness(loss, params, x, rule=given_rule(params, 0.1), key=key, steps=4)
    gap = np.min(np.abs(values / 20 - few.ratio.value))
    assert 0 < gap <= few.residual


def test_conflicts_by_hand(x64):
    g = np.array([[3.0, 0.0], [-1.0, 1.0], [0.0, 2.0]])
    update = jnp.array([-0.1, 0.3])
    rows = jnp.asarray(np.random.default_rng(5).normal(size=(160, 3, 2)) + g)

    def vector(p, rows):
        return jnp.mean(rows, axis=0) @ p

    record = conflicts(vector, jnp.zeros(2), rows, update=update)
    mean = np.asarray(rows.mean(axis=0))
    norms = np.linalg.norm(mean, axis=1)
    np.testing.assert_allclose(record.norms.value, norms, rtol=1e-10)
    np.testing.assert_allclose(record.cosines.value, mean @ mean.T / np.outer(norms, norms), rtol=1e-10)
    np.testing.assert_allclose(record.first_order.value, mean @ update, rtol=1e-10)
    np.testing.assert_allclose(record.changes, mean @ update, rtol=1e-10)
    # Eight groups of twenty rows: the error of a mean, by leaving each out.
    groups = np.asarray(rows).reshape(8, 20, 3, 2).mean(axis=1) @ np.asarray(update)
    np.testing.assert_allclose(record.first_order.standard_error, groups.std(axis=0, ddof=1) / np.sqrt(8), rtol=1e-8)
    named = {f"{i}": (lambda p, rows, i=i: vector(p, rows)[i]) for i in range(3)}
    for same in (named, list(named.values())):
        other = conflicts(same, jnp.zeros(2), rows)
        np.testing.assert_allclose(other.cosines.value, record.cosines.value, rtol=1e-10)
        assert np.all(np.isnan(other.first_order.value))
    assert "cosine 0, 1" in conflicts(named, jnp.zeros(2), rows).table()


def test_conflicts_without_errors_say_so(monkeypatch):
    monkeypatch.setattr("nablax.diagnose._checkup._conflicts.NUMBERS", 5)
    record = conflicts(lambda p, rows: jnp.mean(rows, axis=0) * p, jnp.ones(2), jnp.ones((16, 2)))
    assert np.all(np.isnan(record.cosines.standard_error)) and "no standard errors" in record.table()


def test_losses_that_are_no_vector_are_refused():
    for losses in (lambda p, b: p[0], lambda p, b: jnp.outer(p, p), lambda p, b: {"a": p}, [lambda p, b: p]):
        with pytest.raises(
            ValueError, match=r"a vector from one function, got|\(loss 0\) that returns one real number, got f32\[2\]"
        ):
            conflicts(losses, jnp.ones(2), None)


def test_rotation_between_gradient_and_game(x64, key):
    def field(params, mix):
        x, y = params["x"], params["y"]
        return {"x": (1 - mix) * x + mix * y, "y": (1 - mix) * y - mix * x, "count": None}

    params = {"x": jnp.ones(3), "y": jnp.ones(3), "count": 4}
    for mix in (0.0, 0.5, 1.0):
        found = rotation(field, params, mix, key=key).share
        np.testing.assert_allclose(found.value, mix**2 / (mix**2 + (1 - mix) ** 2), atol=1e-10)


def test_layers_by_hand():
    params = {"w": jnp.array([[3.0, 4.0]]), "b": jnp.zeros(2), "n": 3}
    gradient = {"w": jnp.array([[1.0, 0.0]]), "b": jnp.array([0.0, jnp.inf]), "n": None}
    alive = {"w": jnp.array([[True, False]]), "b": jnp.array([False, False]), "n": None}
    record = layer_health(
        params, gradient, update={"w": jnp.array([[3.0, 4.0]]), "b": jnp.ones(2), "n": None}, alive=alive
    )
    assert record.names == ("b", "w")
    np.testing.assert_allclose(record.weight, [0.0, np.sqrt(12.5)])
    assert record.not_finite() == ["gradient of b (1 of 2)"]
    assert record.without_gradient() == [("b", -1, 2, 2), ("w", 1, 1, 2)]
    assert record.large_steps() == [("w", 1.0)]
    sizes = {"a": 1.0, "c": 1.0, "d": 1e-5, "e": 1e5, "rounding": 1e-7}
    record = layer_health({k: jnp.ones(2) for k in sizes}, {k: jnp.full(2, v) for k, v in sizes.items()})
    assert [n for n, _ in record.vanishing()] == ["d"] and [n for n, _ in record.exploding()] == ["e"]
    tiny = layer_health({"a": jnp.ones(2)}, {"a": jnp.full(2, 1e-30, jnp.float32)})
    np.testing.assert_allclose(tiny.gradient, 1e-30, rtol=1e-5)
    for wrong in ({}, {"a": jnp.ones(3)}, {"a": jnp.ones(2), "c": jnp.ones(2)}):
        with pytest.raises(ValueError, match="an update with the inexact leaves"):
            layer_health({"a": jnp.ones(2)}, {"a": jnp.ones(2)}, update=wrong)
        with pytest.raises(ValueError, match="a gradient with the inexact leaves"):
            layer_health({"a": jnp.ones(2)}, wrong)
    whole = layer_health({"a": jnp.ones(2), "n": jnp.arange(3)}, {"a": jnp.full(2, 3.0), "n": jnp.arange(3)})
    assert whole.names == ("a",) and float(whole.gradient[0]) == pytest.approx(3)


def test_counts_of_nothing_are_refused(key):
    with pytest.raises(ValueError, match="at least one loss"):
        conflicts([], jnp.ones(2), None)
    with pytest.raises(ValueError, match="expected count as a whole number, at least 1, got 0"):
        subspace(lambda p: jnp.sum(p**2), jnp.ones(2), key=key, count=0)
