"""Gradients, parameters and values that do not belong together are refused, where they would broadcast too."""

import jax
import jax.numpy as jnp
import optax
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


def test_a_stack_is_known_without_the_parameters():
    """What `init` saw tells, compiled or not: no leading axis agrees by accident."""
    params = {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    for aggregator in (
        regulate.upgrad(),
        regulate.mean(),
        regulate.krum(faulty=0),
        regulate.pcgrad(key=jax.random.key(0)),
    ):
        state = aggregator.init(params)
        for update in (aggregator.update, jax.jit(aggregator.update)):
            with pytest.raises(ValueError, match=r"\['b'\] of shape \[objectives, \*\(3,\)\], got shape \(3,\)"):
                update(params, state)
            with pytest.raises(ValueError, match=r"\['b'\] of shape .*got shape \(\)"):
                update({"w": jnp.ones((3, 3)), "b": jnp.ones(())}, state)
    chain = optax.chain(regulate.upgrad(), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"multi_value_and_grad makes such stacks"):
        chain.update(params, chain.init(params))
    stack = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    assert chain.update(stack, chain.init(params))[0]["w"].shape == (3, 3)


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(), "MultiSteps"),
        (lambda inner: optax.apply_if_finite(inner, 5), "apply_if_finite"),
        (lambda inner: optax.conditionally_transform(inner, lambda step: step < 3), "conditionally_transform"),
    ],
)
def test_an_aggregator_stands_before_wrappers_and_not_in_them(wrap, name):
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    stack = jax.tree.map(lambda x: jnp.stack([x + 1, 2 * x]), params)
    inside = wrap(optax.chain(regulate.upgrad(), optax.adam(0.1)))
    for update in (inside.update, jax.jit(inside.update)):
        with pytest.raises(
            ValueError, match=rf"expected an aggregator before optax.{name}, got .*Write optax.chain\(aggre"
        ):
            update(stack, inside.init(params), params)
    before = optax.chain(regulate.upgrad(throw=False), wrap(optax.adam(0.1)))
    state = before.init(params)
    for _ in range(3):
        updates, state = jax.jit(before.update)(stack, state, params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize(
    "make",
    [
        lambda key: regulate.pcgrad(key=key),
        lambda key: regulate.gradvac(objectives=2, key=key),
        lambda key: regulate.graddrop(key=key),
        lambda key: regulate.pcgrad_weights(jnp.eye(2), key=key),
    ],
)
def test_a_seed_is_no_key_of_an_aggregator(make):
    for seed in (0, 1.0, jnp.arange(2)):
        with pytest.raises(ValueError, match=r"key: a random key, got .*Pass jax\.random\.key\(0\)"):
            make(seed)
