"""The average against its closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.fields import EMA


def test_closed_form_with_warm_up(x64):
    decay, values = 0.6, np.random.default_rng(0).normal(size=(20, 3))
    ema = EMA(decay)
    state = ema.init(jnp.zeros(3))
    for value in values:
        state = ema.update(state, jnp.asarray(value))
    decays = np.minimum(decay, (1 + np.arange(20)) / (10 + np.arange(20)))
    # The weight of value k is (1 - d_k) times the product of the later decays.
    weights = np.array([(1 - decays[k]) * np.prod(decays[k + 1 :]) for k in range(20)])
    np.testing.assert_allclose(state.average, weights @ values, rtol=1e-12)
    assert int(state.updates) == 20


def test_a_constant_is_its_own_average_and_other_leaves_are_the_newest():
    model = {"w": jnp.full(2, 3.0), "count": jnp.array(0), "name": "a", "half": jnp.ones(2, jnp.bfloat16)}
    ema = EMA(0.9)
    state = ema.init(model)
    for step in range(1, 5):
        state = ema.update(state, {**model, "count": jnp.array(step), "name": "b"})
    np.testing.assert_allclose(state.average["w"], 3.0, rtol=1e-6)
    assert int(state.average["count"]) == 4 and state.average["name"] == "b"
    assert state.average["half"].dtype == jnp.bfloat16


def test_init_copies():
    model = jnp.ones(3)
    state = EMA(0.9).init(model)
    jax.jit(lambda x: x + 1, donate_argnums=0)(model).block_until_ready()
    np.testing.assert_array_equal(state.average, 1.0)


def test_one_trace_and_module():
    traces = []
    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    ema = EMA(0.99)

    @eqx.filter_jit
    def update(state, model):
        traces.append(1)
        return ema.update(state, model)

    state = ema.init(model)
    for _ in range(3):
        state = update(state, model)
    assert len(traces) == 1
    np.testing.assert_allclose(state.average.weight, model.weight, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        {"w": jnp.ones(1), "n": 3},
        {"w": jnp.ones((2, 2)), "n": 3},
        {"w": jnp.ones(2, int), "n": 3},
        {"w": jnp.ones(2)},
        [jnp.ones(2), 3],
    ],
    ids=["one number", "matrix", "whole numbers", "a leaf less", "another tree"],
)
def test_another_model_is_refused(model):
    ema = EMA(0.9)
    state = ema.init({"w": jnp.ones(2), "n": 3})
    with pytest.raises(ValueError, match=r"expected a model that is shaped like .*, got .*init was given"):
        ema.update(state, model)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match=r"expected a decay in \[0, 1\)"):
        EMA(decay)


@pytest.mark.parametrize("decay", ["0.9", np.full(2, 0.9)], ids=["text", "vector"])
def test_a_decay_is_one_number(decay):
    with pytest.raises(ValueError, match=r"a decay of shape \[\], got"):
        EMA(decay)
