"""What the claims about diffusion rest on: a mixture with known scores, and a distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from nablax.papers._problems._mixture import energy_distance, ring
from nablax.transport import Cosine, VariancePreserving


def test_mixture_density_and_samples_are_those_of_their_components(key):
    data = ring(3, 1.5, 0.5)
    parts = [multivariate_normal(mean, 0.25 * np.eye(2)) for mean in np.asarray(data.means)]
    samples = data.sample(key, 4000)
    expected = np.log(np.mean([part.pdf(samples[:50]) for part in parts], axis=0))
    np.testing.assert_allclose(jax.vmap(data.log_density)(samples[:50]), expected, rtol=1e-4)
    np.testing.assert_allclose(np.cov(samples.T), (1.5**2 / 2 + 0.25) * np.eye(2), atol=0.1)
    path, t, y = VariancePreserving(), jnp.array(0.5), jnp.array([0.3, 0.9])
    a, b, _, _ = (float(c) for c in path.coefficients(t))
    noisy = [multivariate_normal(a * p.mean, (a**2 * 0.25 + b**2) * np.eye(2)).logpdf for p in parts]
    shifts = 1e-3 * np.eye(2)
    slopes = [
        (np.logaddexp.reduce([f(y + s) for f in noisy]) - np.logaddexp.reduce([f(y - s) for f in noisy])) / 2e-3
        for s in shifts
    ]
    np.testing.assert_allclose(data.transport(path).score(t, y), slopes, rtol=1e-3)


def test_energy_distance_is_nil_on_average_for_one_law_and_known_for_two(key):
    draws = jax.random.normal(key, (2, 60, 400, 1))
    same = [energy_distance(x, y) for x, y in zip(*draws)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 60**0.5
    # Far apart on the line it is twice the gap less the mean distances within, 2/√π each.
    assert abs(energy_distance(draws[0, 0], draws[1, 0] + 30) - (60 - 4 / np.pi**0.5)) < 0.5


def test_a_path_with_a_singular_start_is_refused():
    with pytest.raises(ValueError, match="margin"):
        ring().transport(Cosine())
