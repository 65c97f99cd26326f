import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nablax.transport import Empirical, Normal


@pytest.mark.parametrize("shape, scale", [((1,), 1.0), ((3,), 0.2), ((2, 3), 50.0), ((), 2.0)])
def test_normal_log_density_is_the_closed_form(x64, shape, scale, key):
    y = scale * jax.random.normal(key, shape)
    expected = stats.norm(scale=scale).logpdf(np.asarray(y)).sum()
    np.testing.assert_allclose(Normal(shape, scale).log_prob(y), expected, rtol=1e-12)


def test_normal_samples_have_its_moments_and_its_density(key):
    prior = Normal((2, 3), 3.0)
    draws = jax.vmap(prior.sample)(jax.random.split(key, 20_000))
    assert draws.shape == (20_000, 2, 3)
    flat = draws.reshape(20_000, 6)
    np.testing.assert_allclose(flat.mean(axis=0), 0.0, atol=4 * 3 / 20_000**0.5)
    np.testing.assert_allclose(np.cov(flat.T), 9 * np.eye(6), atol=4 * 9 * (2 / 20_000) ** 0.5)
    # The mean log-density of its own samples is minus the entropy.
    values = jax.vmap(prior.log_prob)(draws)
    entropy = 6 * (0.5 * np.log(2 * np.pi * np.e) + np.log(3))
    assert abs(values.mean() + entropy) < 4 * (6 / 2) ** 0.5 / 20_000**0.5


def test_normal_keeps_single_precision_under_x64(x64):
    assert Normal((2,), 2.0).log_prob(jnp.ones(2, jnp.float32)).dtype == jnp.float32


def test_empirical_draws_its_samples_evenly(key):
    prior = Empirical(jnp.arange(10.0).reshape(5, 2))
    assert prior.shape == (2,)
    draws = jax.vmap(prior.sample)(jax.random.split(key, 5000))
    rows, counts = np.unique(np.asarray(draws), axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, np.arange(10.0).reshape(5, 2))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_empirical_has_no_density():
    assert not hasattr(Empirical(jnp.ones((3, 2))), "log_prob")


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.parametrize("scale", [np.ones(2), np.ones(3), "1"], ids=["one each", "vector", "text"])
def test_a_scale_is_one_number(scale):
    with pytest.raises(ValueError, match=r"scale of shape \[\], got .*one number"):
        Normal((2,), scale)


def test_errors_say_what_is_wrong():
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale > 0"):
            Normal((2,), scale)
    for y in (jnp.ones(1), jnp.ones((5, 2)), jnp.ones((5, 3)), 1.0, [1.0, 2.0]):
        with pytest.raises(ValueError, match=r"one sample of shape \[2\], got .* jax\.vmap"):
            Normal((2,)).log_prob(y)
    for samples in (jnp.zeros((0, 2)), jnp.array(1.0)):
        with pytest.raises(ValueError, match="at least one sample"):
            Empirical(samples)
