"""Projections against brute force and their own conditions; training that takes no gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from nablax import estimate
from nablax.estimate._projection import _feasibility
from nablax.estimate._projection._projections import approach_label, project_product, project_unit

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)


def nearest(residual, start, tries=8):
    """The least distance to the set where a residual vanishes, by a solver that knows nothing of it."""
    best = np.inf
    for _ in range(tries):
        found = optimize.minimize(
            lambda x: np.sum((x - start) ** 2),
            start + DRAWS.normal(size=len(start)),
            constraints={"type": "eq", "fun": residual},
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 300},
        )
        if np.max(np.abs(residual(found.x))) < 1e-7:
            best = min(best, found.fun)
    return best


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_a_product_s_projection_is_the_nearest_point_of_its_graph_to_rounding(scale):
    a, b = DRAWS.normal(size=(2, 400, 4))
    z = 5 * scale * DRAWS.normal(size=400)
    p, q, w = jax.jit(project_product)(a * scale, b * scale, z)
    np.testing.assert_allclose(np.sum(p * q, axis=1), w, atol=1e-12 * max(1, scale) ** 2 * 100)
    # Stationary: the way from the point is along the normal (b', a', -1).
    t = z - w
    for moved, normal in ((p - a * scale, q), (q - b * scale, p)):
        np.testing.assert_allclose(moved, t[:, None] * normal, atol=1e-11 * max(1, scale))
    for row in range(3):
        start = np.concatenate([a[row] * scale, b[row] * scale, z[row : row + 1]])
        far = np.sum((p[row] - a[row] * scale) ** 2 + (q[row] - b[row] * scale) ** 2) + (w[row] - z[row]) ** 2
        assert far <= nearest(lambda x: np.atleast_1d(x[:4] @ x[4:8] - x[8]), start) + 1e-6
    again = project_product(p, q, w)
    np.testing.assert_allclose(again[0], p, atol=1e-10)


def test_a_product_s_equation_is_solved_where_newton_from_zero_leaves_the_bracket():
    a = np.array([[1.0, 0.3], [1e-3, 1e-3], [1.0, 1.0], [2.0, -1.0]])
    b = np.array([[0.999, 0.301], [-1e-3, 2e-3], [1.0, 1.0], [-2.0, 1.0001]])
    z = np.array([-40.0, 7.0, 1e4, 300.0])
    p, q, w = project_product(a, b, z)
    assert np.all(np.isfinite(p)) and np.all(np.abs(z - w) < 1)
    np.testing.assert_allclose(np.sum(p * q, axis=1), w, rtol=1e-8)


@pytest.mark.parametrize("kind", ["relu", "sign", "identity"])
@pytest.mark.parametrize(("count", "copies"), [(1, 1), (2, 3)])
def test_a_unit_s_projection_is_the_least_of_a_scan_over_its_sum(kind, count, copies):
    inputs, outputs = 1.5 * DRAWS.normal(size=(60, count)), 1.5 * DRAWS.normal(size=(60, copies))
    moved, one = project_unit(jnp.asarray(inputs), jnp.asarray(outputs), kind)
    assert np.all(one == one[:, :1])
    total, h = np.sum(moved, axis=1), np.asarray(one[:, 0])
    if kind == "sign":
        assert np.all(np.abs(h) == 1) and np.all(h * total >= -1e-12)
    else:
        np.testing.assert_allclose(h, np.maximum(total, 0) if kind == "relu" else total, atol=1e-12)
    far = np.sum((moved - inputs) ** 2, axis=1) + np.sum((one - outputs) ** 2, axis=1)
    sums = np.linspace(-12, 12, 48_001)
    values = {"relu": np.maximum(sums, 0), "sign": np.where(sums > 0, 1.0, -1.0), "identity": sums}[kind]
    sums, values = np.append(sums, 0.0), np.append(values, 1.0 if kind == "sign" else 0.0)  # both signs at 0
    for row in range(60):
        scan = (sums - inputs[row].sum()) ** 2 / count + np.sum((values[:, None] - outputs[row]) ** 2, axis=1)
        assert far[row] == pytest.approx(scan.min(), abs=2e-3) and far[row] <= scan.min() + 1e-9


@pytest.mark.parametrize("strength", [0.1, 5.0, 50.0])
def test_the_label_s_proximal_point_meets_its_equation_and_is_firmly_nonexpansive(strength):
    logits = 4 * DRAWS.normal(size=(200, 10))
    target = np.eye(10)[DRAWS.integers(0, 10, 200)]
    x = jax.jit(approach_label)(jnp.asarray(logits), jnp.asarray(target), strength)
    np.testing.assert_allclose(
        x - logits - strength * (target - jax.nn.softmax(x, axis=1)), 0, atol=1e-12 * strength + 1e-12
    )
    other = approach_label(jnp.asarray(logits[::-1]), jnp.asarray(target), strength)
    apart, before = np.asarray(x - other), logits - logits[::-1]
    assert np.all(np.sum(apart**2, axis=1) <= np.sum(apart * before, axis=1) + 1e-9)


def network(sizes=(3, 5, 4, 2), bias=True):
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return tuple(
        eqx.nn.Linear(a, b, use_bias=bias, key=key, dtype=jnp.float64) for a, b, key in zip(sizes, sizes[1:], keys)
    )


X = DRAWS.normal(size=(20, 3))
LABELS = (X[:, 0] * X[:, 1] > 0).astype(np.int32)


@pytest.mark.parametrize("activation", ["relu", "sign"])
@pytest.mark.parametrize("method", ["douglas-rachford", "alternating"])
def test_what_satisfies_everything_stays(activation, method):
    """With a label that pulls no more, the network's own values are a fixed point."""
    layers = network()
    update = jax.jit(estimate.feasibility(activation, method=method, strength=1e-14, steps=5))
    after, gap = update(layers, jnp.asarray(X), LABELS)
    for old, new in zip(layers, after):
        np.testing.assert_allclose(new.weight, old.weight, atol=1e-9)
        np.testing.assert_allclose(new.bias, old.bias, atol=1e-9)
    assert float(gap) < 1e-20


