"""The Bures–Wasserstein loss: its definition, its derivatives with and without rank, and its landscape."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from nablax import optimize
from nablax.calculus import hessian_product, top_eigenvalues

RANDOM = np.random.default_rng(0)
VALUES = np.array([5.0, 3.0, 2.0, 1.0, 0.5])
VECTORS = np.linalg.qr(RANDOM.normal(size=(5, 5)))[0]
ROOT = (VECTORS * np.sqrt(VALUES)) @ VECTORS.T
TURNED = ROOT @ np.linalg.qr(RANDOM.normal(size=(5, 5)))[0]  # another factor of the same covariance
loss = optimize.bures_wasserstein_loss


def cut(subset):
    """A factor of the covariance cut to some of its eigenvectors."""
    return jnp.asarray(VECTORS[:, subset] * np.sqrt(VALUES[list(subset)]))


@pytest.mark.parametrize("width", [2, 5, 7])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_value_and_gradient_are_the_definitions(x64, width, smoothing):
    w = jnp.asarray(RANDOM.normal(size=(5, width)))

    def defined(w):
        sigma = w @ w.T + smoothing * np.eye(5)
        middle = ROOT @ sigma @ ROOT
        return np.trace(sigma) + VALUES.sum() - 2 * np.sqrt(np.clip(np.linalg.eigvalsh(middle), 0, None)).sum()

    # Roots of eigenvalues that should be zero leave the definition, not the loss, that far off.
    np.testing.assert_allclose(loss(w, TURNED, smoothing=smoothing), defined(w), rtol=1e-7)
    middle = ROOT @ (w @ w.T + smoothing * np.eye(5)) @ ROOT
    closed = 2 * (w - ROOT @ scipy.linalg.pinvh(scipy.linalg.sqrtm(middle).real, rtol=1e-6) @ ROOT @ w)
    np.testing.assert_allclose(jax.grad(loss)(w, TURNED, smoothing=smoothing), closed, atol=1e-6)


def test_it_is_symmetric_and_zero_for_factors_of_one_covariance(x64):
    w = RANDOM.normal(size=(5, 3))
    np.testing.assert_allclose(loss(w, ROOT), loss(ROOT, w), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss, 1)(w, ROOT), jax.grad(loss, 0)(ROOT, w), rtol=1e-10)
    np.testing.assert_allclose(loss(ROOT, TURNED), 0, atol=1e-12)


def test_hessian_products_are_differences_of_gradients_where_singular_values_are_equal(x64):
    w = np.linalg.solve(ROOT.T, VECTORS[:, :3])  # Rᵀ W has three singular values of one
    v = RANDOM.normal(size=w.shape)
    gradient = jax.grad(lambda w: loss(w, ROOT))
    differences = (gradient(w + 1e-5 * v) - gradient(w - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(hessian_product(lambda w: loss(w, ROOT))(w, v), differences, atol=1e-7)
    wide = RANDOM.normal(size=(5, 7))
    v = RANDOM.normal(size=wide.shape)
    differences = (gradient(wide + 1e-5 * v) - gradient(wide - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(hessian_product(lambda w: loss(w, ROOT))(wide, v), differences, atol=1e-6)
    _, back = jax.vjp(gradient, wide)  # reverse over reverse
    np.testing.assert_allclose(back(v)[0], differences, atol=1e-6)


def test_cuts_to_eigenvectors_are_critical_and_cost_what_was_left_out(x64):
    for subset in (s for k in range(4) for s in itertools.combinations(range(5), k)):
        w = jnp.zeros((5, 3)).at[:, : len(subset)].set(cut(subset))  # rank falls below the width: still finite
        value, gradient = jax.value_and_grad(loss)(w, TURNED)
        np.testing.assert_allclose(value, VALUES.sum() - VALUES[list(subset)].sum(), rtol=1e-10)
        assert np.abs(gradient).max() < 1e-10


@pytest.mark.parametrize(("subset", "least"), [((0, 1), 0.0), ((0, 2), 2 * (1 - 3 / 2)), ((3, 4), 2 * (1 - 5 / 0.5))])
def test_wrong_cuts_are_saddles_of_a_known_curvature(x64, key, subset, least):
    w = cut(subset)
    product = hessian_product(lambda w: loss(w, ROOT))
    found = top_eigenvalues(lambda v: -product(w, v), w, count=1, steps=10, key=key)
    np.testing.assert_allclose(-found.values[0], least, atol=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_descent_of_a_network_finds_the_sum_of_what_must_be_left_out(x64, smoothing):
    layers = [jnp.asarray(RANDOM.normal(size=shape)) for shape in ((2, 4), (4, 2), (5, 4))]

    def network(layers):
        first, second, third = layers
        return loss(third @ second @ first, ROOT, smoothing=smoothing)

    def step(layers, _):
        return jax.tree.map(lambda w, g: w - 0.01 * g, layers, jax.grad(network)(layers)), None

    layers, _ = jax.jit(lambda start: jax.lax.scan(step, start, length=3000))(layers)
    least = np.sum((np.sqrt(VALUES[2:]) - np.sqrt(smoothing)) ** 2)
    np.testing.assert_allclose(network(layers), least, rtol=1e-8)


def test_a_flow_keeps_what_balances_two_layers(x64):
    first, second = jnp.asarray(RANDOM.normal(size=(3, 3))), jnp.asarray(RANDOM.normal(size=(5, 3)))

    def slope(layers):
        return jax.tree.map(jnp.negative, jax.grad(lambda both: loss(both[1] @ both[0], ROOT))(layers))

    def step(layers, _):
        ks = [slope(layers)]
        for share in (0.5, 0.5, 1.0):
            ks.append(slope(jax.tree.map(lambda w, k, s=share: w + 0.005 * s * k, layers, ks[-1])))
        return jax.tree.map(lambda w, a, b, c, d: w + 0.005 / 6 * (a + 2 * b + 2 * c + d), layers, *ks), None

    (after_first, after_second), _ = jax.jit(lambda both: jax.lax.scan(step, both, length=400))((first, second))
    balance = second.T @ second - first @ first.T
    assert np.abs(after_second - second).max() > 0.1
    np.testing.assert_allclose(after_second.T @ after_second - after_first @ after_first.T, balance, atol=1e-7)


def test_a_batch_is_the_rows_and_single_precision_stays():
    stack = jnp.asarray(RANDOM.normal(size=(4, 5, 2)), jnp.float32)
    root = jnp.asarray(ROOT, jnp.float32)
    batch = jax.jit(jax.vmap(lambda w, tau: loss(w, root, smoothing=tau)))(stack, jnp.array([0.0, 0.1, 0.2, 0.3]))
    rows = [loss(w, root, smoothing=tau) for w, tau in zip(stack, (0.0, 0.1, 0.2, 0.3))]
    np.testing.assert_allclose(batch, rows, rtol=1e-5)
    assert batch.dtype == jnp.float32
    assert np.all(jax.grad(loss)(jnp.zeros((5, 2)), root) == 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"factor": jnp.ones(5)}, "factor of shape"),
        ({"factor": jnp.ones((4, 2))}, "target of shape"),
        ({"smoothing": -1.0}, "smoothing of 0 or more"),
    ],
)
def test_what_cannot_be_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        loss(**({"factor": jnp.ones((5, 2)), "target": jnp.eye(5)} | arguments))
