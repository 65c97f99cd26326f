import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import matrix_square_root


def spread(dim, lowest, seed=0):
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(generator.normal(size=(dim, dim)))
    return jnp.asarray(basis * np.geomspace(lowest, 1.0, dim) @ basis.T)


def by_eigenvectors(matrix, exponent):
    values, vectors = jnp.linalg.eigh(matrix)
    return vectors * values[None, :] ** exponent @ vectors.T


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("method", "degree"), [("pade", 16), ("taylor", 300)])
def test_a_high_degree_reaches_the_root_and_the_residual_says_so(method, degree, inverse, x64):
    matrix = 7 * spread(5, 0.2)
    root = jax.jit(lambda a: matrix_square_root(a, method=method, degree=degree, inverse=inverse))(matrix)
    np.testing.assert_allclose(root.value, by_eigenvectors(matrix, -0.5 if inverse else 0.5), atol=1e-11)
    assert root.residual < 1e-10
    rough = matrix_square_root(matrix, method=method, degree=2, inverse=inverse)
    assert rough.residual > 1e-3


def test_the_error_is_the_one_stated(x64):
    # Eigenvalues of the normalised matrix: x and the rest.
    matrix = jnp.diag(jnp.array([0.01, 1.0]))
    x = 0.01 / np.sqrt(1 + 1e-4)
    for degree in (4, 8, 12):
        ours = matrix_square_root(matrix, degree=degree).value[0, 0]
        error = abs(ours - 0.1) / 0.1
        ratio = ((1 - np.sqrt(x)) / (1 + np.sqrt(x))) ** (2 * degree + 1)
        np.testing.assert_allclose(error, 2 * ratio / (1 - ratio), rtol=1e-6)


def test_numerator_and_denominator_share_their_powers():
    def products(method, degree):
        traced = str(jax.make_jaxpr(lambda a: matrix_square_root(a, method=method, degree=degree).value)(jnp.eye(3)))
        # One product inside of each loop, and one of the residual behind them.
        return [int(part.split()[0]) for part in traced.split("length=")[1:]], traced.count("dot_general")

    assert products("pade", 5) == ([4], 2)
    assert products("taylor", 10) == ([9], 2)


@pytest.mark.parametrize("inverse", [False, True])
def test_derivatives_are_those_of_the_eigendecomposition(inverse, x64):
    matrix = spread(4, 0.3)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)))
    change = spread(4, 0.5, seed=2)

    def ours(a):
        return jnp.sum(weights * matrix_square_root(a, degree=20, inverse=inverse).value)

    def theirs(a):
        return jnp.sum(weights * by_eigenvectors(a, -0.5 if inverse else 0.5))

    np.testing.assert_allclose(jax.jit(jax.grad(ours))(matrix), jax.jit(jax.grad(theirs))(matrix), atol=1e-9)

    def slope(function):
        return lambda a: jax.jvp(function, (a,), (change,))[1]

    np.testing.assert_allclose(jax.jit(slope(ours))(matrix), jax.jit(slope(theirs))(matrix), atol=1e-9)
    if inverse:
        second = jax.jit(jax.grad(slope(ours)))(matrix)
        np.testing.assert_allclose(second, jax.jit(jax.grad(slope(theirs)))(matrix), atol=1e-8)


def test_equal_eigenvalues_have_a_derivative():
    def ours(a):
        return matrix_square_root(a).value[0, 1]

    gradient = jax.grad(ours)(4 * jnp.eye(3))
    np.testing.assert_allclose(gradient, jnp.zeros((3, 3)).at[0, 1].set(0.125).at[1, 0].set(0.125), atol=1e-6)
    by_vectors = jax.grad(lambda a: by_eigenvectors(a, 0.5)[0, 1])(4 * jnp.eye(3))
    assert not np.all(np.isfinite(by_vectors))


def test_batches_agree_with_single_matrices_and_precision_stays():
    matrices = jnp.stack([spread(3, lowest, seed=3) for lowest in (0.9, 0.1, 0.01)])

    def gradient(a):
        return jax.grad(lambda b: jnp.sum(matrix_square_root(b, degree=8).value))(a)

    together = jax.jit(jax.vmap(gradient))(matrices)
    assert together.dtype == jnp.float32
    for one, all_of_them in zip(matrices, together):
        np.testing.assert_allclose(gradient(one), all_of_them, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_scales_come_out_as_they_should(scale):
    unit, scaled = (matrix_square_root(spread(3, 0.2) * s) for s in (1.0, scale))
    np.testing.assert_allclose(scaled.value / np.sqrt(scale), unit.value, rtol=1e-4)
    np.testing.assert_allclose(scaled.residual, unit.residual, rtol=1e-2)


def test_faults_are_said():
    with pytest.raises(ValueError, match="a square matrix"):
        matrix_square_root(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="'pade' or 'taylor'"):
        matrix_square_root(jnp.eye(2), method="newton")
    with pytest.raises(ValueError, match="degree"):
        matrix_square_root(jnp.eye(2), degree=0)
    with pytest.raises(Exception, match="not positive definite"):
        jax.jacfwd(lambda a: matrix_square_root(a, method="taylor").value)(jnp.diag(jnp.array([1.0, -5.0])))
