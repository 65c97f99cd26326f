import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import Unrolled, unrolled_value_and_grad, vanishing_gradient

KEYS = jax.random.split(jax.random.key(0), 6)
T, B, D = 6, 3, 4


def step(params, state, inputs):
    return jnp.tanh(state) @ params["recurrent"] + inputs @ params["in"] + params["bias"][None]


def loss(params, states, goal):
    return jnp.mean(jnp.square(states[-1] - goal)) + jnp.mean(jnp.sin(states[2]))


def problem():
    params = {
        "recurrent": jax.random.normal(KEYS[0], (D, D)) / 3,
        "in": jax.random.normal(KEYS[1], (2, D)),
        "bias": jax.random.normal(KEYS[2], (D,)),
    }
    return params, jnp.zeros((B, D)), jax.random.normal(KEYS[3], (T, B, 2)), jax.random.normal(KEYS[4], (B, D))


def test_value_gradient_states_and_cotangents(x64):
    params, start, inputs, goal = problem()

    def unrolled_loss(params, shifts):
        states, state = [], start
        for x, shift in zip(inputs, shifts):
            state = step(params, state, x) + shift
            states.append(state)
        return loss(params, jnp.stack(states), goal), jnp.stack(states)

    shifts = jnp.zeros((T, B, D))
    derivative = jax.jit(jax.value_and_grad(unrolled_loss, (0, 1), has_aux=True))
    (value, states), (grads, cotangents) = derivative(params, shifts)
    ours = jax.jit(unrolled_value_and_grad(step, loss))(params, start, inputs, goal)
    np.testing.assert_allclose(ours[0], value, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours[1], grads)
    np.testing.assert_allclose(ours[2].cotangents, cotangents, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(ours[2].states[1:], states[:-1], rtol=1e-9)


def test_omega_and_its_immediate_gradient(x64):
    """Against the closed form for tanh(x) W, states and errors held; only the recurrent matrix gets a gradient."""
    params, start, inputs, goal = problem()
    _, grads, unrolled = jax.jit(unrolled_value_and_grad(step, loss))(params, start, inputs, goal)

    def omega(recurrent):
        back = jnp.einsum("tbi,ji->tbj", unrolled.cotangents, recurrent) * (1 - jnp.tanh(unrolled.states) ** 2)
        ratio = jnp.linalg.norm(back, axis=-1) / jnp.linalg.norm(unrolled.cotangents, axis=-1)
        return jnp.mean((ratio - 1) ** 2)

    regulator = vanishing_gradient(step, 0.7)
    updates, state = jax.jit(
        lambda g: regulator.update(g, regulator.init(params), params, unrolled=unrolled, unknown=1)
    )(grads)
    value, slope = jax.jit(jax.value_and_grad(omega))(params["recurrent"])
    np.testing.assert_allclose(state.omega, value, rtol=1e-10)
    assert float(state.share) == 1
    np.testing.assert_allclose(updates["recurrent"] - grads["recurrent"], 0.7 * slope, rtol=1e-8, atol=1e-12)
    for name in ("in", "bias"):
        np.testing.assert_array_equal(updates[name], grads[name])


def test_an_orthogonal_step_costs_nothing_and_descent_reaches_one():
    linear = lambda w, h, x: h @ w + x  # noqa: E731
    rotation = jnp.linalg.qr(jax.random.normal(KEYS[5], (D, D)))[0]
    seeds = jax.random.normal(KEYS[4], (T, B, D))
    unrolled = Unrolled(jnp.zeros((T, B, D)), jnp.zeros((T, B, D)), seeds)
    regulator = vanishing_gradient(linear, 1.0)
    zeros = jnp.zeros((D, D))
    updates, state = regulator.update(zeros, regulator.init(zeros), rotation, unrolled=unrolled)
    assert float(state.omega) < 1e-10
    np.testing.assert_allclose(updates, 0, atol=1e-5)

    def descend(w, _):
        step, state = regulator.update(zeros, regulator.init(zeros), w, unrolled=unrolled)
        return w - 0.3 * step, state.omega

    _, omegas = jax.jit(lambda: jax.lax.scan(descend, 0.1 * rotation, None, length=100))()
    assert float(omegas[0]) == pytest.approx(0.81, rel=1e-3) and float(omegas[-1]) < 0.01 * float(omegas[0])


def test_the_errors_size_does_not_matter_and_vanished_ones_are_left_out():
    params, start, inputs, goal = problem()
    _, grads, unrolled = jax.jit(unrolled_value_and_grad(step, loss))(params, start, inputs, goal)
    regulator = vanishing_gradient(step, 1.0)

    @jax.jit
    def regulated(cotangents):
        return regulator.update(
            grads, regulator.init(params), params, unrolled=unrolled._replace(cotangents=cotangents)
        )

    unit, _ = regulated(unrolled.cotangents)
    for size in (1e-30, 1e-15, 1e15, 1e30):
        other, _ = regulated(size * unrolled.cotangents)
        np.testing.assert_allclose(other["recurrent"], unit["recurrent"], rtol=1e-4, atol=1e-6)
    updates, state = regulated(unrolled.cotangents.at[:3].set(0))
    assert float(state.share) == 0.5 and all(bool(jnp.isfinite(leaf).all()) for leaf in updates.values())
    high = vanishing_gradient(step, 1.0, threshold=1e9)
    updates, state = jax.jit(lambda: high.update(grads, state, params, unrolled=unrolled))()
    assert float(state.share) == 0
    np.testing.assert_array_equal(updates["recurrent"], grads["recurrent"])


def test_faults():
    with pytest.raises(ValueError, match="threshold"):
        vanishing_gradient(step, 1.0, threshold=-1)
    regulator = vanishing_gradient(step, 1.0)
    params = problem()[0]
    with pytest.raises(ValueError, match="unrolled"):
        regulator.update(params, regulator.init(params), params)
