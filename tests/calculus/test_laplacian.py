import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import laplacian


@pytest.mark.parametrize("dimension", [1, 2, 5, 70])
@pytest.mark.parametrize("power", [1, 3])
def test_powers_of_the_radius(x64, key, dimension, power):
    # Δ|y|^{2k} = 2k (2k + D − 2) |y|^{2k−2}
    y = jax.random.normal(key, (dimension,), jnp.float64)
    radius = jnp.sum(y**2)
    expected = 2 * power * (2 * power + dimension - 2) * radius ** (power - 1)
    np.testing.assert_allclose(jax.jit(laplacian(lambda z: jnp.sum(z**2) ** power))(y), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "harmonic",
    [
        lambda y: y[0] ** 2 - y[1] ** 2,
        lambda y: jnp.exp(y[0]) * jnp.sin(y[1]),
        lambda y: jnp.log(y[0] ** 2 + y[1] ** 2),
        lambda y: y[0] ** 3 - 3 * y[0] * y[1] ** 2,
    ],
)
def test_harmonic_functions_vanish(x64, harmonic):
    y = jnp.array([0.7, 1.3])
    np.testing.assert_allclose(jax.jit(laplacian(harmonic))(y), 0.0, atol=1e-13)
    assert abs(jax.jit(laplacian(lambda z: harmonic(z) * z[0]))(y)) > 0.1  # and no other does


def test_a_network_matches_the_dense_hessian(x64, key):
    first, second = jax.random.normal(key, (2, 6, 6), jnp.float64)

    def function(y, shift):
        return jnp.sum(jax.nn.silu(second @ jnp.tanh(first @ y + shift)))

    y = jnp.linspace(-1.0, 1.0, 6)
    expected = jnp.trace(jax.jit(jax.hessian(function))(y, 0.4))
    np.testing.assert_allclose(jax.jit(laplacian(function))(y, 0.4), expected, rtol=1e-12)


def test_pytree(x64):
    y = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    np.testing.assert_allclose(
        laplacian(lambda z: jnp.sum(z["a"] ** 2) * z["b"] ** 2)(y), 4 * 9.0 + 2 * 5.0, rtol=1e-14
    )


def test_a_point_of_whole_numbers_is_refused():
    with pytest.raises(ValueError, match="a point of real floating-point numbers"):
        laplacian(lambda y: jnp.sum(y**2))(jnp.ones(2, int))


def test_a_vector_value_is_refused():
    with pytest.raises(ValueError, match="scalar value"):
        laplacian(lambda y: y)(jnp.ones(2))
