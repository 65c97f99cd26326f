"""Reflow: the pairs are the transport's, and the field learned on them is straighter with the same ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.fields import MLP
from nablax.follow import Solver, fit, flow
from nablax.spaces import Euclidean
from nablax.transport import Empirical, Linear, Normal, Transport, flow_matching, reflow

KEY = jax.random.key(0)


def widening(t, y, args):
    """The exact velocity from N(0, 1) to N(3, 4) paired independently: its flow is the increasing map 3 + 2x."""
    variance = (1 - t) ** 2 + 4 * t**2
    return 3 + (4 * t - (1 - t)) / variance * (y - 3 * t)


def test_pairs_are_the_flow_map():
    transport = Transport(widening, Linear(), Normal((2,)), Euclidean((2,)))
    pairs = reflow(transport, 300, key=KEY, solver=Solver(rtol=1e-6, atol=1e-6))
    np.testing.assert_allclose(pairs["data"], 3 + 2 * pairs["noise"], atol=1e-4)
    assert pairs["noise"].shape == (300, 2) and pairs["noise"].dtype == np.float32
    assert abs(pairs["noise"].mean()) < 0.15 and abs(pairs["noise"].std() - 1) < 0.1


def test_batches_make_no_difference_to_the_map_and_no_row_twice():
    transport = Transport(widening, Linear(), Normal((1,)), Euclidean((1,)))
    pairs = reflow(transport, 100, key=KEY, solver=Solver(steps=50), batch_size=32)
    assert pairs["noise"].shape == (100, 1)
    assert len(np.unique(pairs["noise"])) == 100
    whole = reflow(transport, 32, key=KEY, solver=Solver(steps=50))
    np.testing.assert_allclose(whole["noise"], pairs["noise"][:32])


def test_conditions_reach_their_own_pairs():
    def shift(t, y, args):
        return jnp.broadcast_to(args, y.shape)

    condition = jnp.arange(70.0)[:, None]
    transport = Transport(shift, Linear(), Normal((3,)), Euclidean((3,)))
    pairs = reflow(transport, 70, key=KEY, args=condition, solver=Solver(steps=2), batch_size=32)
    np.testing.assert_allclose(pairs["data"] - pairs["noise"], np.broadcast_to(condition, (70, 3)), atol=1e-4)
    assert pairs["condition"] is condition


def test_faults():
    transport = Transport(widening, Linear(), Normal((1,)), Euclidean((1,)))
    with pytest.raises(ValueError, match="count"):
        reflow(transport, 0, key=KEY)
    with pytest.raises(ValueError, match="leading axis"):
        reflow(transport, 5, key=KEY, args=jnp.zeros((4, 1)))


def learn(data, key, steps=600):
    done = fit(
        flow_matching(Linear()),
        MLP(1, width=48, depth=3, key=key),
        data,
        optimizer=optax.adam(3e-3),
        steps=steps,
        batch_size=256,
        key=key,
    )
    return Transport(done.model, Linear(), Empirical(data["noise"]), Euclidean((1,)), independent=False)


def one_step_error(transport):
    starts = jnp.linspace(-2, 2, 41)[:, None]

    def velocity(t, ys, args):
        return jax.vmap(transport.velocity, in_axes=(None, 0))(t, ys)

    ends = flow(velocity, starts, 0.0, 1.0, solver=Solver(steps=50)).ys
    return float(jnp.sqrt(jnp.mean((starts + velocity(0.0, starts, None) - ends) ** 2))), ends


def test_one_reflow_makes_one_euler_step_enough():
    """Two points to two points at random: paths cross, the first flow bends; the second does not."""
    keys = jax.random.split(KEY, 4)
    noise = jax.random.normal(keys[0], (4000, 1))
    data = jnp.where(jax.random.bernoulli(keys[1], 0.5, (4000, 1)), 3.0, -3.0) + 0.5 * jax.random.normal(
        keys[2], (4000, 1)
    )
    first = learn({"noise": noise, "data": data}, keys[3])
    pairs = reflow(first, 4000, key=keys[0], solver=Solver(steps=50))
    second = learn(pairs, keys[2])
    bent, before = one_step_error(first)
    straight, after = one_step_error(second)
    assert bent > 1.5  # from the first field, one step lands in the middle
    assert straight < 0.35 * bent
    # The map itself is kept, and with it the marginals.
    assert float(jnp.mean(jnp.abs(before - after))) < 0.4
