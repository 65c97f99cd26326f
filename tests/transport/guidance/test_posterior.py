"""Conditional sampling against the analytic posterior of Gaussian mixtures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from nablax.fields import MLP
from nablax.spaces import Euclidean
from nablax.transport import (
    Empirical,
    Linear,
    Normal,
    Transport,
    VariancePreserving,
    complete,
    flow_matching,
    pseudoinverse_guidance,
    sample_posterior,
    solve_inverse,
)

from ..gaussian_mixtures import draw, moments, posterior_of, transport_to, wasserstein

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.5], [0.0, -1.2, -0.5]])
ROOTS = np.random.default_rng(0).standard_normal((3, 3, 3)) * 0.3
COVARIANCES = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.03 * np.eye(3)

# Two columns; given the first, the second has two modes far apart.
PAIR = (
    np.array([0.7, 0.3]),
    np.array([[0.5, 1.2], [-0.5, -1.2]]),
    np.array([[[0.5, 0.05], [0.05, 0.04]], [[0.5, -0.05], [-0.05, 0.02]]]),
)


def conditional(first):
    """Weights, means and standard deviations of the second column of `PAIR` given the first."""
    posterior = posterior_of(*PAIR, np.array([[1.0, 0.0]]), np.array([first]), 0.0)
    return posterior[0], posterior[1][:, 1], np.sqrt(posterior[2][:, 1, 1]), posterior[3]


def test_mixture_posterior_to_monte_carlo_error(key):
    matrix, observation, noise_scale = np.array([[1.0, 1.0, 1.0]]), np.array([0.9]), 0.2
    posterior = posterior_of(WEIGHTS, MEANS, COVARIANCES, matrix, observation, noise_scale)
    transport = transport_to(WEIGHTS, MEANS, COVARIANCES)
    seen = jnp.asarray(observation, jnp.float32)

    def operator(x):
        return jnp.asarray(matrix, x.dtype) @ x

    ours = sample_posterior(transport, operator, seen, noise_scale, 4000, key=key, particles=4000, steps=24)
    draws = np.asarray(ours.samples, float)
    mean, covariance = moments(*posterior[:3])
    size = float(ours.effective_sample_size)
    assert size > 2000 and float(ours.lineages) > 1000
    # Four standard errors, at the effective sample size.
    error = np.sqrt(np.diag(covariance) / size)
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mean), 4 * error)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=4 * 1.5 * covariance.max() / np.sqrt(size))
    assert abs(float(ours.log_evidence) - posterior[3]) < 4 / np.sqrt(size)
    # The first two modes are told apart by the sign of the first component.
    share = (draws[:, 0] > 0).mean()
    truth = draw(*posterior[:3], 200_000, 3)
    expected = (truth[:, 0] > 0).mean()
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / size)

    # Distance to the truth: at the two-sample floor, and well below both approximate methods.
    def distance(samples):
        return np.mean([wasserstein(samples[i : i + 400], truth[i : i + 400]) for i in range(0, 4000, 400)])

    floor = distance(truth[50_000:])
    guided, _ = pseudoinverse_guidance(transport, operator, seen, noise_scale, 4000, key=key)
    steered, _ = solve_inverse(transport, operator, seen, noise_scale, 4000, key=key, method="steering")
    assert distance(draws) < 1.4 * floor
    assert distance(np.asarray(guided)) > 1.8 * floor
    assert distance(np.asarray(steered)) > 1.8 * floor


def test_completion_recovers_two_modes_with_their_weights(key):
    transport = transport_to(*PAIR)
    firsts = np.linspace(-0.6, 0.9, 7)
    rows = jnp.stack([jnp.asarray(firsts, jnp.float32), jnp.full((7,), jnp.nan)], axis=1)
    mask = jnp.isfinite(rows)

    @jax.jit
    @jax.vmap
    def run(row, mask, key):
        return complete(transport, row, mask, 800, key=key, particles=800)

    posterior = run(rows, mask, jax.random.split(key, 7))
    np.testing.assert_array_equal(posterior.samples[:, :, 0], np.broadcast_to(rows[:, :1], (7, 800)))
    for i, first in enumerate(firsts):
        weights, means, deviations, log_density = conditional(first)
        second = np.asarray(posterior.samples[i, :, 1])
        standard_error = np.sqrt(0.25 / float(posterior.effective_sample_size[i]))
        assert abs((second > 0).mean() - weights[0]) < 4 * standard_error
        nearest = np.abs((second[:, None] - means) / deviations).min(axis=1)
        assert (nearest < 3.5).mean() > 0.98
        assert abs(float(posterior.log_evidence[i]) - log_density) < 0.1
        # The conditional mean, the usual way to fill a hole, lies where there are no data.
        between = np.abs((weights @ means - means) / deviations).min()
        assert between > 3 or weights.max() > 0.8


def test_few_steps_and_equal_weights_where_the_data_are_normal(key):
    covariance = np.array([[1.0, 0.9, 0.3], [0.9, 1.2, 0.1], [0.3, 0.1, 0.5]])
    mean = np.array([0.5, -0.5, 0.2])
    transport = transport_to(np.ones(1), mean[None], covariance[None])
    matrix, observation = np.array([[1.0, 0.0, -1.0]]), np.array([1.5])
    _, means, covariances, log_evidence = posterior_of(
        np.ones(1), mean[None], covariance[None], matrix, observation, 0.1
    )
    ours = sample_posterior(
        transport,
        lambda x: x[:1] - x[2:],
        jnp.asarray(observation, jnp.float32),
        0.1,
        4000,
        key=key,
        particles=4000,
        steps=8,
    )
    assert float(ours.effective_sample_size) > 0.85 * 4000
    assert abs(float(ours.log_evidence) - log_evidence) < 0.02
    np.testing.assert_allclose(ours.samples.mean(axis=0), means[0], atol=4 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(ours.samples.T), covariances[0], atol=0.06)


def test_learned_velocity_completes(key):
    model_key, fit_key, draw_key = jax.random.split(key, 3)
    data = jnp.asarray(draw(*PAIR, 8192, 0), jnp.float32)
    model = MLP(2, width=64, depth=3, key=model_key)
    loss = flow_matching(Linear())
    steps = 1500
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @eqx.filter_jit
    def fit(model, key):
        arrays, rest = eqx.partition(model, eqx.is_inexact_array)

        def step(carry, key):
            arrays, state = carry
            pick, noise = jax.random.split(key)
            batch = data[jax.random.randint(pick, (256,), 0, len(data))]
            grads = jax.grad(lambda arrays: loss(eqx.combine(arrays, rest), batch, key=noise))(arrays)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(arrays, updates), state), None

        (arrays, _), _ = jax.lax.scan(step, (arrays, optimizer.init(arrays)), jax.random.split(key, steps))
        return eqx.combine(arrays, rest)

    transport = Transport(fit(model, fit_key), Linear(), Normal((2,)), Euclidean((2,)))
    row, mask = jnp.array([0.2, jnp.nan]), jnp.array([True, False])
    posterior = complete(transport, row, mask, 1000, key=draw_key, particles=400)
    weights, means, deviations, log_density = conditional(0.2)
    second = np.asarray(posterior.samples[:, 1])
    assert float(posterior.effective_sample_size) > 100
    assert abs((second > 0).mean() - weights[0]) < 0.08
    assert abs(float(posterior.log_evidence) - log_density) < 0.25
    for sign, mean, deviation in zip((1, -1), means, deviations):
        mode = second[sign * second > 0]
        assert abs(mode.mean() - mean) < 0.1
        assert 0.7 < mode.std() / deviation < 1.6


def test_every_mask_and_path(key):
    # One program for all masks: nothing observed is plain sampling, all observed is the density.
    covariance = np.array([[1.0, 0.6], [0.6, 0.8]])
    exact = transport_to(np.ones(1), np.zeros((1, 2)), covariance[None])

    def score(t, y, args):
        a, b, _, _ = path.coefficients(t)
        return -jnp.linalg.solve(a**2 * jnp.asarray(covariance, y.dtype) + b**2 * jnp.eye(2), y)

    path = VariancePreserving()
    diffusion = Transport(score, path, Normal((2,)), Euclidean((2,)), prediction="score")
    row = jnp.array([0.7, -0.4])
    for transport, steps in ((exact, 8), (diffusion, 24)):
        # Everything traced: what a program knows beforehand it computes while compiling, slowly.
        @jax.jit
        def run(mask, row, key, transport=transport, steps=steps):
            return complete(transport, row, mask, 2000, key=key, particles=1000, steps=steps)

        everything = run(jnp.array([True, True]), row, key)
        nothing = run(jnp.array([False, False]), row, key)
        assert jnp.all(everything.samples == row[None])
        inverse = np.linalg.inv(covariance)
        log_density = -0.5 * row @ inverse @ row - 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))
        assert abs(float(everything.log_evidence) - log_density) < 0.02
        assert abs(float(nothing.log_evidence)) < 1e-4
        np.testing.assert_allclose(np.cov(nothing.samples.T), covariance, atol=0.15)
        second = run(jnp.array([True, False]), row, key).samples[:, 1]
        np.testing.assert_allclose(second.mean(), 0.6 * 0.7, atol=4 * np.sqrt(0.44 / 1000))
        np.testing.assert_allclose(second.std(), np.sqrt(0.8 - 0.36), atol=0.06)


def test_noisy_scalar_in_double_precision(x64):
    transport = transport_to(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    seen = jnp.array([2.0])
    assert seen.dtype == jnp.float64
    ours = sample_posterior(transport, lambda x: x, seen, 0.5, 3, key=jax.random.key(0), particles=4, steps=6)
    assert ours.samples.dtype == jnp.float64 and ours.samples.shape == (3, 1)
    assert abs(float(ours.log_evidence) - norm(0, np.sqrt(1.25)).logpdf(2.0)) < 0.05
    single = sample_posterior(
        transport, lambda x: x, seen.astype(jnp.float32), 0.5, 1, key=jax.random.key(0), particles=4, steps=6
    )
    assert single.samples.dtype == jnp.float32


def test_faults(key):
    transport = transport_to(*PAIR)
    row, mask = jnp.zeros(2), jnp.array([True, False])
    with pytest.raises(ValueError, match="one row and its mask"):
        complete(transport, jnp.zeros((5, 2)), mask, 1, key=key)
    for shares in (jnp.array([0.5, 0.0]), np.array([1, 0])):
        with pytest.raises(ValueError, match=r"expected a mask of booleans, got .*\[2\].*Pass mask > 0\.5"):
            complete(transport, row, shares, 1, key=key)
    with pytest.raises(ValueError, match="as a whole number, at least 1"):
        complete(transport, row, mask, 1, key=key, particles=0)
    with pytest.raises(ValueError, match="observation of shape"):
        sample_posterior(transport, lambda x: x[:1], row, 0.1, 1, key=key)
    empirical = Transport(transport.field, Linear(), Empirical(jnp.zeros((3, 2))), Euclidean((2,)))
    with pytest.raises(ValueError, match="normal noise"):
        complete(empirical, row, mask, 1, key=key)
    broken = Transport(lambda t, y, args: y * jnp.nan, Linear(), Normal((2,)), Euclidean((2,)))
    with pytest.raises(RuntimeError, match="lost its weight"):
        jax.block_until_ready(complete(broken, row, mask, 1, key=key, steps=2, particles=2).samples)
