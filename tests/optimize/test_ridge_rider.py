import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.optimize import local_exponents, ridge_rider


def swirl(t, z, args):
    """Two players; not a gradient: Jacobian far from symmetric."""
    return {"a": z["b"] - z["a"] ** 3 + 0.2 * z["a"], "b": -2 * z["a"] + jnp.sin(z["b"])}


def test_exponents_are_singular_values_of_the_steps_jacobian(x64, key):
    z = {"a": jnp.array([0.3, -0.2]), "b": jnp.array([0.5, 0.1])}
    values, vectors = local_exponents(swirl, z, rate=0.1, horizon=7, count=4, key=key)

    def flat(y):
        end = z | {"a": y[:2], "b": y[2:]}
        for _ in range(7):
            move = swirl(0.0, end, None)
            end = {n: end[n] + 0.1 * move[n] for n in end}
        return jnp.concatenate([end["a"], end["b"]])

    jacobian = np.asarray(jax.jacfwd(flat)(jnp.concatenate([z["a"], z["b"]])))
    _, sigma, rows = np.linalg.svd(jacobian)
    np.testing.assert_allclose(values, np.log(sigma) / 7, atol=1e-10)
    found = np.concatenate([vectors["a"], vectors["b"]], axis=1)
    np.testing.assert_allclose(np.abs(np.sum(found * rows, axis=1)), 1, atol=1e-8)


def spiralling_wells(t, y, args):
    # Two sinks at (±1, 0), each approached in a spiral; the line x = 0 parts their basins. Curl everywhere.
    x, z = y
    return jnp.array([x - x**3, -z + 3 * (x - x**3)])


def test_the_search_ends_on_the_border_and_branches_reach_both_sinks(key):
    starts = jnp.array([[0.5, 0.4], [-0.4, -0.6], [0.3, 1.0]])
    program = jax.jit(
        jax.vmap(lambda y: ridge_rider(spiralling_wells, y, rate=0.1, search_steps=60, follow_steps=300, key=key))
    )
    found = program(starts)
    np.testing.assert_allclose(found.start[:, 0], 0, atol=0.02)
    # On the border the Jacobian of a step is constant, so that the exponent is known without the method.
    step = np.linalg.matrix_power(np.array([[1.1, 0], [0.3, 0.9]]), 20)
    np.testing.assert_allclose(found.exponents[:, 0], np.log(np.linalg.norm(step, 2)) / 20, rtol=1e-3)
    np.testing.assert_allclose(np.sort(found.ends[:, :, 0], axis=1), [[-1, 1]] * 3, atol=1e-3)
    assert np.all(found.speeds < 1e-3) and np.all(found.search[:, -1] > found.search[:, 0])


def test_edges(key):
    with pytest.raises(ValueError, match="at least 1"):
        ridge_rider(spiralling_wells, jnp.ones(2), rate=0.1, search_steps=0, key=key)


def test_exponents_below_rounding_are_not_claimed(key):
    contract = lambda t, y, args: jnp.array([1.0, -1.0, -9.0]) * y  # noqa: E731
    values, _ = local_exponents(contract, jnp.zeros(3), rate=0.1, horizon=10, count=3, key=key)
    np.testing.assert_allclose(values[:2], np.log([1.1, 0.9]), rtol=1e-3)
    assert np.isnan(values[2])
    with pytest.raises(ValueError, match="at least one step"):
        local_exponents(contract, jnp.zeros(3), rate=0.1, horizon=0, key=key)
