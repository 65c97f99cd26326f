import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import taylor_coefficients
from nablax.fields import MLP

modes = pytest.mark.parametrize("mode", ["jet", "nested"])


@modes
def test_known_series(mode, x64):
    y = jnp.asarray(0.3)
    factorials = np.array([math.factorial(k) for k in range(7)])
    for function, expected in [
        (jnp.exp, math.exp(0.3) * 2.0 ** np.arange(7) / factorials),
        (jnp.sin, 2.0 ** np.arange(7) * np.sin(0.3 + np.arange(7) * np.pi / 2) / factorials),
        (lambda z: 1 / (1 - z), 2.0 ** np.arange(7) / 0.7 ** np.arange(1, 8)),
    ]:
        ours = jax.jit(taylor_coefficients(function, order=6, mode=mode))(y, jnp.asarray(2.0))
        np.testing.assert_allclose(ours, expected, rtol=1e-11)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_the_series_of_a_network_is_the_network_nearby_and_modes_agree(activation, key, x64):
    network = MLP(3, width=16, depth=2, activation=activation, key=key)
    network = jax.tree.map(lambda a: a.astype(jnp.float64) if hasattr(a, "dtype") else a, network)
    y, direction = jnp.array([0.1, -0.4, 0.2]), jnp.array([0.5, 0.3, -0.2])

    def function(z):
        return network(jnp.asarray(0.5), z)

    ours = jax.jit(taylor_coefficients(function, order=4))(y, direction)
    np.testing.assert_allclose(ours, taylor_coefficients(function, order=4, mode="nested")(y, direction), atol=1e-12)
    # The remainder has the order that it should.
    errors = []
    for s in (0.2, 0.1):
        errors.append(np.abs(function(y + s * direction) - sum(c * s**k for k, c in enumerate(ours))).max())
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 5, atol=0.6)


@modes
def test_trees_go_in_and_come_out(mode):
    def function(y, scale):
        return {"product": y["a"] * y["b"].sum(), "square": scale * y["b"] ** 2}

    y = {"a": jnp.array(2.0), "b": jnp.array([1.0, 3.0])}
    v = {"a": jnp.array(1.0), "b": jnp.array([1.0, -1.0])}
    ours = taylor_coefficients(function, order=3, mode=mode)(y, v, 5.0)
    np.testing.assert_allclose(ours["product"], [8, 4, 0, 0], atol=1e-6)
    np.testing.assert_allclose(ours["square"], [[5, 45], [10, -30], [5, 5], [0, 0]], atol=1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype("float32")}


def test_a_primitive_without_a_rule_is_said_and_the_other_mode_has_it():
    for function in (jax.nn.softplus, lambda y: jnp.prod(jnp.stack([y, y]))):
        with pytest.raises(ValueError, match="nested"):
            taylor_coefficients(function, order=2)(jnp.array(1.0), jnp.array(1.0))
    ours = taylor_coefficients(jax.nn.softplus, order=2, mode="nested")(jnp.array(0.0), jnp.array(1.0))
    np.testing.assert_allclose(ours, [math.log(2), 0.5, 0.125], atol=1e-6)
    for order in (0, 2.5, "2"):
        with pytest.raises(ValueError, match="expected order as a whole number, at least 1, got"):
            taylor_coefficients(jnp.sin, order=order)
    with pytest.raises(ValueError, match="expected mode 'jet' or 'nested', got 'forward'"):
        taylor_coefficients(jnp.sin, order=2, mode="forward")
