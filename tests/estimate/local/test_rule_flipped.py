"""Flipped units: the stability of solutions by eigenvalues, the curl, and the gradient where none is flipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import calculus, estimate

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def student(inputs, hidden, flips, key):
    """Weights that solve a linear task, signs of presynaptic units, and what decides on stability there."""
    keys = jax.random.split(key, 4)
    wide = jax.random.normal(keys[0], (hidden, inputs)) / jnp.sqrt(inputs)
    out = jax.random.normal(keys[1], (hidden,)) / jnp.sqrt(hidden)
    dx = jnp.where(jax.random.uniform(keys[2], (inputs,)) < flips[0], -1.0, 1.0)
    dh = jnp.where(jax.random.uniform(keys[3], (hidden,)) < flips[1], -1.0, 1.0)
    matrix = (out @ out) * jnp.diag(dx) + wide.T @ (dh[:, None] * wide)
    signs = {"in": jnp.broadcast_to(dx, wide.shape), "out": dh}
    return {"in": wide, "out": out}, signs, out @ wide, matrix


def loss(params, target):
    return 0.5 * jnp.sum((params["out"] @ params["in"] - target) ** 2)


@pytest.mark.parametrize(("sizes", "flips"), [((6, 20), (0.5, 0.0)), ((20, 6), (0.0, 0.5)), ((9, 9), (0.3, 0.3))])
def test_near_a_solution_errors_grow_by_the_matrix_that_decides_on_stability(sizes, flips):
    params, signs, target, matrix = student(*sizes, flips, KEY)

    def missed(params):
        return params["out"] @ params["in"] - target

    def moved(params):
        return jax.tree.map(jnp.negative, estimate.rule_flipped(loss, signs)(params, target)[1])

    @jax.jit
    def rates(direction):
        error = jax.jvp(missed, (params,), (direction,))[1]
        speed = jax.jvp(moved, (params,), (direction,))[1]
        return jax.jvp(missed, (params,), (speed,))[1], -matrix @ error

    for key in jax.random.split(KEY, 3):
        found, expected = rates(jax.tree.map(lambda p, key=key: jax.random.normal(key, p.shape), params))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
    assert float(jnp.min(jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(signs)]))) == -1


def test_fixed_points_are_the_gradients_and_the_field_has_a_curl_only_with_both_signs():
    params, signs, target, _ = student(4, 6, (0.5, 0.5), KEY)
    close = jax.tree.map(lambda p: p + 0.1, params)

    def antisymmetric(signs):
        def field(t, params, args):
            return estimate.rule_flipped(loss, signs)(params, target)[1]

        return float(jax.jit(lambda y: calculus.antisymmetry(field)(0.0, y, None, key=KEY).ratio.value)(close))

    assert float(loss(params, target)) == 0 and not np.any(estimate.rule_flipped(loss, signs)(params, target)[1]["in"])
    ones = jax.tree.map(jnp.ones_like, signs)
    assert antisymmetric(signs) > 0.01
    assert antisymmetric(ones) < 1e-12 and antisymmetric(jax.tree.map(jnp.negative, ones)) < 1e-12


def test_signs_are_multiplied_on_and_ones_change_nothing():
    params, signs, target, _ = student(4, 6, (0.5, 0.5), KEY)
    target = target + 1
    value, grads = jax.value_and_grad(loss)(params, target)
    found = jax.jit(estimate.rule_flipped(loss, signs))(params, target)
    assert float(found[0]) == float(value)
    jax.tree.map(lambda f, g, s: np.testing.assert_allclose(f, s * g, rtol=1e-12), found[1], grads, signs)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.rule_flipped(3, jnp.ones(2)), "a function"),
        (lambda: estimate.rule_flipped(jnp.sum, jnp.array([1.0, 0.5])), "1 or −1"),
        (lambda: estimate.rule_flipped(jnp.sum, jnp.ones(2))(jnp.ones(3)), "broadcast_to"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
