import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from nablax.spaces import Euclidean

SHAPES = [3, (3,), (2, 4), ()]


def normal(key, shape, dtype=jnp.float32):
    return jax.random.normal(key, shape, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_and_dim(shape):
    space = Euclidean(shape)
    assert space.shape == ((shape,) if isinstance(shape, int) else shape)
    assert space.dim == jnp.zeros(space.shape).size


@pytest.mark.parametrize("shape", SHAPES)
def test_log_inverts_exp_and_back(shape, x64):
    space = Euclidean(shape)
    y, z, v = (normal(k, space.shape, jnp.float64) for k in jax.random.split(jax.random.key(0), 3))
    assert jnp.allclose(space.exp(y, space.log(y, z)), z, atol=1e-14)
    assert jnp.allclose(space.log(y, space.exp(y, v)), v, atol=1e-14)


def test_geodesic_is_the_straight_line():
    space = Euclidean(2)
    y, z = jnp.array([1.0, -1.0]), jnp.array([3.0, 5.0])
    quarter = space.exp(y, 0.25 * space.log(y, z))
    assert quarter.tolist() == [1.5, 0.5]


def test_inner_is_the_dot_product_of_all_coordinates():
    space = Euclidean((2, 2))
    u, v = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[5.0, 6.0], [7.0, 8.0]])
    assert float(space.inner(jnp.ones((2, 2)), u, v)) == 70.0
    squared_distance = space.inner(u, space.log(u, v), space.log(u, v))
    assert float(squared_distance) == 64.0


def test_project_and_tangent_change_nothing():
    space = Euclidean(4)
    y, v = normal(jax.random.key(0), (4,)), normal(jax.random.key(1), (4,))
    assert (space.project(y) == y).all()
    assert (space.tangent(y, v) == v).all()


@pytest.mark.parametrize("name", ["exp", "log", "tangent"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_kept_and_jit_equals_eager(name, dtype, x64):
    space = Euclidean((2, 3))
    y, v = normal(jax.random.key(0), (2, 3), dtype), normal(jax.random.key(1), (2, 3), dtype)
    eager = getattr(space, name)(y, v)
    assert eager.dtype == dtype
    assert (eqx.filter_jit(lambda s, a, b: getattr(s, name)(a, b))(space, y, v) == eager).all()


def test_vmap_equals_loop():
    space = Euclidean(3)
    y, v = normal(jax.random.key(0), (5, 3)), normal(jax.random.key(1), (5, 3))
    batched = jax.vmap(space.inner)(y, v, v)
    assert jnp.allclose(batched, jnp.stack([space.inner(a, b, b) for a, b in zip(y, v)]), rtol=1e-6)


def test_space_is_static_under_jit():
    assert jax.tree.leaves(Euclidean(3)) == []
    assert Euclidean(3) == Euclidean((3,))


@pytest.mark.parametrize("shape", [0, (2, -1), (2, 1.5)])
def test_bad_shape_is_refused(shape):
    with pytest.raises(ValueError, match="positive integers"):
        Euclidean(shape)


def test_a_batch_is_refused_with_the_mend():
    space = Euclidean(2)
    with pytest.raises(ValueError, match="vmap"):
        space.exp(jnp.ones((5, 2)), jnp.ones((5, 2)))


@pytest.mark.parametrize("name, count", [("exp", 2), ("log", 2), ("inner", 3), ("project", 1), ("tangent", 2)])
def test_every_argument_is_looked_at(name, count):
    """What NumPy would broadcast, in the place of each argument in turn."""
    for place in range(count):
        for wrong in (jnp.ones(1), jnp.ones((2, 1)), jnp.ones((5, 2)), 1.0):
            arguments = [jnp.ones(2)] * count
            arguments[place] = wrong
            with pytest.raises(ValueError, match=r"one array of shape \(2,\), got .*vmap"):
                getattr(Euclidean(2), name)(*arguments)
