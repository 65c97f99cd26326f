import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import polynomial_operators


@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (3, 3)])
def test_a_polynomial_of_the_degree_is_differentiated_exactly(dim, degree, x64):
    generator = np.random.default_rng(dim)
    linear, square = generator.normal(size=(2, dim)), generator.normal(size=(2, dim, dim))

    def function(y):
        cubic = jnp.sum(y) ** 3 if degree == 3 else 0.0
        return 100.0 + linear @ y + jnp.einsum("kij,i,j->k", square, y, y) + cubic

    y = jnp.asarray(generator.normal(size=dim))
    fit = jax.jit(polynomial_operators(function, radius=0.3, degree=degree))(y)
    np.testing.assert_allclose(fit.value, function(y), rtol=1e-12)
    np.testing.assert_allclose(fit.gradient, jax.jacfwd(function)(y), atol=1e-9)
    np.testing.assert_allclose(fit.hessian, jax.hessian(function)(y), atol=1e-7)
    np.testing.assert_allclose(fit.laplacian, jnp.trace(fit.hessian, axis1=-2, axis2=-1), atol=1e-12)
    np.testing.assert_allclose(fit.residual, 0, atol=1e-10)


def test_the_error_falls_with_the_radius_in_the_order_stated(x64):
    def function(y):
        return jnp.sin(y[0]) * jnp.exp(y[1])

    y = jnp.array([0.4, -0.2])
    exact, second = jax.grad(function)(y), jax.hessian(function)(y)
    errors = []
    for radius in (0.2, 0.1):
        fit = jax.jit(polynomial_operators(function, radius=radius))(y)
        errors.append((np.abs(fit.gradient - exact).max(), np.abs(fit.hessian - second).max(), fit.residual))
    orders = np.log2(np.array(errors[0]) / np.array(errors[1]))
    np.testing.assert_allclose(orders, [2, 2, 3], atol=0.3)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_rough_sphere_has_its_normal_and_curvature_where_autodiff_does_not(dim, key):
    def smooth(y):
        return jnp.linalg.norm(y) - 0.5

    def rough(y):
        return smooth(y) + 2e-4 * jnp.sum(jnp.sin(900.0 * y))

    directions = jax.random.normal(key, (50, dim))
    normals = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    operator = polynomial_operators(rough, radius=0.1, points=200)
    fits = jax.jit(jax.vmap(operator))(0.5 * normals)
    assert jnp.max(jnp.linalg.norm(fits.normal - normals, axis=1)) < 0.02
    assert jnp.max(jnp.abs(fits.mean_curvature - 2)) < 0.2
    by_autodiff = jax.vmap(jax.grad(rough))(0.5 * normals)
    assert jnp.median(jnp.linalg.norm(by_autodiff - normals, axis=1)) > 0.1
    # The residual says how rough it is.
    np.testing.assert_allclose(jnp.mean(fits.residual), 2e-4 * np.sqrt(dim / 2), rtol=0.5)


def test_arguments_are_passed_on_and_precision_is_kept():
    fit = polynomial_operators(lambda y, a: a * jnp.sum(y**2), radius=0.1)(jnp.ones(2), 3.0)
    np.testing.assert_allclose(fit.laplacian, 12, rtol=1e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves(fit)} == {jnp.dtype("float32")}


def test_faults_are_said():
    with pytest.raises(ValueError, match="radius > 0"):
        polynomial_operators(jnp.sum, radius=-1.0)
    with pytest.raises(ValueError, match="degree ≥ 2"):
        polynomial_operators(jnp.sum, radius=1.0, degree=1)
    with pytest.raises(ValueError, match="enough for the 6 coefficients"):
        polynomial_operators(jnp.sum, radius=1.0, points=4)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        polynomial_operators(jnp.sum, radius=1.0)(jnp.ones((2, 2)))
