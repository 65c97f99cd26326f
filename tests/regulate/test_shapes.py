"""Gradients, parameters and values that do not belong together are refused, where they would broadcast too."""

import jax
import jax.numpy as jnp
import pytest

from nablax import regulate

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
NARROW = {"w": jnp.ones((1, 3)), "b": jnp.ones(1)}


def test_a_loss_is_one_number_where_its_sign_is_asked():
    regulator = regulate.flooding(0.1)
    for value in (jnp.ones(3), jnp.ones((1,)), [0.5]):
        with pytest.raises(ValueError, match=r"a value of shape \[\], got"):
            regulator.update(jnp.ones(3), regulator.init(None), value=value)
    assert regulator.update(jnp.ones(3), regulator.init(None), value=0.05)[0].tolist() == [-1.0] * 3


def test_gradients_of_other_parameters_are_refused():
    regulator = regulate.gradient_norm(0.1, 0.01)
    with pytest.raises(ValueError, match=r"a gradient that is shaped like .*f32\[2,3\].*got .*f32\[1,3\]"):
        regulator.update(NARROW, regulator.init(PARAMS), PARAMS, grad_fn=lambda p: p)
    with pytest.raises(ValueError, match=r"a grad_fn whose value is shaped like .*got .*f32\[1,3\]"):
        regulator.update(PARAMS, regulator.init(PARAMS), PARAMS, grad_fn=lambda p: NARROW)


def test_a_guard_needs_the_gradients_of_its_updates():
    link = regulate.guard()
    for gradients in (
        jax.tree.map(lambda x: jnp.stack([x, x]), NARROW),
        {"w": jnp.ones((2, 2, 3))},
        {"w": jnp.ones((2, 6)), "b": jnp.ones((2, 3))},
    ):
        with pytest.raises(ValueError, match="an update that is shaped like"):
            link.update(PARAMS, link.init(PARAMS), gradients=gradients)


def test_draws_of_items_are_counted_and_keyed():
    state = regulate.importance_sampling(5).init(jnp.zeros(1))
    for count in (0, -1, 2.0):
        with pytest.raises(ValueError, match="count as a whole number, at least 1"):
            regulate.importance_draw(state, count, key=jax.random.key(0))
    with pytest.raises(ValueError, match="a random key"):
        regulate.importance_draw(state, 3, key=0)
