"""What fitted metrics tend to, group by group, and what they do not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize
from nablax.optimize._preconditioned._matrix_fit import MatrixFit, matrix_fitted

KEY = jax.random.key(3)
RANDOM = np.random.default_rng(0)


def symmetric(values, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (q * values) @ q.T


def drawn(steps, *shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=(steps, *shape)))


def dense(found, size):
    return np.asarray(jax.vmap(found)(jnp.eye(size)))


def test_a_condition_of_ten_thousand_is_found_and_the_criterion_falls_to_its_least(x64):
    h = jnp.asarray(symmetric(np.geomspace(1, 1e4, 6)))
    probes = drawn(6000, 6)
    found = optimize.fit_preconditioner(probes, lambda v: h @ v, fit_rate=0.02, key=KEY)
    assert np.abs(dense(found, 6) @ h - np.eye(6)).max() < 1e-5
    assert found.residual < 1e-4 and found.residuals[0] > 0.1 and found.evaluations == 6000
    least = 2 * np.einsum("ti,ij,tj->t", probes, h, probes)  # of each probe, at the solution
    above = (np.asarray(found.criteria) / least - 1).reshape(20, 300).mean(axis=1)
    assert above[0] > 1 and above.min() > -1e-12 and np.all(np.diff(above[above > 1e-7]) < 0)
    np.testing.assert_allclose(found.criteria[-100:], least[-100:], rtol=1e-5)


def test_of_an_indefinite_curvature_the_size_is_inverted_within_the_root_of_the_rate(x64):
    """Ph and v agree in the mean only, so that steps of one size hover: with the smallest, the least."""
    h = symmetric(np.geomspace(1, 4, 4) * [1, -1, 1, -1])
    values, vectors = np.linalg.eigh(h)
    size = (vectors * np.abs(values)) @ vectors.T
    for rate, close in ((0.1, 0.5), (0.01, 0.16), (0.001, 0.05)):
        found = optimize.fit_preconditioner(
            drawn(20_000, 4), drawn(20_000, 4) @ h, group="general linear", fit_rate=rate, scale=0.7, key=KEY
        )
        assert np.abs(dense(found, 4) @ size - np.eye(4)).max() < close


def test_triangular_factors_stay_so_and_find_the_inverse(x64):
    h = jnp.asarray(symmetric(np.geomspace(1, 10, 4)))
    found = optimize.fit_preconditioner(
        drawn(1500, 4), lambda v: h @ v, group="triangular", fit_rate=1.0, scale=1.0, key=KEY
    )
    q = found.fits[0].q
    assert np.abs(dense(found, 4) @ h - np.eye(4)).max() < 1e-5
    np.testing.assert_array_equal(q, np.triu(q))
    assert np.all(np.diag(q) > 0)


def test_a_diagonal_is_the_inverse_root_of_the_columns_squares_and_no_more(x64):
    """Of a matrix that is none: P² E[h²] = 1, so that P = 1 / |row of H|."""
    h = symmetric(np.geomspace(1, 4, 5))
    found = optimize.fit_preconditioner(drawn(20_000, 5), lambda v: h @ v, group="diagonal", fit_rate=0.01, key=KEY)
    np.testing.assert_allclose(found(jnp.ones(5)), 1 / np.linalg.norm(h, axis=1), rtol=0.15)
    assert found.residual > 0.1


def test_kronecker_factors_find_the_inverse_of_each_tensor(x64):
    a, b = (jnp.asarray(symmetric(np.geomspace(1, k, n), n)) for k, n in ((5.0, 3), (4.0, 2)))

    def product(v):
        return {"w": a @ v["w"] @ b, "b": 7 * v["b"]}

    probes = {"w": drawn(1500, 3, 2), "b": drawn(1500)}
    found = optimize.fit_preconditioner(probes, product, group="kronecker", key=KEY)
    x = {"w": jnp.asarray(RANDOM.normal(size=(3, 2))), "b": jnp.ones(())}
    for name, value in found(product(x)).items():
        np.testing.assert_allclose(value, x[name], atol=1e-6)


def test_low_rank_finds_an_inverse_that_it_can_be(x64):
    w, d = RANDOM.normal(size=(6, 1)), np.geomspace(0.5, 2, 6)
    root = (np.eye(6) + 0.3 * w @ w.T) * d
    h = jnp.asarray(np.linalg.inv(root.T @ root))
    found = optimize.fit_preconditioner(
        drawn(6000, 6), lambda v: h @ v, group="low rank", rank=4, fit_rate=0.3, key=KEY
    )
    assert np.abs(dense(found, 6) @ h - np.eye(6)).max() < 1e-4


@pytest.mark.parametrize("triangular", [False, True])
def test_a_change_of_variables_changes_the_metric_as_it_changes_the_inverse(x64, triangular):
    """x = Az: H is AᵀHA, v is A⁻¹v, h is Aᵀh, and Q = Q A⁻ᵀ, which stays upper triangular where A is lower."""
    change = np.tril(RANDOM.normal(size=(4, 4))) + 3 * np.eye(4)
    if not triangular:
        change = change + np.triu(RANDOM.normal(size=(4, 4)), 1)
    h = symmetric(np.array([1.0, -2.0, 5.0, 9.0]))
    one = MatrixFit(jnp.eye(4), jnp.zeros(()))
    other = MatrixFit(jnp.asarray(np.linalg.inv(change).T), jnp.zeros(()))
    for v in drawn(20, 4):
        one = matrix_fitted(one, v, h @ v, triangular=triangular, rate=0.5, decay=0.9)
        z = jnp.linalg.solve(change, v)
        other = matrix_fitted(other, z, change.T @ (h @ v), triangular=triangular, rate=0.5, decay=0.9)
    back = np.linalg.inv(change)
    np.testing.assert_allclose(other.q.T @ other.q, back @ (one.q.T @ one.q) @ back.T, rtol=1e-9, atol=1e-12)
    assert np.abs(one.q - np.eye(4)).max() > 0.1


def test_pairs_that_are_given_are_those_that_are_made_under_jit_too(x64):
    h = jnp.asarray(symmetric(np.geomspace(1, 10, 3)))
    probes = drawn(50, 3)
    by_function = optimize.fit_preconditioner(probes, lambda v: h @ v, group="diagonal", key=KEY)
    by_pairs = jax.jit(lambda hs: optimize.fit_preconditioner(probes, hs, group="diagonal", key=KEY))(probes @ h)
    np.testing.assert_allclose(dense(by_pairs, 3), dense(by_function, 3), rtol=1e-10)
    np.testing.assert_allclose(by_pairs.criteria, by_function.criteria, rtol=1e-10)


def test_halves_are_fitted_in_single_precision_and_come_back_as_halves():
    probes = drawn(300, 3).astype(jnp.bfloat16)
    found = optimize.fit_preconditioner(probes, 2 * probes, group="diagonal", key=KEY)
    assert found.fits[0].factors[0].dtype == jnp.float32
    with pytest.raises(ValueError, match=r"a vector of \[\(3,\)\]"):
        found(jnp.ones(1))  # it would be broadcast
    image = found(jnp.ones(3, jnp.bfloat16))
    assert image.dtype == jnp.bfloat16
    np.testing.assert_allclose(image.astype(jnp.float32), 0.5, rtol=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"group": "full"}, "a group of dense, general linear"),
        ({"group": "low rank", "rank": 3}, "more parameters than the rank 3, got 3"),
        ({"fit_rate": 0.0}, "fit_rate above 0"),
        ({"products": jnp.ones((5, 2))}, "a tree of products that is shaped like"),
        ({"products": lambda v: v[:2]}, "a product that is shaped like"),
        ({"products": jnp.full((5, 3), jnp.nan)}, "finite probes and products"),
        ({"probes": jnp.ones((5, 3), int)}, "probes"),
        ({"probes": {"a": jnp.ones((5, 3)), "b": jnp.ones((4, 3))}}, "probes with leading axis 5"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    arguments = {"probes": jnp.ones((5, 3)), "products": jnp.ones((5, 3)), "key": KEY} | change
    with pytest.raises(ValueError, match=says):
        optimize.fit_preconditioner(**arguments)
