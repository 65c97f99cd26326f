"""Gradient skipping: what it computes, what it never computes, and that it works."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.spaces import Euclidean
from nablax.transport import (
    AbstractPath,
    Bounds,
    Cosine,
    Empirical,
    Linear,
    Normal,
    Transport,
    posterior_guidance,
    steer,
)

from ..gaussian_mixtures import transport_to


@jax.custom_vjp
def forward_only(y):
    return -y


def _refuse(*_):
    raise AssertionError("a gradient went through the field")


forward_only.defvjp(_refuse, _refuse)


class Bent(AbstractPath):
    times = (0.0, 1.0)

    def interpolate(self, t, x0, x1):
        return x0 + t * (x1 - x0) + jnp.sin(jnp.pi * t) * jnp.square(x1)

    def target(self, t, x0, x1):
        return x1 - x0 + jnp.pi * jnp.cos(jnp.pi * t) * jnp.square(x1)


def squared(target):
    return lambda x, args: 0.5 * jnp.sum(jnp.square(x - target))


def test_no_gradient_through_the_field_and_one_evaluation_a_step(key):
    calls = []

    def field(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return forward_only(y)

    transport = Transport(field, Linear(), Normal((2,)), Euclidean((2,)))
    _, record = steer(transport, squared(1.0), 1, key=key, steps=17, inner_steps=3)
    jax.effects_barrier()
    assert len(calls) == record.evaluations == 17
    assert record.products == 0
    # The same criterion catches guidance that does differentiate the field.
    with pytest.raises(AssertionError, match="through the field"):
        posterior_guidance(transport, squared(1.0), 1, key=key, steps=2)


def test_two_steps_by_hand(key):
    def field(t, y, args):
        return jnp.sin(y) + args

    transport = Transport(field, Linear(), Normal((3,)), Euclidean((3,)))
    args = jax.random.normal(jax.random.key(3), (4, 3))
    ours, record = steer(transport, squared(2.0), 4, key=key, steps=2, rate=0.3, inner_steps=2, args=args)
    y = jax.vmap(transport.prior.sample)(jax.random.split(key, 4))
    velocity = jnp.sin(y) + args
    end = y + velocity
    np.testing.assert_allclose(record.cost[0], 0.5 * jnp.sum((end - 2) ** 2, axis=1), rtol=1e-5)
    # Two gradient steps on the quadratic shrink the gap by 0.7² = 0.49: the shift is -0.51 of it.
    y = y - 0.51 * (end - 2) + 0.5 * velocity
    y = y + 0.5 * (jnp.sin(y) + args)  # the last step is not corrected
    np.testing.assert_allclose(ours, y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(record.final_cost, 0.5 * jnp.sum((y - 2) ** 2, axis=1), rtol=1e-5)


def test_rate_zero_is_the_flow_and_rate_may_follow_time(key):
    transport = transport_to(np.ones(1), np.zeros((1, 2)), np.eye(2)[None] * 0.3)
    exact = np.sqrt(0.3) * jax.vmap(transport.prior.sample)(jax.random.split(key, 64))  # the flow of a normal
    plain, _ = steer(transport, squared(9.0), 64, key=key, steps=400, rate=0.0)
    np.testing.assert_allclose(plain, exact, atol=0.02)
    early, _ = steer(transport, squared(1.0), 64, key=key, rate=lambda t: jnp.where(t < 0.2, 0.1, 0.0))
    always, _ = steer(transport, squared(1.0), 64, key=key, rate=0.1)
    gap = [float(jnp.mean(jnp.square(x - 1.0))) for x in (plain, early, always)]
    assert gap[2] < 0.5 * gap[1] and gap[1] < 0.9 * gap[0]


@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_cost_falls_on_any_path(key, path):
    # Data N(0, 1/4): its exact velocity on an affine path.
    def velocity(t, y, args):
        a, b, da, db = path.coefficients(t)
        return (a * da / 4 + b * db) / (a**2 / 4 + b**2) * y

    transport = Transport(velocity, path, Normal((2,)), Euclidean((2,)))
    cost = squared(1.0)
    plain = 2 * 0.5 * (1 + 0.25)  # two components, (0 - 1)² + 1/4 each
    _, record = steer(transport, cost, 500, key=key, steps=50, rate=0.5)
    assert float(jnp.mean(record.final_cost)) < 0.02 * plain
    assert record.cost[0].mean() > 10 * record.final_cost.mean()
    assert "cost at the first step" in record.table()


def test_a_hard_constraint_is_satisfied(key):
    mixture = (np.array([0.6, 0.4]), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.stack([0.1 * np.eye(2)] * 2))
    transport = transport_to(*mixture)
    above = Bounds(lower=jnp.array([1.0, -jnp.inf]))
    plain, _ = steer(transport, above, 1000, key=key, rate=0.0)
    samples, _ = steer(transport, above, 1000, key=key)
    assert above.satisfied(plain).mean() < 0.35
    assert above.satisfied(samples).mean() > 0.99
    # Not the truncated distribution, yet near it: mean 1.25 and deviation 0.19.
    assert abs(float(samples[:, 0].mean()) - 1.25) < 0.15
    # Corrections that pile up overshoot: the reason for the default rate.
    wound_up, _ = steer(transport, above, 1000, key=key, rate=1.0)
    assert float(wound_up[:, 0].mean()) > 2.5
    # The other component is left alone.
    assert abs(float(samples[:, 1].std()) - np.sqrt(0.1)) < 0.05


def test_a_path_that_is_not_affine_has_no_predicted_ends(key):
    transport = Transport(lambda t, y, args: -y, Bent(), Normal((2,)), Euclidean((2,)))
    with pytest.raises(ValueError, match="an affine path, for the predicted ends"):
        steer(transport, squared(0.0), 5, key=key, steps=4)


def test_any_coupling_will_do(key):
    transport = Transport(
        lambda t, y, args: -y, Linear(), Empirical(jnp.ones((3, 2))), Euclidean((2,)), "velocity", False
    )
    samples, _ = steer(transport, squared(0.0), 5, key=key, steps=4)
    assert samples.shape == (5, 2)


def test_faults(key):
    transport = transport_to(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    with pytest.raises(ValueError, match="inner_steps as a whole number, at least 1"):
        steer(transport, squared(0.0), 2, key=key, inner_steps=0)
    with pytest.raises(ValueError, match="steps as a whole number, at least 1"):
        posterior_guidance(transport, squared(0.0), 2, key=key, steps=0)
    with pytest.raises(ValueError, match="lower or an upper"):
        Bounds()
    for bounds in ({"lower": float("nan")}, {"lower": 0.0, "upper": jnp.array([1.0, jnp.nan])}):
        with pytest.raises(ValueError, match=r"(lower|upper) without NaN.*Infinity leaves a component free"):
            Bounds(**bounds)
    for lower, upper in ((1.0, 0.0), (jnp.array([0.0, 2.0]), 1.0), (jnp.inf, -jnp.inf)):
        with pytest.raises(ValueError, match=r"expected lower ≤ upper, got .*swapped"):
            Bounds(lower, upper)
    with pytest.raises(ValueError, match=r"two bounds of one shape, got \(2,\) and \(1,\)"):
        Bounds(jnp.zeros(2), jnp.ones(1))
    assert float(Bounds(jnp.zeros(2), jnp.zeros(2), margin=0.0)(jnp.zeros(2))) == 0.0  # a box of one point
    with pytest.raises(ValueError, match="margin ≥ 0"):
        Bounds(0.0, margin=float("nan"))
