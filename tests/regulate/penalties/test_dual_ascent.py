import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import dual_ascent, multi_value_and_grad

GOAL = jnp.array([3.0, 1.0, -2.0])
NORMAL = jnp.array([1.0, 2.0, 2.0])


def losses(w):
    """Distance to a goal, one plane that is in the way and one that is not."""
    return jnp.array([0.5 * jnp.sum((w - GOAL) ** 2), NORMAL @ w, w[1]])


def test_it_ends_at_the_multipliers_and_the_point_of_the_conditions_of_kuhn_and_tucker(x64):
    levels = jnp.array([-2.0, 5.0])
    aggregator = dual_ascent(0.05, levels)

    def step(carry, _):
        w, state = carry
        values, grads = multi_value_and_grad(losses)(w)
        updates, state = aggregator.update(grads, state, w, values=values)
        return (w - 0.1 * updates, state), None

    start = jnp.zeros(3)
    (w, state), _ = jax.lax.scan(step, (start, aggregator.init(start)), None, length=2000)
    # The projection on the plane: GOAL - λ NORMAL with NORMAL · w = -2.
    multiplier = (NORMAL @ GOAL - levels[0]) / (NORMAL @ NORMAL)
    np.testing.assert_allclose(w, GOAL - multiplier * NORMAL, rtol=1e-9)
    np.testing.assert_allclose(state.multipliers, [multiplier, 0], rtol=1e-9)
    np.testing.assert_allclose(state.violation, [0, w[1] - 5], atol=1e-9)


def test_an_equal_step_is_the_gradient_of_the_lagrangian():
    aggregator = dual_ascent(0.5, jnp.array([0.0, 0.0]))
    w = jnp.array([1.0, 1.0, 1.0])
    values, grads = multi_value_and_grad(losses)(w)
    state = aggregator.init(w)
    _, state = aggregator.update(grads, state, values=values)
    np.testing.assert_allclose(state.multipliers, [2.5, 0.5])
    updates, _ = aggregator.update(grads, state, values=values)
    np.testing.assert_allclose(updates, jax.grad(lambda w: losses(w) @ jnp.array([1, 2.5, 0.5]))(w), rtol=1e-6)


def test_faults():
    aggregator = dual_ascent(0.5, jnp.array([0.0, 0.0]))
    state = aggregator.init(GOAL)
    with pytest.raises(ValueError, match="values"):
        aggregator.update(jnp.eye(3), state)
    with pytest.raises(ValueError, match="3 gradients"):
        aggregator.update(jnp.eye(3)[:2], state, values=jnp.ones(2))
