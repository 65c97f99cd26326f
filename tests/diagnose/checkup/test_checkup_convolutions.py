"""The loops of a check-up of a convolutional network hold the convolutions that XLA is fast at on a CPU."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from nablax.calculus import hessian_product, lanczos, spectral_density, top_eigenvalues
from nablax.diagnose import checkup

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2, 5, 5)), jnp.float32)
PARAMS = {
    "in": jnp.asarray(np.random.default_rng(1).normal(size=(32, 2, 3, 3)), jnp.float32),
    "out": jnp.asarray(np.random.default_rng(2).normal(size=(32, 32, 3, 3)), jnp.float32) / 17,
}


def loss(params, x):
    for kernel in (params["in"], params["out"]):
        x = jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
    return jnp.mean((x.mean((1, 2, 3)) - 1) ** 2)


FAST = {((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}


def layouts(found):
    return [tuple(equation.params["dimension_numbers"]) for equation in found]


def test_every_loop_of_a_checkup(monkeypatch, loop_convolutions):
    # Traced, not run; with the second program, of rates tried further.
    monkeypatch.setattr(jax, "device_get", lambda record: record)
    monkeypatch.setattr("nablax.diagnose._checkup._checkup._needs_a_rate", lambda record: True)

    def check(params, x, key):
        return checkup(loss, params, x, optimizer=optax.adam(1e-3), key=key)

    program = eqx.filter_make_jaxpr(check)(PARAMS, X, jax.random.key(0))[0]
    found = layouts(loop_convolutions(program))
    assert len(found) > 20 and set(found) == FAST


def test_every_loop_of_the_spectrum(loop_convolutions):
    def product(v):
        return hessian_product(loss)(PARAMS, v, X)

    def fixed(key):
        return top_eigenvalues(product, PARAMS, count=1, steps=4, key=key)

    def until(key):
        return top_eigenvalues(product, PARAMS, count=1, steps=4, tolerance=0.1, key=key)

    def tridiagonal(key):
        return lanczos(product, jax.tree.map(jnp.ones_like, PARAMS), steps=4)

    def density(key):
        return spectral_density(product, PARAMS, steps=4, probes=2, key=key)

    for function in (fixed, until, tridiagonal, density):
        found = layouts(loop_convolutions(eqx.filter_make_jaxpr(function)(jax.random.key(0))[0]))
        assert len(found) >= 5 and set(found) == FAST, function


def test_eigenvalues_are_those_of_the_dense_hessian(x64):
    params = {"in": PARAMS["in"][:2].astype(float), "out": PARAMS["out"][:2, :2].astype(float)}
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = jax.hessian(lambda vector: loss(unravel(vector), X.astype(float)))(flat)
    found = top_eigenvalues(
        lambda v: hessian_product(loss)(params, v, X.astype(float)), params, count=2, steps=40, key=jax.random.key(0)
    )
    np.testing.assert_allclose(found.values, jnp.linalg.eigvalsh(dense)[:-3:-1], rtol=1e-8)
