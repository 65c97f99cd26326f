import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import curl


def at(field, y):
    return jax.jit(lambda y: curl(field)(0.7, y))(y)


def test_rotations_turn_at_twice_their_rate(x64, key):
    np.testing.assert_allclose(at(lambda t, y, args: 3 * jnp.array([-y[1], y[0]]), jnp.ones(2)), 6, rtol=1e-14)
    rate = jnp.array([0.3, -1.2, 2.0])
    found = at(lambda t, y, args: jnp.cross(rate, y), jax.random.normal(key, (3,)))
    np.testing.assert_allclose(found, 2 * rate, rtol=1e-13)


@pytest.mark.parametrize("dimension", [2, 3])
def test_gradients_do_not_turn(x64, key, dimension):
    y = jax.random.normal(key, (dimension,))

    def potential(y):
        return jnp.sin(y[0] * y[1]) * jnp.exp(y[-1]) + jnp.sum(y**4)

    np.testing.assert_allclose(at(lambda t, y, args: jax.grad(potential)(y), y), 0, atol=1e-13)


def test_known_fields(x64):
    y = jnp.array([0.4, -1.1, 0.9])
    a, b, c = y
    # By hand, of (y z², x³ sin z, x y).
    field = lambda t, y, args: jnp.array([y[1] * y[2] ** 2, y[0] ** 3 * jnp.sin(y[2]), y[0] * y[1]])  # noqa: E731
    expected = [a - a**3 * jnp.cos(c), 2 * b * c - b, 3 * a**2 * jnp.sin(c) - c**2]
    np.testing.assert_allclose(at(field, y), expected, rtol=1e-13)
    shear = at(lambda t, y, args: jnp.array([t * y[1] ** 2, 0 * y[0]]), jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(shear, -0.7 * 4, rtol=1e-14)


def test_the_curl_of_a_curl(x64, key):
    # ∇ × (∇ × v) = ∇(∇·v) − Δv
    y = jax.random.normal(key, (3,))

    def field(t, y, args):
        return jnp.array([jnp.sin(y[1] * y[2]), y[0] ** 2 * y[2], jnp.exp(y[0] - y[1])])

    found = at(curl(field), y)
    second = jax.jacfwd(jax.jacfwd(lambda z: field(0.7, z, None)))(y)
    np.testing.assert_allclose(found, jnp.einsum("jji->i", second) - jnp.einsum("ijj->i", second), rtol=1e-12)


def test_trees(x64):
    y = {"plane": jnp.array([1.0, 2.0]), "height": jnp.array(3.0)}
    found = curl(lambda t, y, args: {"plane": jnp.stack([y["height"], args * y["plane"][0]]), "height": y["height"]})(
        0.0, y, 5.0
    )
    # In the order of the leaves, height comes first: v = (h, h, 5p).
    assert found["plane"].shape == (2,) and found["height"].shape == ()
    np.testing.assert_allclose(found["height"], 5)
    np.testing.assert_allclose(found["plane"], [0, 1])


def test_other_dimensions_are_refused():
    for dimension in (1, 4):
        with pytest.raises(ValueError, match="two or three coordinates"):
            curl(lambda t, y, args: y)(0.0, jnp.ones(dimension))
    with pytest.raises(ValueError, match="shaped like its state"):
        curl(lambda t, y, args: y[:1])(0.0, jnp.ones(2))
