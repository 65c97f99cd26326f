"""Entropy-SGD: the gradient of the local entropy where that is known, a walk by hand, and which batches it is of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(3, 3))
MATRIX = MATRIX @ MATRIX.T + np.eye(3)
START = np.array([1.0, -2.0, 0.5])


def of(matrix):
    return lambda at: (at @ matrix @ at / 2, matrix @ at)


def stepped(rule, x, grad_fn, **given):
    return rule.update(grad_fn(x)[1], rule.init(x), x, grad_fn=grad_fn, **given)[0]


def test_a_long_walk_gives_the_gradient_of_a_quadratics_local_entropy(x64):
    """γ H (H + γ)⁻¹ x at any γ, with and without momentum."""
    x = jnp.asarray(START)
    for gamma, momentum in ((0.5, 0.9), (3.0, 0.0)):
        rule = optimize.scale_by_local_entropy(gamma, steps=2000, step_size=0.05, noise=0.0, momentum=momentum, key=KEY)
        found = gamma * stepped(rule, x, of(MATRIX))
        expected = gamma * MATRIX @ np.linalg.solve(MATRIX + gamma * np.eye(3), START)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_walk_by_hand(x64):
    """The pull is to where the walk began, γ grows by the step's number, and the mean begins there too."""
    gamma, rate, beta, alpha, grows = 0.7, 0.1, 0.6, 0.75, 0.5
    rule = optimize.scale_by_local_entropy(
        gamma, steps=3, step_size=rate, noise=0.0, momentum=beta, average=alpha, scoping=grows, key=KEY
    )
    x, state = START.copy(), rule.init(jnp.asarray(START))
    for step in range(3):
        update, state = rule.update(jnp.asarray(MATRIX @ x), state, jnp.asarray(x), grad_fn=of(MATRIX))
        y, velocity, mean = x.copy(), 0 * x, x.copy()
        for _ in range(3):
            drift = MATRIX @ y + gamma * (1 + grows) ** step * (y - x)
            velocity = beta * velocity + drift
            y = y - rate * (drift + beta * velocity)
            mean = alpha * mean + (1 - alpha) * y
        np.testing.assert_allclose(update, x - mean, rtol=1e-12)
        x = x - np.asarray(update)


def test_the_noise_is_that_of_langevins_walk_at_temperature_epsilon_squared(x64):
    """After one step the variance is 2 η′ ε²; of a long walk it is near ε² / (H + γ), the spread of the integral."""
    wide, rate, noise = jnp.zeros(20_000), 0.05, 0.3
    settings = {"step_size": rate, "noise": noise, "momentum": 0.0, "average": 0.0}
    for steps, variance in ((1, 2 * rate * noise**2), (200, noise**2 / (3 * (1 - rate * 3 / 2)))):
        rule = optimize.scale_by_local_entropy(1.0, steps=steps, key=KEY, **settings)
        update = stepped(rule, wide, lambda at: (jnp.sum(at**2), 2 * at))
        np.testing.assert_allclose(np.var(update), variance, rtol=0.04)  # 4 standard errors
        assert abs(np.mean(update)) < 5 * np.sqrt(variance / 20_000)


def test_draws_differ_by_step_and_by_place():
    rule, x = optimize.scale_by_local_entropy(steps=2, noise=1.0, key=KEY), {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    first, state = rule.update(x, rule.init(x), x, grad_fn=lambda at: (0.0, x))
    second, _ = rule.update(x, state, x, grad_fn=lambda at: (0.0, x))
    draws = np.stack([first["a"], first["b"], second["a"], second["b"]])
    assert np.min(np.abs(draws[:, None] - draws[None])[~np.eye(4, dtype=bool)]) > 1e-6


def test_each_step_of_the_walk_has_a_batch_of_its_own_where_they_come(x64):
    """The first gradient is the one that came; the order of the others counts."""
    matrices = RANDOM.normal(size=(4, 3, 3))
    matrices = matrices @ matrices.transpose(0, 2, 1)
    rule = optimize.scale_by_local_entropy(
        0.3,
        steps=4,
        noise=0.0,
        momentum=0.5,
        batch_value_and_grad=lambda at, batch: (0.0, batch["matrix"] @ at),
        key=KEY,
    )
    x = jnp.asarray(START)
    given = {"inputs": {"matrix": jnp.asarray(matrices[1:])}}
    update, _ = rule.update(matrices[0] @ x, rule.init(x), x, **given)
    y, velocity, mean = START.copy(), 0 * START, START.copy()
    for matrix in matrices:
        drift = matrix @ y + 0.3 * (y - START)
        velocity = 0.5 * velocity + drift
        y = y - 0.1 * (drift + 0.5 * velocity)
        mean = 0.75 * mean + 0.25 * y
    np.testing.assert_allclose(update, START - mean, rtol=1e-12)


def test_a_step_takes_as_many_gradients_as_its_walk_has_steps():
    calls = []

    def grad_fn(at):
        jax.debug.callback(lambda: calls.append(1))
        return 0.0, at

    x = jnp.ones(2)
    for steps in (1, 5):
        calls.clear()
        rule = optimize.entropy_sgd(steps=steps, key=KEY)
        rule.update(x, rule.init(x), x, grad_fn=grad_fn)  # the gradient that comes is one of them
        jax.effects_barrier()
        assert len(calls) == steps - 1


def test_at_rate_one_the_weights_become_the_mean():
    """In half precision too, in which the walk itself is not made."""
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.asarray(START, dtype)
        optimizer = optimize.entropy_sgd(1.0, 1.0, steps=300, noise=0.0, step_size=0.05, key=KEY)
        moved = optax.apply_updates(x, stepped(optimizer, x, of(jnp.eye(3, dtype=dtype))))
        assert moved.dtype == dtype
        np.testing.assert_allclose(moved.astype(jnp.float32), START / 2, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.entropy_sgd(key=3), "key: a random key"),
        (lambda: optimize.entropy_sgd(steps=0, key=KEY), "steps as a whole number, at least 1"),
        (lambda: optimize.entropy_sgd(gamma=-1.0, key=KEY), "gamma of 0 or more"),
        (lambda: optimize.entropy_sgd(average=1.0, key=KEY), "average from 0 to below 1"),
        (lambda: optimize.entropy_sgd(-1.0, key=KEY), "learning_rate of 0 or more"),
        (
            lambda: optimize.entropy_sgd(batch_value_and_grad=lambda at: at, key=KEY),
            "batch_value_and_grad of 2 arguments",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_batches_are_as_many_as_the_walk_needs():
    rule = optimize.entropy_sgd(steps=4, batch_value_and_grad=lambda at, batch: (0.0, batch), key=KEY)
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="batches as inputs with leading axis 3"):
        rule.update(x, rule.init(x), x, inputs=jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="inputs="):
        rule.update(x, rule.init(x), x, grad_fn=lambda at: (0.0, at))
