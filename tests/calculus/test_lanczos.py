"""Tridiagonalisation and eigenvalues against dense linear algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import hessian_product, lanczos, spectral_density, top_eigenvalues


def symmetric(key, dimension, eigenvalues=None):
    square = jax.random.normal(key, (dimension, dimension))
    if eigenvalues is None:
        return square + square.T
    rotation = jnp.linalg.qr(square)[0]
    return (rotation * eigenvalues[None]) @ rotation.T


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_the_matrix_seen_in_the_basis_is_tridiagonal(x64, key, steps):
    matrix = symmetric(key, 20)
    result = jax.jit(lambda a, v: lanczos(lambda u: a @ u, v, steps=steps))(matrix, jnp.ones(20))
    basis = result.basis
    np.testing.assert_allclose(basis @ basis.T, np.eye(steps), atol=1e-13)
    np.testing.assert_allclose(basis[0], np.ones(20) / np.sqrt(20), rtol=1e-13)
    np.testing.assert_allclose(basis @ matrix @ basis.T, result.tridiagonal(), atol=1e-12)
    outside = matrix @ basis[-1] - basis.T @ (basis @ matrix @ basis[-1])
    np.testing.assert_allclose(result.remainder, np.linalg.norm(outside), atol=1e-12)
    assert not result.restarted.any()


def test_orthogonality_outlives_convergence(key):
    # In single precision, eigenvalues over six decades: without reorthogonalisation ghosts appear by step 30.
    values = 10.0 ** jnp.linspace(-3, 3, 200)
    result = jax.jit(lambda v: lanczos(lambda u: values * u, v, steps=100))(jnp.ones(200))
    np.testing.assert_allclose(result.basis @ result.basis.T, np.eye(100), atol=3e-6)
    found = np.linalg.eigvalsh(np.asarray(result.tridiagonal(), np.float64))[::-1][:20]
    np.testing.assert_allclose(found, values[::-1][:20], rtol=1e-4)


def test_breakdown_restarts_and_finds_every_copy(x64):
    values = jnp.array([3.0, 3, 3, 1, 1, 0, 0, 0])
    result = jax.jit(lambda v: lanczos(lambda u: values * u, v, steps=8))(jnp.ones(8))
    # Three distinct eigenvalues: the Krylov space of any start has three dimensions.
    assert np.flatnonzero(result.restarted).tolist() == [3, 6]
    assert np.all(np.asarray(result.off_diagonal)[[2, 5]] == 0)
    np.testing.assert_allclose(np.linalg.eigvalsh(result.tridiagonal()), np.sort(values), atol=1e-14)
    np.testing.assert_allclose(result.basis @ result.basis.T, np.eye(8), atol=1e-14)
    assert result.remainder < 1e-14


def test_multiples_of_the_identity():
    run = jax.jit(lambda scale, v: lanczos(lambda u: scale * u, v, steps=5))
    for scale in (0.0, 1.0, -2.0):
        result = run(scale, jnp.ones(5))
        assert result.restarted.tolist() == [False, True, True, True, True]
        np.testing.assert_allclose(result.diagonal, np.full(5, scale), rtol=1e-6)
        np.testing.assert_allclose(result.basis @ result.basis.T, np.eye(5), atol=1e-6)


def test_a_start_without_direction_is_refused():
    run = eqx.filter_jit(lambda v: lanczos(lambda u: 2 * u, v, steps=2))
    for start in (jnp.zeros(3), jnp.array([1.0, jnp.nan, 0.0])):
        with pytest.raises(eqx.EquinoxRuntimeError, match="zero or not finite"):
            jax.block_until_ready(run(start))


def test_static_faults(key):
    for steps in (0, 4):
        with pytest.raises(ValueError, match="between 1 and 3 steps"):
            lanczos(lambda u: u, jnp.ones(3), steps=steps)
    with pytest.raises(ValueError, match="shaped like its argument"):
        lanczos(lambda u: u[:2], jnp.ones(3), steps=2)
    with pytest.raises(ValueError, match="real floating-point leaves"):
        lanczos(lambda u: u, jnp.arange(3), steps=2)
    with pytest.raises(ValueError, match="between 1 and 3 eigenvalues"):
        top_eigenvalues(lambda u: u, jnp.ones(3), count=4, key=key)


def test_eigenvalues_of_a_dense_matrix(x64, key, steps=25, tolerance=1e-6):
    # Outliers and a bulk, negative values larger in magnitude than the wanted ones.
    values = jnp.concatenate([jnp.array([9.0, 7.0, 5.0, 4.0, -20.0]), jnp.linspace(-0.5, 0.5, 35)])
    matrix = symmetric(key, 40, values)
    find = jax.jit(lambda a: top_eigenvalues(lambda v: a @ v, jnp.zeros(40), count=4, steps=steps, key=key))
    found = find(matrix)
    np.testing.assert_allclose(found.values, [9, 7, 5, 4], rtol=tolerance)
    direct = np.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values[None], axis=0)
    np.testing.assert_allclose(found.residuals, direct, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(-find(-matrix).values[0], -20, rtol=tolerance)


def test_residuals_bound_the_error_and_show_asymmetry(x64, key):
    matrix = symmetric(key, 30)
    found = jax.jit(lambda a: top_eigenvalues(lambda v: a @ v, jnp.zeros(30), count=3, steps=10, key=key))
    exact = np.linalg.eigvalsh(matrix)
    result = found(matrix)
    nearest = np.abs(exact[None] - np.asarray(result.values)[:, None]).min(1)
    assert np.all(nearest <= result.residuals) and np.all(result.residuals > 1e-3)
    # Below the line from which a map is refused, the residuals hold the whole of what is not symmetric.
    lopsided = matrix + 1e-6 * jnp.triu(jnp.ones((30, 30)), 1)
    result = found(lopsided)
    direct = np.linalg.norm(lopsided @ result.vectors.T - result.vectors.T * result.values[None], axis=0)
    np.testing.assert_allclose(result.residuals, direct, rtol=1e-8)


ROTATION = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)
NOT_SYMMETRIC = {
    "rotation": ROTATION,
    "shear": np.array([[1.0, 0.1], [0.0, 1.0]], np.float32),
    "a rotation in one plane of many": np.diag(np.arange(40.0, dtype=np.float32))
    + 5 * np.kron(np.diag((np.arange(20) == 7).astype(np.float32)), ROTATION),
    "advection": np.eye(40, k=1, dtype=np.float32)
    - np.eye(40, k=-1, dtype=np.float32)
    - 2 * np.eye(40, dtype=np.float32),
}


@pytest.mark.parametrize("matrix", NOT_SYMMETRIC.values(), ids=NOT_SYMMETRIC)
def test_a_map_that_is_not_symmetric_is_refused(matrix, key):
    like = jnp.zeros(len(matrix))

    @jax.jit
    def values(a):
        return top_eigenvalues(lambda v: a @ v, like, count=1, steps=20, key=key).values

    @eqx.filter_jit
    def nodes(a):
        return spectral_density(lambda v: a @ v, like, steps=20, probes=2, key=key).nodes

    for function in (values, nodes):
        with pytest.raises(RuntimeError, match="expected a symmetric map, got one whose products"):
            jax.block_until_ready(function(matrix))
        jax.block_until_ready(function(matrix + matrix.T))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_not_taken_for_asymmetry(dtype, key):
    """A Hessian through sines of sines, of widely spread eigenvalues, in few digits."""
    weights = jax.random.normal(key, (60, 60), dtype)

    def loss(y):
        return jnp.sum(jnp.square(jnp.sin(weights @ jnp.tanh(weights @ (y * jnp.logspace(-2, 0, 60).astype(dtype))))))

    at = jax.random.normal(key, (60,), dtype)
    found = top_eigenvalues(lambda v: jax.jvp(jax.grad(loss), (at,), (v,))[1], at, count=3, steps=40, key=key)
    assert np.isfinite(found.values).all()


def test_repeated_eigenvalues(x64, key):
    matrix = symmetric(key, 12, jnp.array([5.0, 5, 5, 2, 2, 1, 1, 1, 0, 0, 0, 0]))
    found = jax.jit(lambda a: top_eigenvalues(lambda v: a @ v, jnp.zeros(12), count=6, key=key))(matrix)
    np.testing.assert_allclose(found.values, [5, 5, 5, 2, 2, 1], atol=1e-12)
    assert found.residuals.max() < 1e-12


class Model(eqx.Module):
    weights: tuple
    steps: jax.Array
    activation: object


def test_a_tree_with_other_leaves(x64, key):
    keys = jax.random.split(key, 3)
    model = Model((jax.random.normal(keys[0], (2, 3)), jax.random.normal(keys[1], (2,))), jnp.array(3), jax.nn.softplus)
    inputs = jax.random.normal(keys[2], (5, 3))

    def loss(model):
        hidden = model.activation(inputs @ model.weights[0].T)
        return jnp.sum((hidden @ model.weights[1]) ** 2) * model.steps

    flat, unravel = jax.flatten_util.ravel_pytree(model.weights)
    hessian = jax.jit(jax.hessian(lambda z: loss(eqx.tree_at(lambda m: m.weights, model, unravel(z)))))(flat)
    product = eqx.filter_jit(hessian_product(loss))
    found = eqx.filter_jit(lambda m: top_eigenvalues(lambda v: product(m, v), m, count=2, key=key))(model)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(hessian)[::-1][:2], rtol=1e-11)
    assert found.vectors.activation is None and found.vectors.steps is None
    assert [leaf.shape for leaf in found.vectors.weights] == [(2, 2, 3), (2, 2)]
    # A vector is a direction that the product accepts, and an eigenvector.
    first = jax.tree.map(lambda leaf: leaf[0], found.vectors)
    image = product(model, first)
    np.testing.assert_allclose(image.weights[0], found.values[0] * first.weights[0], atol=1e-9)


def test_halves_are_summed_in_single_precision(key):
    like = {"a": jnp.zeros(30, jnp.bfloat16), "b": jnp.zeros(10, jnp.bfloat16)}
    found = jax.jit(lambda v: top_eigenvalues(lambda u: jax.tree.map(lambda x: 2 * x, u), v, count=1, key=key))(like)
    assert found.values.dtype == jnp.float32 and found.vectors["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(found.values, [2], rtol=1e-2)


def test_extreme_scales(key):
    values = jnp.linspace(-1.0, 1.0, 20)
    find = jax.jit(lambda a: top_eigenvalues(lambda v: a * v, jnp.zeros(20), count=2, key=key))
    for scale in (1e-30, 1e30):
        found = find(scale * values)
        np.testing.assert_allclose(found.values / scale, [1, 17 / 19], rtol=1e-5)
        assert np.all(found.residuals / scale < 1e-4)


def test_what_does_not_depend_on_the_vector_leaves_the_loop(key):
    """The products of the loop are two thirds of those of a Hessian product: the primal pass stays outside."""
    weights = [jax.random.normal(key, (8, 8)) for _ in range(3)]
    inputs = jax.random.normal(key, (5, 8))

    def loss(weights):
        hidden = inputs
        for weight in weights:
            hidden = jnp.tanh(hidden @ weight)
        return jnp.sum(hidden**2)

    def count(jaxpr):
        (loop,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
        return str(loop.params["jaxpr"]).count("dot_general")

    product = hessian_product(loss)
    whole = str(jax.make_jaxpr(lambda v: product(weights, v))(weights)).count("dot_general")
    start = count(jax.make_jaxpr(lambda v: lanczos(lambda u: u, v, steps=4))(weights).jaxpr)
    run = count(jax.make_jaxpr(lambda v: lanczos(lambda u: product(weights, u), v, steps=4))(weights).jaxpr)
    assert 0 < run - start <= 0.75 * whole


def test_a_tolerance_saves_products_and_is_kept(x64, key):
    values = jnp.concatenate([jnp.array([9.0, 7.0, -20.0]), jnp.linspace(-0.5, 0.5, 57)])
    matrix = symmetric(key, 60, values)

    @eqx.filter_jit
    def find(tolerance):
        return top_eigenvalues(lambda v: matrix @ v, jnp.zeros(60), count=2, steps=40, tolerance=tolerance, key=key)

    loose, tight, never = find(1e-2), find(1e-8), find(1e-30)
    assert 4 <= loose.products < tight.products < never.products == 40
    for found, tolerance in ((loose, 1e-2), (tight, 1e-8)):
        direct = np.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values[None], axis=0)
        np.testing.assert_allclose(found.residuals, direct, rtol=1e-4, atol=1e-12)
        assert found.residuals.max() <= tolerance * 9
        # The error of a value goes with the square of its residual, over the gap to the others.
        np.testing.assert_allclose(found.values, [9, 7], atol=2 * float(found.residuals.max()) ** 2)
        assert found.products % 4 == 0
    # Never small enough is the iteration without a tolerance; four steps earlier the tight one was not there yet.
    plain = top_eigenvalues(lambda v: matrix @ v, jnp.zeros(60), count=2, steps=40, key=key)
    np.testing.assert_allclose(never.values, plain.values, rtol=1e-14)
    short = top_eigenvalues(lambda v: matrix @ v, jnp.zeros(60), count=2, steps=int(tight.products) - 4, key=key)
    assert short.residuals.max() > 1e-8 * 9
    with pytest.raises(ValueError, match="a positive tolerance"):
        find(0.0)


def test_a_tolerance_and_a_product_that_is_not_finite(key):
    found = top_eigenvalues(lambda v: v * jnp.nan, jnp.zeros(20), count=2, steps=12, tolerance=1e-3, key=key)
    assert found.products == 12 and np.isnan(found.values).all()
    # All values negative: rows without a step must not count as zeros.
    found = top_eigenvalues(
        lambda v: -(1 + jnp.arange(50.0)) * v, jnp.zeros(50), count=1, steps=50, tolerance=1e-2, key=key
    )
    assert found.products < 50 and abs(found.values[0] + 1) < 0.2
