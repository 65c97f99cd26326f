"""Gaussian mixtures with everything about them known: the right answers of the conditional samplers."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal

from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport


def transport_to(weights, means, covariances):
    """The exact transport on the straight path from N(0, I) to a mixture: weights [k], means [k, d], cov [k, d, d]."""
    spectra, bases = np.linalg.eigh(covariances)
    log_weights, means, spectra, bases = (jnp.asarray(x, jnp.float32) for x in (np.log(weights), means, spectra, bases))

    def velocity(t, y, args):
        # Component by component along its own axes, where everything is diagonal.
        blend = t**2 * spectra + (1 - t) ** 2
        gaps = jnp.einsum("kji,kj->ki", bases, y[None] - t * means)
        logs = log_weights - 0.5 * jnp.sum(gaps**2 / blend + jnp.log(blend), axis=1)
        along = (t * spectra - (1 - t)) / blend * gaps
        return jax.nn.softmax(logs) @ (means + jnp.einsum("kij,kj->ki", bases, along))

    shape = (means.shape[1],)
    return Transport(velocity, Linear(), Normal(shape), Euclidean(shape))


def posterior_of(weights, means, covariances, matrix, observation, noise_scale):
    """The mixture that is the posterior of y = A x + noise, and the log-density of y."""
    posterior, logs = [], []
    for weight, mean, covariance in zip(weights, means, covariances):
        spread = matrix @ covariance @ matrix.T + noise_scale**2 * np.eye(len(observation))
        gain = covariance @ matrix.T @ np.linalg.inv(spread)
        logs.append(np.log(weight) + multivariate_normal(matrix @ mean, spread).logpdf(observation))
        posterior.append((mean + gain @ (observation - matrix @ mean), covariance - gain @ matrix @ covariance))
    log_evidence = np.logaddexp.reduce(logs)
    return np.exp(np.array(logs) - log_evidence), *map(np.array, zip(*posterior)), log_evidence


def draw(weights, means, covariances, count, seed):
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(weights), size=count, p=weights / np.sum(weights))
    noise = generator.standard_normal((count, means.shape[1]))
    roots = np.array([np.linalg.cholesky(c + 1e-12 * np.eye(len(c))) for c in covariances])
    return means[labels] + np.einsum("nij,nj->ni", roots[labels], noise)


def moments(weights, means, covariances):
    mean = weights @ means
    gaps = means - mean
    return mean, np.einsum("k,kij->ij", weights, covariances + gaps[:, :, None] * gaps[:, None, :])


def wasserstein(x, y):
    """The 2-Wasserstein distance of two equally large sets, by exact assignment, in the unit of the data."""
    costs = np.sum((np.asarray(x)[:, None] - np.asarray(y)[None]) ** 2, axis=-1)
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))
