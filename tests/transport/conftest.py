"""Exact answers that the tests of this room share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp


class Mixture:
    """Gaussian mixture as data x1, and its exact views along x = a x1 + b x0 with x0 standard normal.

    Nothing here uses the library: the score is autodiff of the log-density, the posterior means are Gaussian
    conditioning.
    """

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = (np.asarray(x, np.float64) for x in (weights, means, covariances))
        self.dim = self.means.shape[1]
        self.spectra = np.linalg.eigh(self.covariances)
        self.views = jax.jit(self._views)

    def components(self, y, a, b):
        weights, means, values, axes = (jnp.asarray(x, y.dtype) for x in (self.weights, self.means, *self.spectra))
        variances = a**2 * values + b**2  # of x, along the axes of each component
        residuals = jnp.einsum("kji,kj->ki", axes, y[None] - a * means)
        whitened = residuals / variances
        terms = residuals * whitened + jnp.log(2 * jnp.pi * variances)
        logs = jnp.log(weights) - 0.5 * jnp.sum(terms, axis=1)
        noise = b * jnp.einsum("kij,kj->ki", axes, whitened)
        data = means + a * jnp.einsum("kij,kj->ki", axes, values * whitened)
        return logs, noise, data

    def log_prob(self, y, a=1.0, b=0.0):
        return logsumexp(self.components(y, a, b)[0])

    def posterior(self, y, a, b):
        logs, noise, data = self.components(y, a, b)
        shares = jax.nn.softmax(logs)
        return shares @ noise, shares @ data

    def _views(self, path, t, y):
        a, b, da, db = path.coefficients(t)
        noise, data = self.posterior(y, a, b)
        score = jax.grad(self.log_prob)(y, a, b)
        return {"velocity": da * data + db * noise, "score": score, "noise": noise, "denoiser": data}

    def field(self, path, view="velocity"):
        return lambda t, y, args: self.views(path, t, y)[view]

    def sample(self, key, count, a=1.0, b=0.0):
        choice_key, draw_key = jax.random.split(key)
        index = jax.random.choice(choice_key, len(self.weights), (count,), p=jnp.asarray(self.weights))
        roots = jnp.linalg.cholesky(jnp.asarray(a**2 * self.covariances + b**2 * np.eye(self.dim)))
        draws = jax.random.normal(draw_key, (count, self.dim))
        return a * jnp.asarray(self.means)[index] + jnp.einsum("nij,nj->ni", roots[index], draws)


@pytest.fixture
def mixture():
    """Three skewed components in the plane, well apart but overlapping."""
    return Mixture(
        [0.5, 0.3, 0.2],
        [[1.5, 0.0], [-1.0, 1.5], [-0.5, -1.5]],
        [[[0.3, 0.2], [0.2, 0.4]], [[0.2, -0.1], [-0.1, 0.1]], [[0.15, 0.0], [0.0, 0.4]]],
    )


@pytest.fixture
def gaussian():
    """One normal distribution in three dimensions, neither centred nor isotropic."""
    return Mixture([1.0], [[1.0, -2.0, 0.5]], [[[0.5, 0.2, 0.0], [0.2, 0.8, -0.3], [0.0, -0.3, 0.4]]])


@pytest.fixture
def make_mixture():
    return Mixture
