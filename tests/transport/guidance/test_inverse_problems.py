"""Observation operators, and the approximate methods where their answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.spaces import Euclidean
from nablax.transport import (
    Cosine,
    Empirical,
    Linear,
    Normal,
    Transport,
    colourisation,
    inpainting,
    posterior_guidance,
    pseudoinverse_guidance,
    solve_inverse,
    super_resolution,
)

from ..gaussian_mixtures import moments, posterior_of, transport_to


def test_operators_observe_what_they_say():
    x = jnp.arange(4 * 6 * 3, dtype=jnp.float32).reshape(4, 6, 3)
    mask = x > 20
    np.testing.assert_array_equal(inpainting(mask)(x), np.where(mask, x, 0))
    weights = jnp.array([[0.2, 0.3, 0.5], [1.0, -1.0, 0.0]])
    np.testing.assert_allclose(colourisation(weights)(x), np.einsum("oc,hwc->hwo", weights, x), rtol=1e-5, atol=1e-5)
    coarse = super_resolution(2)(x)
    assert coarse.shape == (2, 3, 3)
    np.testing.assert_allclose(coarse[1, 2, 0], np.mean([x[i, j, 0] for i in (2, 3) for j in (4, 5)]))
    np.testing.assert_allclose(super_resolution(3, axes=(1,))(x)[0, 1], x[0, 3:6].mean(axis=0))


def test_operators_are_linear_and_transpose(key):
    x = jax.random.normal(key, (4, 4, 3))
    for operator in (inpainting(x > 0), colourisation(jnp.ones((1, 3)) / 3), super_resolution(2), lambda x: x[0] * 2):
        y = operator(x)
        w = jax.random.normal(jax.random.key(1), y.shape)
        transposed = jax.linear_transpose(operator, x)(w)[0]
        np.testing.assert_allclose(jnp.vdot(y, w), jnp.vdot(x, transposed), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_pseudoinverse_guidance_is_exact_for_isotropic_normal_data(key, scale):
    mean = np.array([0.5, -0.5, 1.0])
    covariance = scale**2 * np.eye(3)
    transport = transport_to(np.ones(1), mean[None], covariance[None])
    matrix = np.array([[1.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
    observation, noise_scale = np.array([1.0, 0.2]), 0.3
    _, means, covariances, _ = posterior_of(np.ones(1), mean[None], covariance[None], matrix, observation, noise_scale)
    samples, record = pseudoinverse_guidance(
        transport,
        lambda x: jnp.asarray(matrix, x.dtype) @ x,
        jnp.asarray(observation, jnp.float32),
        noise_scale,
        4000,
        key=key,
        steps=200,
        data_scale=scale,
    )
    np.testing.assert_allclose(samples.mean(axis=0), means[0], atol=4 * scale / np.sqrt(4000) + 0.01)
    np.testing.assert_allclose(np.cov(samples.T), covariances[0], atol=0.05 * scale**2)
    assert record.products == 200


def test_bias_of_guidance_is_there_and_bounded(key):
    """Two modes: the methods find both and agree with the observation, but their weights and spread are off."""
    mixture = (np.array([0.5, 0.5]), np.array([[1.0, 1.0], [-1.0, 0.0]]), np.stack([0.1 * np.eye(2)] * 2))
    transport = transport_to(*mixture)
    observation, noise_scale = np.array([0.5]), 0.3
    weights, means, covariances, _ = posterior_of(*mixture, np.array([[0.0, 1.0]]), observation, noise_scale)
    mean, covariance = moments(weights, means, covariances)
    seen = jnp.asarray(observation, jnp.float32)
    for method in ("posterior guidance", "steering"):
        samples, _ = solve_inverse(transport, lambda x: x[1:], seen, noise_scale, 2000, key=key, method=method)
        assert abs((samples[:, 0] > 0).mean() - weights[0]) < 0.15
        spread = np.cov(samples.T)[1, 1] / covariance[1, 1]
        # Steering pins the observed component to the observation, noise and all.
        assert spread < 0.1 if method == "steering" else 0.3 < spread < 3
        assert np.abs(samples.mean(axis=0) - mean).max() < 0.5


@pytest.mark.parametrize("method", ["posterior guidance", "steering"])
def test_noiseless_observations_are_met(key, method):
    shape = (4, 4, 3)
    # Independent standard normal pixels, on a curved path.
    transport = Transport(lambda t, y, args: jnp.zeros_like(y), Cosine(), Normal(shape), Euclidean(shape))
    truth = jax.random.normal(key, shape)
    for operator in (inpainting(truth > 0), super_resolution(2)):
        seen = operator(truth)
        samples, record = solve_inverse(
            transport, operator, seen, 0.0, 8, key=jax.random.key(1), steps=40, method=method
        )
        assert samples.shape == (8, *shape) and record.cost.shape == (40, 8)
        misfit = jnp.sqrt(jnp.mean(jnp.square(jax.vmap(operator)(samples) - seen[None])))
        assert misfit < 0.06 * jnp.std(seen)
        np.testing.assert_allclose(
            record.final_cost, [0.5 * jnp.sum((operator(x) - seen) ** 2) for x in samples], rtol=1e-4, atol=1e-6
        )


def test_faults(key):
    transport = transport_to(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    seen = jnp.zeros(2)
    with pytest.raises(ValueError, match="'posterior guidance' or 'steering'"):
        solve_inverse(transport, lambda x: x, seen, 0.1, 2, key=key, method="magic")
    with pytest.raises(ValueError, match="noise_scale ≥ 0"):
        solve_inverse(transport, lambda x: x, seen, -0.1, 2, key=key)
    for method in ("posterior guidance", "steering"):
        with pytest.raises(ValueError, match="observation of shape"):
            solve_inverse(transport, lambda x: x[:1], seen, 0.1, 2, key=key, method=method)
    with pytest.raises(ValueError, match="observes something"):
        solve_inverse(transport, lambda x: 0 * x, seen, 0.1, 2, key=key, method="steering")
    with pytest.raises(ValueError, match="divisible"):
        super_resolution(3)(jnp.zeros((4, 6)))
    with pytest.raises(ValueError, match="axes ≥ 0"):
        super_resolution(2, axes=(-1,))
    with pytest.raises(ValueError, match="One row an output"):
        colourisation(jnp.ones(3))
    paired = Transport(transport.field, Linear(), Empirical(jnp.zeros((3, 2))), Euclidean((2,)))
    with pytest.raises(ValueError, match="normal noise"):
        posterior_guidance(paired, lambda x, args: x.sum(), 2, key=key)
