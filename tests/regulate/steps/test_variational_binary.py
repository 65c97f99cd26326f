"""Against the sum over all 2^N weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr

from nablax import regulate

N = 8
WEIGHTS = np.array(list(itertools.product((-1.0, 1.0), repeat=N)))


def law(fields):
    """Probability of every one of the 2^N weights."""
    logits = WEIGHTS @ fields
    return np.exp(logits - np.logaddexp.reduce(logits))


def test_divergence_and_its_gradient_are_those_of_the_enumerated_laws(x64):
    generator = np.random.default_rng(0)
    fields, prior = generator.normal(size=(2, N))
    q, p = law(fields), law(prior)
    np.testing.assert_allclose(regulate.binary_divergence(fields, prior), np.sum(q * np.log(q / p)), rtol=1e-12)
    regulator = regulate.variational_binary(0.3)
    params = {"a": jnp.asarray(fields[:3]), "b": jnp.asarray(fields[3:])}
    before = {"a": jnp.asarray(prior[:3]), "b": jnp.asarray(prior[3:])}
    state = regulator.init(params)._replace(prior=before)
    updates, after = regulator.update(jax.tree.map(jnp.zeros_like, params), state, params, unknown=1)
    # d/dθ of the enumerated KL: the covariance of w with log q/p.
    exact = 0.3 * (q * np.log(q / p)) @ (WEIGHTS - np.tanh(fields))
    np.testing.assert_allclose(np.concatenate([updates["a"], updates["b"]]), exact, atol=1e-13)
    automatic = jax.grad(lambda f: 0.3 * regulate.binary_divergence(f, before))(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-13), updates, automatic)


def test_moments_are_exact(x64):
    generator = np.random.default_rng(1)
    fields, mean = generator.normal(size=N), generator.normal(size=N)
    variance = generator.uniform(size=N)
    q = law(fields)
    values = WEIGHTS @ mean / np.sqrt(N)
    noise = WEIGHTS**2 @ variance / N
    first, second = regulate.binary_preactivation(jnp.asarray(fields)[None], jnp.asarray(mean), jnp.asarray(variance))
    np.testing.assert_allclose(first[0], q @ values, rtol=1e-12)
    np.testing.assert_allclose(second[0], q @ (values**2 + noise) - (q @ values) ** 2, rtol=1e-12)
    _, known = regulate.binary_preactivation(jnp.asarray(fields)[None], jnp.asarray(mean))
    np.testing.assert_allclose(known[0], q @ values**2 - (q @ values) ** 2, rtol=1e-12)


def test_descent_reaches_the_best_factorised_law(x64):
    """A loss linear in the weights: the posterior factorises, and its fields are known, θ = θ⁰ + h/λ."""
    generator = np.random.default_rng(2)
    prior, slope = generator.normal(size=(2, N)) / 2
    regulator = regulate.variational_binary(0.5)
    state = regulator.init(jnp.zeros(N))._replace(prior=jnp.asarray(prior))

    def step(fields, _):
        gradient = jax.grad(lambda f: -jnp.tanh(f) @ slope)(fields)
        return fields - 0.5 * regulator.update(gradient, state, fields)[0], None

    fields, _ = jax.jit(lambda f: jax.lax.scan(step, f, length=4000))(jnp.asarray(prior))
    np.testing.assert_allclose(fields, prior + slope / 0.5, atol=1e-8)
    posterior = law(prior) * np.exp(WEIGHTS @ slope / 0.5)
    np.testing.assert_allclose(law(np.asarray(fields)), posterior / posterior.sum(), rtol=1e-6)


def test_the_normal_approximation_of_a_mean_loss_tends_to_the_enumerated_one(x64):
    # ⟨Φ(a/s)⟩ over the weights; the normal approximation has Φ(mean/√(s²+var)).
    generator = np.random.default_rng(3)
    fields, x = 0.5 * generator.normal(size=N), generator.choice([-1.0, 1.0], size=N)
    first, second = regulate.binary_preactivation(jnp.asarray(fields)[None], jnp.asarray(x))
    exact = law(fields) @ np.exp(log_ndtr(WEIGHTS @ x / np.sqrt(N)))
    approximate = np.exp(log_ndtr(first[0] / np.sqrt(1 + second[0])))
    assert abs(exact - approximate) < 0.005


def test_extreme_fields_and_faults():
    large = jnp.array([-50.0, 50.0])
    assert np.isfinite(regulate.binary_divergence(large, -large))
    regulator = regulate.variational_binary()
    updates, _ = regulator.update(jnp.zeros(2), regulator.init(large), large)
    np.testing.assert_allclose(updates, 0, atol=1e-30)
    with pytest.raises(ValueError, match="params"):
        regulator.update(large, regulator.init(large))
    with pytest.raises(ValueError, match="strength"):
        regulate.variational_binary(-1.0)
