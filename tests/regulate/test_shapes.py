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
        regulator.update(NARROW, regulator.init(PARAMS), PARAMS, grad_fn=lambda p: (1.0, p))
    with pytest.raises(ValueError, match=r"a grad_fn whose gradient is shaped like .*got .*f32\[1,3\]"):
        regulator.update(PARAMS, regulator.init(PARAMS), PARAMS, grad_fn=lambda p: (1.0, NARROW))


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


@pytest.mark.parametrize(
    "aggregator",
    [
        regulate.upgrad(),
        regulate.mgda(),
        regulate.cagrad(),
        regulate.conflict_free(),
        regulate.mean(),
        regulate.bloop(),
        regulate.graddrop(key=jax.random.key(0)),
        regulate.pcgrad(objectives=3, key=jax.random.key(0)),
        regulate.krum(faulty=0),
        regulate.trimmed_mean(1),
        regulate.sam_gs(objectives=3),
    ],
    ids=lambda a: a.update.__qualname__.partition(".")[0],
)
def test_one_gradient_is_no_stack_of_its_rows(aggregator):
    """As many rows as objectives, so that the result would be broadcast over the parameter."""
    params = {"w": jnp.ones((3, 3))}
    state = aggregator.init(params)
    with pytest.raises(ValueError, match=r"\['w'\] of shape \[objectives, \*\(3, 3\)\], got shape \(3, 3\)"):
        aggregator.update(params, state, params)
    with pytest.raises(ValueError, match="a parameter of this name"):
        aggregator.update({"v": jnp.ones((3, 3, 3))}, state, params)


def test_a_stack_may_leave_out_parameters_without_gradient():
    params = {"w": jnp.ones(2), "count": jnp.array(3)}
    link = regulate.mean()
    assert link.update({"w": jnp.ones((3, 2)), "count": None}, link.init(params), params)[0]["w"].shape == (2,)