@pytest.mark.parametrize("bias", [True, False])
def test_each_half_is_an_orthogonal_projection_onto_its_constraints(bias):
    layers, target = network(bias=bias), np.eye(2)[LABELS]
    start = _feasibility._values(layers, jnp.asarray(X), "relu")
    keys = iter(jax.random.split(jax.random.key(1), 100))
    noisy = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), start)
    products = _feasibility._onto_products(noisy)
    for part in products:
        np.testing.assert_allclose(jnp.sum(part.weight * part.lower, axis=-1), part.product, atol=1e-10)
    units = _feasibility._onto_units(noisy, jnp.asarray(X), jnp.asarray(target), "relu", 5.0)
    for part, above in zip(units, units[1:]):
        drive = part.product + (part.bias if bias else 0)
        np.testing.assert_allclose(
            above.lower, jnp.broadcast_to(jax.nn.relu(drive)[:, None], above.lower.shape), atol=1e-12
        )
        assert float(jnp.max(jnp.ptp(part.weight, axis=0))) < 1e-14
    np.testing.assert_array_equal(units[0].lower, np.broadcast_to(X[:, None], units[0].lower.shape))
    # The last layer nears the labels by the proximal step of the sum.
    last, before = units[-1], noisy[-1]
    total = last.product + (last.bias if bias else 0)
    move = 5.0 * (target - jax.nn.softmax(total, axis=1))
    np.testing.assert_allclose(last.product - before.product, move, atol=1e-10)


@pytest.mark.parametrize(("activation", "level"), [("relu", 1.0), ("sign", 0.1)])
def test_it_trains_without_a_gradient_also_where_there_is_none(activation, level, monkeypatch):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(100, 2)))
    labels = (x[:, 0] + x[:, 1] > 0.5).astype(jnp.int32)
    layers = network((2, 16, 2))
    layers = (layers[0], eqx.tree_at(lambda layer: layer.weight, layers[1], layers[1].weight / level))
    update = estimate.feasibility(activation, steps=30, level=level)
    for name in ("grad", "value_and_grad", "vjp", "jvp", "linearize"):
        monkeypatch.setattr(jax, name, None)

    def right(layers):
        hidden = jax.vmap(layers[0])(x)
        hidden = jax.nn.relu(hidden) if activation == "relu" else jnp.where(hidden > 0, level, -level)
        return float(jnp.mean(jnp.argmax(jax.vmap(layers[1])(hidden), axis=1) == labels))

    trained = jax.jit(lambda layers: jax.lax.scan(lambda l, _: (update(l, x, labels)[0], None), layers, length=25)[0])
    after = trained(layers)
    assert right(after) > 0.9 > right(layers)
    # The hidden layer is trained too, not the readout alone.
    assert float(jnp.linalg.norm(after[0].weight - layers[0].weight)) > 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.feasibility("tanh"), "activation"),
        (lambda: estimate.feasibility(method="newton"), "method"),
        (lambda: estimate.feasibility(steps=0), "steps"),
        (lambda: estimate.feasibility(relaxation=0.0), "relaxation"),
        (lambda: estimate.feasibility(strength=0.0), "strength"),
        (lambda: estimate.feasibility("sign", level=0.0), "level"),
        (lambda: estimate.feasibility()([], jnp.asarray(X), LABELS), "one dense layer"),
        (lambda: estimate.feasibility()([eqx.nn.Lambda(jnp.tanh)], jnp.asarray(X), LABELS), "equinox.nn.Linear"),
        (lambda: estimate.feasibility()(network(), jnp.asarray(X[:, :2]), LABELS), "inputs of shape"),
        (lambda: estimate.feasibility()(network(), jnp.asarray(X), LABELS[:3]), "labels with leading axis"),
        (lambda: estimate.feasibility()(network(), jnp.asarray(X), LABELS * 1.0), "whole numbers"),
        (lambda: estimate.feasibility()(network()[::2], jnp.asarray(X), LABELS), "a layer of 5 inputs"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
