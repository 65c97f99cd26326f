"""Products against dense matrices of derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from nablax.calculus import fisher_product, gauss_newton_product, hessian_product


def predict(params, x, labels):
    hidden = jnp.tanh(x @ params["inlet"]["weight"] + params["inlet"]["bias"][None])
    return hidden @ params["outlet"]


def losses(outputs, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1)[:, 0]


def loss(params, x, labels):
    return jnp.mean(losses(predict(params, x, labels), labels))


@pytest.fixture
def problem(x64, key):
    keys = jax.random.split(key, 5)
    params = {
        "inlet": {"weight": jax.random.normal(keys[0], (3, 4)), "bias": jax.random.normal(keys[1], (4,))},
        "outlet": jax.random.normal(keys[2], (4, 3)),
    }
    return params, jax.random.normal(keys[3], (7, 3)), jax.random.randint(keys[4], (7,), 0, 3)


def dense(product, params):
    """The matrix, column by column."""
    flat, unravel = ravel_pytree(params)
    return jax.jit(jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0]))(jnp.eye(flat.size)).T


def test_hessian(problem):
    params, *data = problem
    flat, unravel = ravel_pytree(params)
    expected = jax.jit(jax.hessian(lambda z: loss(unravel(z), *data)))(flat)
    found = dense(lambda v: hessian_product(loss)(params, v, *data), params)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_gauss_newton(problem):
    params, *data = problem
    flat, unravel = ravel_pytree(params)
    outputs = predict(params, *data)
    jacobian = jax.jit(jax.jacobian(lambda z: predict(unravel(z), *data).ravel()))(flat)
    middle = jax.jit(jax.hessian(lambda o: jnp.mean(losses(o.reshape(7, 3), data[1]))))(outputs.ravel())
    product = gauss_newton_product(predict, lambda o, x, labels: jnp.mean(losses(o, labels)))
    found = dense(lambda v: product(params, v, *data), params)
    np.testing.assert_allclose(found, jacobian.T @ middle @ jacobian, atol=1e-13)
    assert np.linalg.eigvalsh(found).min() > -1e-13
    hessian = dense(lambda v: hessian_product(loss)(params, v, *data), params)
    assert np.abs(found - hessian).max() > 1e-2  # the model's own curvature is left out


def test_gauss_newton_is_the_hessian_of_a_linear_model(problem):
    _, x, labels = problem
    weight = jnp.ones((3, 3)) / 3
    v = jnp.arange(9.0).reshape(3, 3)
    product = gauss_newton_product(lambda w: x @ w, lambda o: jnp.mean(losses(o, labels)))
    expected = hessian_product(lambda w: jnp.mean(losses(x @ w, labels)))(weight, v)
    np.testing.assert_allclose(product(weight, v), expected, atol=1e-14)


def test_fisher(problem):
    params, *data = problem
    flat, unravel = ravel_pytree(params)
    each = jax.jit(jax.jacobian(lambda z: losses(predict(unravel(z), *data), data[1])))(flat)
    product = fisher_product(lambda p, x, labels: losses(predict(p, x, labels), labels))
    found = dense(lambda v: product(params, v, *data), params)
    np.testing.assert_allclose(found, each.T @ each / 7, atol=1e-13)


class Scaled(eqx.Module):
    weight: jax.Array
    count: jax.Array
    rate: float
    activation: object

    def __call__(self, x):
        return self.rate * self.activation(self.weight @ x) * self.count


PRODUCTS = {
    "hessian": hessian_product(lambda m, x: jnp.sum(m(x) ** 2)),
    "gauss_newton": gauss_newton_product(lambda m, x: m(x), lambda o, x: jnp.sum(o**2)),
    "fisher": fisher_product(lambda m, x: m(x) ** 2),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_leaves_that_are_not_inexact_are_left_alone(product, key):
    model = Scaled(jax.random.normal(key, (2, 3)), jnp.array(2), 0.5, jnp.tanh)
    x, ones = jnp.arange(3.0), jnp.ones((2, 3))
    whole = eqx.filter_jit(product)(model, eqx.tree_at(lambda m: m.weight, model, ones), x)
    assert whole.activation is jnp.tanh and whole.rate == 0.5 and int(whole.count) == 2
    gaps = eqx.filter(model, eqx.is_inexact_array)
    part = product(model, eqx.tree_at(lambda m: m.weight, gaps, ones), x)
    assert part.count is None and part.rate is None and part.activation is None
    np.testing.assert_allclose(part.weight, whole.weight, rtol=1e-6)
    assert np.abs(part.weight).max() > 1e-3


def test_faults():
    with pytest.raises(ValueError, match="one real number"):
        hessian_product(lambda p: p)(jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="one real number"):
        gauss_newton_product(lambda p: p, lambda o: o)(jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="vector of losses"):
        fisher_product(jnp.sum)(jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="inexact leaves of the parameters"):
        hessian_product(jnp.sum)(jnp.ones(2), {"a": jnp.ones(2)})


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1), (1, 3), ()])
def test_a_direction_of_another_shape_is_refused(shape):
    """Each broadcasts against three parameters somewhere, or fails in JAX's words."""
    products = (
        hessian_product(lambda p: jnp.sum(p**2)),
        gauss_newton_product(lambda p: p, lambda outputs: jnp.sum(outputs**2)),
        fisher_product(lambda p: p),
    )
    for product in products:
        with pytest.raises(ValueError, match=r"a direction that is shaped like f32\[3\], got f32\[.*jax\.vmap"):
            product(jnp.ones(3), jnp.ones(shape))
