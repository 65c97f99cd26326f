"""Diffusion posterior sampling with a constant step, against the recursion that normal data make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.spaces import Euclidean
from nablax.transport import (
    Linear,
    Normal,
    Transport,
    VariancePreserving,
    constant_step_guidance,
    posterior_guidance,
)

SPREADS = np.array([1.5, 0.7, 0.2])
MATRIX = np.array([[1.0, -0.5, 2.0], [0.0, 1.0, 1.0]])
SEEN = np.array([0.8, -0.3])


def transport_of(path):
    """The flow to data N(0, diag(SPREADS²)), exactly."""

    def score(t, y, args):
        a, b, _, _ = path.coefficients(t)
        return -y / (a**2 * jnp.asarray(SPREADS, y.dtype) ** 2 + b**2)

    return Transport(score, path, Normal((3,)), Euclidean((3,)), "score")


def cost(x, args):
    return 0.5 * jnp.sum((jnp.asarray(MATRIX, x.dtype) @ x - jnp.asarray(SEEN, x.dtype)) ** 2)


@pytest.mark.parametrize("path", [Linear(margin=0.01), VariancePreserving()], ids=["linear", "vp"])
def test_each_step_is_the_flows_and_a_constant_one_down_the_residuals_norm(x64, path, key):
    steps, rate = 7, 0.3
    found, record = constant_step_guidance(transport_of(path), cost, 5, key=key, steps=steps, rate=rate)
    x = np.asarray(jax.vmap(Normal((3,)).sample)(jax.random.split(key, 5)), np.float64)
    times = np.linspace(*path.times, steps + 1)
    for place, (t, s) in enumerate(zip(times[:-1], times[1:])):
        (a, b), (a_next, b_next) = ([float(c) for c in path.coefficients(jnp.asarray(u))[:2]] for u in (t, s))
        total = a**2 * SPREADS**2 + b**2
        gain = a * SPREADS**2 / total  # of the denoiser, and so of its Jacobian
        ends, noise = gain * x, b / total * x
        residual = ends @ MATRIX.T - SEEN
        norms = np.linalg.norm(residual, axis=1, keepdims=True)
        np.testing.assert_allclose(record.cost[place], norms[:, 0] ** 2 / 2, rtol=1e-6)
        x = a_next * ends + b_next * noise - rate * gain * (residual @ MATRIX) / norms
    np.testing.assert_allclose(found, x, rtol=1e-6)
    assert record.products == record.evaluations == steps


def test_the_pull_does_not_weaken_towards_the_data(key):
    """What is asked for is met where guidance by a likelihood of that weight leaves half of it."""
    transport = transport_of(Linear(margin=0.01))
    _, constant = constant_step_guidance(transport, cost, 64, key=key, steps=100, rate=0.05)
    _, weighted = posterior_guidance(transport, cost, 64, key=key, steps=100)
    assert 10 * float(constant.final_cost.mean()) < float(weighted.final_cost.mean())


def test_nothing_left_of_the_residual_is_no_fault(key):
    transport = transport_of(Linear(margin=0.01))
    free, _ = constant_step_guidance(transport, lambda x, args: 0.0 * x[0], 4, key=key, steps=5)
    alone, _ = constant_step_guidance(transport, cost, 4, key=key, steps=5, rate=0.0)
    np.testing.assert_allclose(free, alone, rtol=1e-6)
    assert np.all(np.isfinite(free))


def test_faults(key):
    transport = transport_of(Linear(margin=0.01))
    with pytest.raises(ValueError, match="one number"):
        constant_step_guidance(transport, lambda x, args: x, 4, key=key)
    with pytest.raises(ValueError, match="a rate"):
        constant_step_guidance(transport, cost, 4, key=key, rate=jnp.ones(2))
    coupled = Transport(lambda t, y, args: -y, Linear(), Normal((3,)), Euclidean((3,)), independent=False)
    with pytest.raises(ValueError, match="paired independently"):
        constant_step_guidance(coupled, cost, 4, key=key)
