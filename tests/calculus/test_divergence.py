import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import antisymmetry, curl, divergence, stochastic_divergence, value_and_divergence


@pytest.mark.parametrize("dimension", [1, 3, 64, 65, 150])
def test_linear_field_gives_the_trace(x64, key, dimension):
    # 65 and 150 take the chunked road, with a remainder.
    matrix = jax.random.normal(key, (dimension, dimension), jnp.float64)
    y = jnp.ones(dimension)
    dy, div = jax.jit(value_and_divergence(lambda t, y, args: matrix @ y))(0.0, y)
    np.testing.assert_allclose(dy, matrix @ y, rtol=1e-13)
    np.testing.assert_allclose(div, jnp.trace(matrix), rtol=1e-12, atol=1e-12)


def test_nonlinear_field_matches_the_dense_jacobian(x64, key):
    first, second = jax.random.normal(key, (2, 5, 5), jnp.float64)

    def field(t, y, args):
        return second @ jnp.tanh(first @ y + t) + args * y**3

    y = jnp.linspace(-1.0, 2.0, 5)
    expected = jnp.trace(jax.jit(jax.jacfwd(lambda z: field(0.3, z, 0.5)))(y))
    np.testing.assert_allclose(jax.jit(divergence(field))(0.3, y, 0.5), expected, rtol=1e-13)


def test_pytree_sample(x64):
    # Written by hand: the coupling Σx must not enter.
    def field(t, y, args):
        return {"x": y["x"] * y["z"] ** 2, "z": jnp.sum(y["x"]) + y["z"] ** 3}

    y = {"x": jnp.array([1.0, 2.0]), "z": jnp.array(3.0)}
    np.testing.assert_allclose(jax.jit(divergence(field))(0.0, y), 2 * 9.0 + 3 * 9.0, rtol=1e-14)


def test_gradient_of_the_divergence_by_reverse_mode(x64):
    # div(y³) = 3 Σ y², so its gradient is 6 y: what training by likelihood needs.
    y = jnp.arange(1.0, 71.0)
    gradient = jax.jit(jax.grad(lambda z: divergence(lambda t, y, args: y**3)(0.0, z)))(y)
    np.testing.assert_allclose(gradient, 6 * y, rtol=1e-13)


@pytest.mark.parametrize(
    "operator",
    [
        divergence,
        value_and_divergence,
        lambda field: functools.partial(stochastic_divergence(field, probes=2), key=jax.random.key(0)),
        lambda field: functools.partial(antisymmetry(field, probes=2), key=jax.random.key(0)),
        curl,
    ],
    ids=["exact", "with value", "stochastic", "antisymmetry", "curl"],
)
def test_a_point_of_whole_numbers_is_refused(operator):
    with pytest.raises(ValueError, match="a point of real floating-point numbers"):
        operator(lambda t, y, args: -y)(0.0, jnp.ones(2, int))


def test_a_field_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shaped like its state"):
        divergence(lambda t, y, args: jnp.sum(y))(0.0, jnp.ones(2))
    with pytest.raises(ValueError, match="shaped like its state"):
        divergence(lambda t, y, args: jnp.concatenate([y, y]))(0.0, jnp.ones(2))


def test_the_field_is_traced_once():
    calls = []

    def field(t, y, args):
        calls.append(1)
        return y

    jax.jit(divergence(field))(0.0, jnp.ones(100))
    assert len(calls) == 1
