"""Stochastic model building against the solution of its model's system, its hand trajectory, and plain descent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import follow, optimize


def test_the_hand_trajectory(x64):
    scale = jnp.array([1.0, 10.0])
    optimizer = optimize.smb(0.5, c=0.1, eta=0.99)
    step = jax.jit(follow.train_step(lambda w, _: jnp.sum(scale * w**2) / 2, optimizer))
    w, path = jnp.full(2, 0.5), []
    state = optimizer.init(w)
    for _ in range(3):
        w, state, _ = step(w, state, None)
        path.append(w)
        assert state.built
    expected = [[0.3761359590, 0.2774648777], [0.2829562004, 0.1560673350], [0.2128593514, 0.0898080639]]
    np.testing.assert_allclose(path, expected, atol=1e-10)


def test_a_failed_trial_takes_the_solution_of_the_model_of_each_array(x64):
    random = np.random.default_rng(0)
    shapes = {"a": (2, 3), "b": (4,), "scalar": (), "empty": (0,)}
    g, h, w = ({k: jnp.asarray(random.normal(size=s)) for k, s in shapes.items()} for _ in range(3))
    rate, eta = 0.7, 0.9
    rule = optimize.smb(rate, eta=eta)
    trial = {k: w[k] - rate * g[k] for k in shapes}

    def grad_fn(at):
        # It is h only where it is asked for.
        return jnp.asarray(5.0), {k: h[k] + 10.0 * (at[k] - trial[k]) for k in shapes}

    update, state = rule.update(g, rule.init(w), w, value=jnp.asarray(1.0), grad_fn=grad_fn)
    assert state.built
    for name in ("a", "b", "scalar"):
        old = np.asarray(g[name]).ravel()
        s, y = -rate * old, np.asarray(h[name]).ravel() - old
        sigma = (np.linalg.norm(s) * (np.linalg.norm(y) + np.linalg.norm(old) / eta) - y @ s) / 2
        matrix = 2 * sigma * np.eye(len(s)) + np.outer(s, y) + np.outer(y, s)
        expected = -(s @ s) * np.linalg.solve(matrix, old)
        np.testing.assert_allclose(np.ravel(update[name]), expected, rtol=1e-9)
        assert np.linalg.norm(expected) <= np.linalg.norm(s) * (1 + 1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e15])
def test_the_model_step_is_of_the_size_of_its_gradients(size):
    g, h = jnp.array([1.0, -2.0, 0.5]), jnp.array([-3.0, 1.0, 2.0])
    rule = optimize.smb(0.1)

    def built(scale):
        found, _ = rule.update(scale * g, rule.init(g), g, value=0.0, grad_fn=lambda w: (jnp.inf, scale * h))
        return found / scale

    np.testing.assert_allclose(built(size), built(1.0), rtol=1e-5)


def test_where_every_trial_will_do_it_is_descent():
    batch = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)), jnp.float32)

    def loss(w, rows):
        return jnp.mean(jnp.logaddexp(0, rows @ w))

    paths = []
    for optimizer in (
        optimize.smb(optax.linear_schedule(0.1, 0.0, 10)),
        optax.sgd(optax.linear_schedule(0.1, 0.0, 10)),
    ):
        step = follow.train_step(loss, optimizer)
        w = jnp.ones(3)
        state = optimizer.init(w)
        for _ in range(3):
            w, state, _ = step(w, state, batch)
        paths.append(w)
    np.testing.assert_allclose(*paths, rtol=1e-6)


def test_a_trial_that_ends_nowhere_moves_nothing():
    rule, w = optimize.smb(1.0), jnp.ones(2)
    update, state = rule.update(w, rule.init(w), w, value=1.0, grad_fn=lambda w: (jnp.nan, jnp.full(2, jnp.nan)))
    assert not np.any(update) and state.built


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="eta below 1"):
        optimize.smb(eta=1.0)
    with pytest.raises(ValueError, match="c above 0"):
        optimize.smb(c=0.0)


@pytest.mark.parametrize(
    ("value", "grad_fn", "says"),
    [
        (jnp.ones(3), jax.value_and_grad(jnp.sum), "one loss as value of smb of shape.*got f32"),  # one for each number
        ("a", jax.value_and_grad(jnp.sum), "one loss as value of smb of shape.*got a str"),
        (1.0, lambda w: (w, w), "one loss as value of smb of shape.*got f32"),
        (1.0, jax.grad(jnp.sum), "a grad_fn that returns"),
        (1.0, lambda w: (jnp.sum(w), w[:1]), "a gradient that is shaped like f32"),
        (1.0, 3.0, "grad_fn, a function, got 3.0"),
    ],
)
def test_answers_that_would_be_broadcast_are_refused(value, grad_fn, says):
    rule, w = optimize.smb(1.0), jnp.ones(3)
    with pytest.raises(ValueError, match=says):
        rule.update(w, rule.init(w), w, value=value, grad_fn=grad_fn)


def test_an_eta_of_one_is_refused_whatever_holds_it():
    for one in (1.0, np.float32(1.0), jnp.array(1.0)):
        with pytest.raises(ValueError, match="eta below 1"):
            optimize.smb(eta=one)
