"""Saddle-free Newton against the matrix's own absolute value, and beside saddles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from nablax import follow, optimize


def indefinite(seed, dim):
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(dim, dim)))[0]
    values = np.geomspace(0.1, 10, dim) * np.where(np.arange(dim) % 3 == 0, -1, 1)
    return (turn * values) @ turn.T, values, turn, random.normal(size=dim)


def test_one_step_takes_positive_directions_to_zero_and_doubles_negative_ones(x64):
    matrix, values, turn, start = indefinite(0, 7)
    rule = optimize.saddle_free_newton(damping=0.0)
    w = jnp.asarray(start)
    update, state = rule.update(jnp.asarray(matrix @ start), rule.init(w), product_fn=lambda v: jnp.asarray(matrix) @ v)
    before, after = turn.T @ start, turn.T @ (start + np.asarray(update))
    np.testing.assert_allclose(after, np.where(values < 0, 2 * before, 0), atol=1e-11)
    np.testing.assert_allclose(state[0].lowest, values.min(), rtol=1e-10)


def test_a_damped_step_on_a_tree_in_few_dimensions_is_the_projected_one(x64):
    """Against the Krylov space by QR of powers, which a basis that had lost a part of the gradient would not match."""
    matrix, _, _, start = indefinite(1, 12)
    gradient = matrix @ start
    powers = [gradient]
    for _ in range(3):
        powers.append(matrix @ powers[-1])
    basis = np.linalg.qr(np.stack(powers, 1))[0]
    small, turn = np.linalg.eigh(basis.T @ matrix @ basis)
    expected = basis @ turn @ ((turn.T @ basis.T @ gradient) / (np.abs(small) + 0.3))
    tree = {"a": jnp.asarray(start[:6].reshape(2, 3)), "b": jnp.asarray(start[6:]), "c": None}
    flat, back = ravel_pytree(tree)
    rule = optimize.scale_by_saddle_free_newton(dimensions=4, damping=0.3)
    found, _ = rule.update(
        back(jnp.asarray(gradient)),
        rule.init(tree),
        product_fn=lambda v: back(jnp.asarray(matrix) @ ravel_pytree(v)[0]),
    )
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-8)


def test_of_several_dampings_the_one_of_the_lowest_loss_is_taken(x64):
    def value_fn(w):
        return jnp.sum(jnp.where(jnp.abs(w) > 5, jnp.nan, w**2 / 2 + w**4))

    w = jnp.array([1.0, 0.5])
    gradient, hessian = jax.grad(value_fn)(w), jax.hessian(value_fn)(w)
    grid = (0.0, 1.0, 4.0, 100.0)
    rule = optimize.scale_by_saddle_free_newton(damping=grid)
    found, state = rule.update(gradient, rule.init(w), w, value_fn=value_fn, product_fn=lambda v: hessian @ v)
    steps = [np.linalg.solve(hessian + one * np.eye(2), gradient) for one in grid]
    best = int(np.argmin([value_fn(w - step) for step in steps]))
    np.testing.assert_allclose(found, steps[best], rtol=1e-10)
    assert state.damping == grid[best]
    # Where only the shortest step lands on a number, or none does.
    for bad in (lambda w: jnp.where(jnp.abs(w[0] - 1) > 0.05, jnp.nan, w[0]), lambda w: w[0] * jnp.nan):
        _, state = rule.update(gradient, rule.init(w), w, value_fn=bad, product_fn=lambda v: hessian @ v)
        assert state.damping == 100.0


def test_it_leaves_the_saddle_that_newton_goes_to(x64):
    def loss(w, batch):
        return w[0] ** 2 / 2 - w[1] ** 2 / 2 + w[1] ** 4 / 4

    optimizer = optimize.saddle_free_newton()
    step = jax.jit(follow.train_step(loss, optimizer))
    w = newton = jnp.array([1.0, 1e-3])
    state = optimizer.init(w)
    for _ in range(20):
        w, state, _ = step(w, state, None)
        newton = newton - jnp.linalg.solve(jax.hessian(loss)(newton, None), jax.grad(loss)(newton, None))
    np.testing.assert_allclose(w, [0, 1], atol=1e-6)
    assert np.all(np.abs(newton) < 1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="damping of 0 or more"):
        optimize.saddle_free_newton(damping=(1.0, -1.0))
    with pytest.raises(ValueError, match="a damping, or several"):
        optimize.saddle_free_newton(damping=())
    with pytest.raises(ValueError, match="dimensions as a whole number"):
        optimize.saddle_free_newton(dimensions=0)


def test_a_loss_for_each_number_tells_no_damping_from_another():
    rule, w = optimize.scale_by_saddle_free_newton(), jnp.ones(3)
    with pytest.raises(ValueError, match=r"one loss as value of saddle_free_newton of shape.*got f32"):
        rule.update(w, rule.init(w), w, value_fn=lambda w: w, product_fn=lambda v: v)
