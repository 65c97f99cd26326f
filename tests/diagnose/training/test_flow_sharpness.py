import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from nablax.diagnose import flow_sharpness


def scalar_network(w):
    return 0.5 * (jnp.prod(w) - 1) ** 2


def closed_form(w):
    # The flow keeps every w_i² − w_j²; it ends where the product is one, with λ = Σ 1/w_i².
    w = np.asarray(w, np.float64)
    gaps = w**2 - np.min(w**2)
    least = brentq(lambda s: np.prod(s + gaps) - 1, 0, 10, xtol=1e-14)
    return np.sum(1 / (least + gaps))


def test_scalar_networks_have_a_closed_form(key):
    starts = jnp.array([[1.4, 0.6, 0.9], [2.0, 0.2, 1.1], [1.0, 1.5, 1.2], [0.6, 0.7, 3.0]])
    record = jax.jit(jax.vmap(lambda w: flow_sharpness(scalar_network, w, key=key)))(starts)
    np.testing.assert_allclose(record.solution_sharpness, [closed_form(w) for w in starts], rtol=2e-3)
    dense = [np.linalg.eigvalsh(jax.hessian(scalar_network)(w))[-1] for w in starts]
    np.testing.assert_allclose(record.sharpness, dense, rtol=1e-4)
    assert np.all(record.converged) and np.all(record.solution_loss < 1e-6)
    np.testing.assert_allclose(jnp.prod(record.solution, axis=1), 1, atol=1e-3)


def test_a_loss_without_a_minimum_is_said_not_to_converge(key):
    params = {"w": jnp.array([0.3, 0.1]), "name": "x"}
    record = flow_sharpness(lambda p: jnp.log1p(jnp.exp(-p["w"][0] - p["w"][1])), params, key=key, doublings=6)
    assert not bool(record.converged) and "NOT converged" in record.table()
    assert record.solution["name"] == "x" and record.solution["w"][0] > params["w"][0]


def test_at_a_minimum_nothing_moves(x64, key):
    record = flow_sharpness(lambda p: jnp.sum(jnp.arange(1.0, 4.0) * (p - 1) ** 2), jnp.ones(3), key=key)
    np.testing.assert_allclose(record.solution, 1)
    assert float(record.sharpness) == pytest.approx(6) == float(record.solution_sharpness)
    assert bool(record.converged) and record.sharpness.dtype == jnp.float64


def test_where_the_solver_gives_up_nothing_is_claimed(key):
    # The flow of √p reaches zero in finite time, at an infinite speed.
    record = flow_sharpness(lambda p: jnp.sum(jnp.sqrt(p)), jnp.array([1.0]), key=key)
    assert np.isnan([record.solution_sharpness, record.solution_loss, record.movement, record.solution[0]]).all()
    assert not bool(record.converged) and "NOT converged" in record.table()
