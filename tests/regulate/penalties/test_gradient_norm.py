import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.regulate import flooding, gradient_norm


def loss(tree):
    return jnp.sum(jnp.sin(tree["a"]) * tree["a"]) + jnp.prod(tree["b"]) * tree["a"][0]


TREE = {"a": jnp.array([0.3, -1.2, 0.8]), "b": jnp.array([1.5, 0.4])}


def regulated(weight, ascent, tree=TREE, function=loss):
    regulator, slope = gradient_norm(weight, ascent), jax.value_and_grad(function)
    return regulator.update(slope(tree)[1], regulator.init(tree), tree, grad_fn=slope, unknown=1)[0]


def test_a_quadratic_is_exact_at_any_ascent_both_ways(x64):
    hessian = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    point = jnp.array([0.7, -0.4])
    gradient = hessian @ point
    for ascent in (1e-3, 0.5, -0.5, 10.0):
        found = regulated(0.2, ascent, point, lambda w: w @ hessian @ w / 2)
        np.testing.assert_allclose(found, gradient + 0.2 * hessian @ gradient, rtol=1e-10)


def test_it_tends_to_the_penaltys_gradient_to_first_order(x64):
    tree = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), TREE)

    def penalised(tree):
        return loss(tree) + 0.3 / 2 * optax.tree.norm(jax.grad(loss)(tree), squared=True)

    exact = jax.grad(penalised)(tree)

    def error(ascent):
        found = regulated(0.3, ascent, tree)
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, found, exact)))

    np.testing.assert_allclose(error(1e-3) / error(1e-4), 10, rtol=0.05)
    assert error(1e-6) < 1e-5


def test_weight_equal_to_ascent_is_the_gradient_uphill():
    slope = jax.grad(loss)(TREE)
    uphill = jax.grad(loss)(jax.tree.map(lambda p, g: p + 0.1 * g, TREE, slope))
    for ours, theirs in zip(jax.tree.leaves(regulated(0.1, 0.1)), jax.tree.leaves(uphill)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_flooding_is_the_gradient_of_the_flooded_loss():
    for level in (-10.0, 10.0):
        regulator = flooding(level)
        updates, _ = regulator.update(jax.grad(loss)(TREE), regulator.init(TREE), value=loss(TREE), unknown=1)
        expected = jax.grad(lambda tree, level=level: jnp.abs(loss(tree) - level) + level)(TREE)
        for ours, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(expected)):
            np.testing.assert_allclose(ours, theirs)


def test_faults():
    with pytest.raises(ValueError, match="not zero"):
        gradient_norm(0.1, 0.0)
    for make, words in (
        (lambda: gradient_norm(-1.0, 0.1), "expected weight, a finite number at least 0, got -1"),
        (lambda: gradient_norm(0.1, jnp.nan), "expected ascent, a finite number, got nan"),
        (lambda: gradient_norm(0.1, "0.1"), r"expected ascent of shape \[\], got a str"),
        (lambda: flooding("a"), r"expected level of shape \[\], got a str"),
        (lambda: flooding(jnp.ones(2)), r"expected level of shape \[\], got f32\[2\]"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    with pytest.raises(ValueError, match=r"grad_fn=\.\.\. at the update of gradient_norm, got none"):
        gradient_norm(0.1, 0.1).update(TREE, optax.EmptyState(), TREE)
    with pytest.raises(ValueError, match=r"grad_fn\(params\) -> \(value, grads\), got"):
        gradient_norm(0.1, 0.1).update(TREE, optax.EmptyState(), TREE, grad_fn=jax.grad(loss))
    with pytest.raises(ValueError, match=r"value=\.\.\. at the update of flooding, got none. Pass value=loss"):
        flooding(0.1).update(TREE, optax.EmptyState())
