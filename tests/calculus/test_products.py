import jax
import jax.numpy as jnp
import numpy as np

from nablax.calculus import jvp, vjp

WEIGHTS = jax.random.normal(jax.random.key(7), (3, 3))


def field(t, y, args):
    return jnp.tanh(WEIGHTS.astype(y.dtype) @ y) * jnp.sin(t) + args


def test_products_match_the_dense_jacobian(x64, key):
    y, v, w = jax.random.normal(key, (3, 3), jnp.float64)
    args = jnp.float64(0.25)
    jacobian = jax.jit(jax.jacfwd(lambda z: field(0.7, z, args)))(y)
    dy, pushed = jvp(field)(0.7, y, v, args)
    np.testing.assert_allclose(dy, field(0.7, y, args), rtol=1e-15)
    np.testing.assert_allclose(pushed, jacobian @ v, rtol=1e-13)
    dy, pulled = vjp(field)(0.7, y, w, args)
    np.testing.assert_allclose(dy, field(0.7, y, args), rtol=1e-15)
    np.testing.assert_allclose(pulled, jacobian.T @ w, rtol=1e-13)


def test_push_and_pull_are_adjoint(x64, key):
    y, v, w = jax.random.normal(key, (3, 3), jnp.float64)
    _, pushed = jvp(field)(0.7, y, v, 0.0)
    _, pulled = vjp(field)(0.7, y, w, 0.0)
    np.testing.assert_allclose(w @ pushed, pulled @ v, rtol=1e-13)


def test_rectangular_jacobians_are_welcome():
    def widen(t, y, args):
        return jnp.concatenate([y, y**2])

    y = jnp.array([1.0, 2.0])
    _, pushed = jvp(widen)(0.0, y, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(pushed, [1.0, 0.0, 2.0, 0.0])
    _, pulled = vjp(widen)(0.0, y, jnp.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(pulled, [1.0, 4.0])
