"""Descent by powers of the gradient's norm, and SPIDER: what they are equal to, and which batches a difference is of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

START = {"a": jnp.array([3.0, -1.0]), "b": jnp.array([[2.0]])}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_powers_between_descent_and_steps_of_one_length(x64):
    gradient = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), START)
    g = flat(gradient)
    for beta in (0.0, 1 / 3, 1.0, 1.5):
        rule = optimize.beta_normalised(0.1, beta)
        update, _ = rule.update(gradient, rule.init(gradient))
        np.testing.assert_allclose(flat(update), -0.1 * g / np.linalg.norm(g) ** beta, rtol=1e-12)


def test_on_a_fourth_power_the_distance_shrinks_by_one_factor_from_any_start(x64):
    rule, rate = optimize.beta_normalised(0.3), 0.3
    for start in (1e-3, 2.0, 1e4):
        x = jnp.asarray(start, jnp.float64)
        state = rule.init(x)
        for _ in range(3):
            update, state = rule.update(4 * x**3, state)
            x = x + update
        np.testing.assert_allclose(x / start, (1 - rate * 4 ** (1 / 3)) ** 3, rtol=1e-12)


def test_at_a_stationary_point_nothing_moves():
    for rule in (optimize.beta_normalised(0.1, 1.0), optimize.beta_normalised(0.1, 0.0)):
        update, state = rule.update(jnp.zeros(3), rule.init(jnp.zeros(3)))
        assert not np.any(update) and float(state[0].norm) == 0


MATRICES = np.random.default_rng(0).normal(size=(5, 3, 3))
MATRICES = MATRICES @ MATRICES.transpose(0, 2, 1)  # curvature of each batch


def path(rule, steps, batch_of):
    """Parameters and what the rule carries, on quadratics by batch; None is all of them."""

    def gradient(batch, at):
        return (np.mean(MATRICES, 0) if batch is None else MATRICES[batch]) @ at

    x = jnp.asarray([1.0, -2.0, 0.5], jnp.float64)
    state, points, carried = rule.init(x), [x], []
    for step in range(steps):
        batch = batch_of(step)
        extra = {"grad_fn": lambda at, batch=batch: (0.0, gradient(batch, at))}
        update, state = rule.update(gradient(batch, x), state, x, **extra)
        x = x + update
        points.append(x)
        carried.append(state[0].carried)
    return np.array(points), np.array(carried)


def test_spider_carries_differences_on_the_present_batch_and_renews_them(x64):
    batches = [None, 2, 4, None, 1, 3]
    x, carried = path(optimize.spider(0.05, every=3), 6, lambda step: batches[step])
    full = np.mean(MATRICES, 0)
    expected = full @ x[0]
    for step, batch in enumerate(batches):
        expected = full @ x[step] if batch is None else expected + MATRICES[batch] @ (x[step] - x[step - 1])
        np.testing.assert_allclose(carried[step], expected, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(np.diff(x, axis=0), axis=1), 0.05, rtol=1e-12)


def test_spider_on_all_rows_is_descent_however_seldom_it_is_renewed(x64):
    x, carried = path(optimize.spider(0.01, every=100, beta=0.0), 8, lambda step: None)
    np.testing.assert_allclose(carried, x[:-1] @ np.mean(MATRICES, 0).T, rtol=1e-10)
    descent = x[0]
    for _ in range(8):
        descent = descent - 0.01 * np.mean(MATRICES, 0) @ descent
    np.testing.assert_allclose(x[-1], descent, rtol=1e-10)


def test_spider_takes_no_second_gradient_where_it_is_renewed():
    calls = []

    def grad_fn(at):
        jax.debug.callback(lambda: calls.append(1))
        return 0.0, at

    rule, x = optimize.spider(0.1, every=2), jnp.ones(2)
    state = rule.init(x)
    for expected in (0, 1, 1, 2):
        update, state = rule.update(x, state, x, grad_fn=grad_fn)
        jax.effects_barrier()
        assert len(calls) == expected
        x = optax.apply_updates(x, update)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.beta_normalised(0.1, -1.0), "beta of 0 or more"),
        (lambda: optimize.spider(every=0), "every as a whole number, at least 1"),
        (lambda: optimize.spider(-0.1), "learning_rate of 0 or more"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
