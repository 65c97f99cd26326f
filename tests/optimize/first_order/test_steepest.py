"""Steepest descent: duality, symmetries, what a smooth loss loses by a step, and the problem that it solves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(4, 3))
# Norms and their duals, by NumPy.
NORMS = {
    "frobenius": (np.linalg.norm, np.linalg.norm),
    "max": (lambda t: np.abs(t).max(), lambda g: np.abs(g).sum()),
    "spectral": (lambda t: np.linalg.norm(t, 2), lambda g: np.linalg.norm(g, "nuc")),
    "columns": (lambda t: np.linalg.norm(t, axis=0).max(), lambda g: np.linalg.norm(g, axis=0).sum()),
    "rows": (lambda t: np.linalg.norm(t, axis=1).max(), lambda g: np.linalg.norm(g, axis=1).sum()),
}
names = pytest.mark.parametrize("name", NORMS)


def step(gradient, norms=None, **settings):
    rule = optimize.scale_by_steepest(norms, **settings)
    gradient = jax.tree.map(jnp.asarray, gradient)
    update, state = rule.update(gradient, rule.init(gradient))
    return jax.tree.map(np.asarray, update), float(state.dual)


@names
@pytest.mark.parametrize("matrix", [MATRIX, MATRIX.T, np.outer(MATRIX[:, 0], MATRIX[0])], ids=["tall", "wide", "rank"])
def test_the_direction_has_length_one_and_meets_the_dual_norm(x64, name, matrix):
    length, dual = NORMS[name]
    direction, found = step(matrix, name, normalised=True)
    np.testing.assert_allclose([length(direction), found], [1.0, dual(matrix)], rtol=1e-12)
    np.testing.assert_allclose(np.sum(direction * matrix), dual(matrix), rtol=1e-12)  # no direction does better
    np.testing.assert_allclose(step(matrix, name)[0], dual(matrix) * direction, rtol=1e-12)


def test_the_whole_is_the_best_step_within_the_largest_of_all_norms(x64):
    """Duality in the large: the step's gain is half its dual norm's square, which no other step can exceed."""
    gradient = {"a": MATRIX, "b": MATRIX[0], "c": MATRIX.T}
    norms, scales = {"a": "spectral", "b": "max", "c": "columns"}, {"a": 2.0, "b": 0.5, "c": 3.0}
    update, dual = step(gradient, norms, scales=scales)
    np.testing.assert_allclose(dual, sum(NORMS[norms[k]][1](gradient[k]) / scales[k] for k in gradient), rtol=1e-12)

    def model(delta):
        largest = max(scales[k] * NORMS[norms[k]][0](delta[k]) for k in delta)
        return sum(np.sum(gradient[k] * delta[k]) for k in delta) + largest**2 / 2

    best = model({k: -v for k, v in update.items()})
    np.testing.assert_allclose(best, -(dual**2) / 2, rtol=1e-12)
    for seed in range(20):
        other = {k: -v + 0.3 * np.random.default_rng(seed).normal(size=v.shape) for k, v in update.items()}
        assert model(other) > best


def test_each_norm_has_its_symmetries(x64):
    left, right = np.linalg.qr(RANDOM.normal(size=(4, 4)))[0], np.linalg.qr(RANDOM.normal(size=(3, 3)))[0]
    turned = step(left @ MATRIX @ right)[0]  # spectral by default
    np.testing.assert_allclose(turned, left @ step(MATRIX)[0] @ right, atol=1e-12)
    assert not np.allclose(step(left @ MATRIX, "max")[0], left @ step(MATRIX, "max")[0], atol=0.1)
    signs = np.array([1, -1, -1, 1])[:, None]
    np.testing.assert_allclose(step((signs * MATRIX)[::-1], "max")[0], (signs * step(MATRIX, "max")[0])[::-1])
    np.testing.assert_allclose(step(left @ MATRIX, "columns")[0], left @ step(MATRIX, "columns")[0], atol=1e-12)
    np.testing.assert_allclose(step(MATRIX @ right, "rows")[0], step(MATRIX, "rows")[0] @ right, atol=1e-12)


@pytest.mark.parametrize(("spread", "winner"), [(1.0, "frobenius"), (30.0, "spectral")])
def test_a_smooth_loss_falls_by_what_the_norm_promises_and_either_norm_may_promise_more(x64, spread, winner):
    """½|AX − B|² is smooth with the constant |A|_F² under the spectral norm and |A|² under Frobenius'."""
    turn, *_ = np.linalg.qr(RANDOM.normal(size=(4, 4)))
    a = turn @ np.diag([1, 1, 1, spread])
    # A residual that is small where A is large, as descent leaves it.
    x = RANDOM.normal(size=(4, 3))
    b = a @ x - turn @ np.diag([1, 1, 1, 1 / spread]) @ RANDOM.normal(size=(4, 3))

    def loss(x):
        return 0.5 * np.sum((a @ x - b) ** 2)

    promised = {}
    for name, constant in {"spectral": np.sum(a**2), "frobenius": np.linalg.norm(a, 2) ** 2}.items():
        update, dual = step(a.T @ (a @ x - b), name)
        promised[name] = dual**2 / (2 * constant)
        assert loss(x) - loss(x - update / constant) >= promised[name] * (1 - 1e-12)
    assert max(promised, key=promised.get) == winner


def test_adam_and_shampoo_without_averages_are_steepest_descent(x64):
    sign = optax.adam(1.0, b1=0.0, b2=0.0, eps=0.0)
    adam, _ = sign.update(jnp.asarray(MATRIX), sign.init(jnp.asarray(MATRIX)))
    np.testing.assert_allclose(-np.asarray(adam), step(MATRIX, "max", normalised=True)[0], rtol=1e-12)
    square = MATRIX[:3]

    def root(gram):
        values, vectors = np.linalg.eigh(gram)
        return (vectors * values**-0.25) @ vectors.T

    shampoo = root(square @ square.T) @ square @ root(square.T @ square)
    np.testing.assert_allclose(step(square, normalised=True)[0], shampoo, atol=1e-10)


def test_nothing_moves_where_there_is_no_gradient(x64):
    for name in NORMS:
        update, dual = step(np.zeros((3, 2)), name, normalised=True)
        assert not update.any() and dual == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: step(MATRIX, "nuclear"), "norms among frobenius, max, spectral, columns, rows, got 'nuclear'"),
        (lambda: step(MATRIX[0], "spectral"), "a matrix where the norm is 'spectral', got shape"),
        (lambda: step({"a": MATRIX}, {"b": "max"}), "norms in a tree that the parameters' tree begins with"),
        (lambda: step(MATRIX, scales=0.0), "scales above 0"),
        (lambda: step({"a": MATRIX}, scales={"a": 1.0, "b": 1.0}), "scales in a tree"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
