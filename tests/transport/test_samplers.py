import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nablax.follow import Solver
from nablax.spaces import Euclidean
from nablax.transport import (
    AbstractAffinePath,
    Empirical,
    Linear,
    Normal,
    SubVariancePreserving,
    Transport,
    VarianceExploding,
    VariancePreserving,
    predictor_corrector,
    sample_sde,
)

PATHS = {
    "linear": Linear(),
    "vp": VariancePreserving(),
    "sub-vp": SubVariancePreserving(),
    "ve": VarianceExploding(0.05, 20.0),
}
CENTRE, SPREAD = 1.5, 0.6  # of one-dimensional normal data


class Until(AbstractAffinePath):
    """A path that stops earlier, to see the marginals on the way."""

    path: AbstractAffinePath
    end: float

    def coefficients(self, t):
        return self.path.coefficients(t)

    @property
    def times(self):
        return self.path.times[0], self.end

    @property
    def prior_scale(self):
        return self.path.prior_scale


def transport_of(exact, path, prediction="velocity"):
    prior = Normal((exact.dim,), path.prior_scale)
    return Transport(exact.field(path, prediction), path, prior, Euclidean((exact.dim,)), prediction)


def normal_transport(path):
    def velocity(t, y, args):
        a, b, da, db = path.coefficients(t)
        residual = (y - a * CENTRE) / (a**2 * SPREAD**2 + b**2)
        return da * (CENTRE + a * SPREAD**2 * residual) + db * b * residual

    return Transport(velocity, path, Normal((1,), path.prior_scale), Euclidean((1,)))


def normal_moments(path, steps, bound=True):
    """Mean and variance of Euler–Maruyama on normal data, by the recursion that its affine drift makes exact."""
    first, last = path.times
    dt, mean, variance = (last - first) / steps, 0.0, path.prior_scale**2
    for k in range(steps):
        a, b, da, db = (float(c) for c in path.coefficients(jnp.asarray(first + k * dt)))
        total = a**2 * SPREAD**2 + b**2
        noise = min(2 * b * (da * b - a * db) / a if a > 0 else np.inf, b**2 / dt)
        gain = (a * da * SPREAD**2 + b * db - noise / 2) / total
        mean += dt * (da * CENTRE + gain * (mean - a * CENTRE))
        variance = (1 + gain * dt) ** 2 * variance + noise * dt
    return mean, variance


def energy_distance(x, y):
    """Unbiased: zero on average for two draws of one law."""
    x, y, factor = np.asarray(x), np.asarray(y), len(x) / (len(x) - 1)  # both of one length
    return 2 * cdist(x, y).mean() - factor * (cdist(x, x).mean() + cdist(y, y).mean())


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("steps", [12, 48])
def test_stochastic_sampler_has_exactly_the_moments_of_its_scheme(x64, path, steps, key):
    samples = np.asarray(sample_sde(normal_transport(path), 40_000, key=key, steps=steps))
    mean, variance = normal_moments(path, steps)
    assert abs(samples.mean() - mean) < 4 * np.sqrt(variance / 40_000)
    assert abs(samples.var() - variance) < 4 * variance * np.sqrt(2 / 40_000)


@pytest.mark.parametrize("name, factor", [("linear", 16), ("vp", 4), ("sub-vp", 4), ("ve", 12)])
def test_distance_to_the_truth_falls_with_the_steps(x64, name, factor):
    path = PATHS[name]
    a, b, _, _ = (float(c) for c in path.coefficients(jnp.asarray(path.times[1])))

    def distance(steps):  # 2-Wasserstein distance of two normal laws, in units of the data
        mean, variance = normal_moments(path, steps)
        return np.hypot(mean - a * CENTRE, np.sqrt(variance) - np.hypot(a * SPREAD, b))

    # First order; on the straight path the mean is exact and the variance of second. The error of the exploding path
    # ends at what its prior lacks, the mean of the data in twenty spreads.
    coarse, fine = distance(16), distance(64)
    assert abs(np.log2(coarse / fine) - np.log2(factor)) < 0.5
    assert distance(256) < 0.007


@pytest.mark.parametrize("end", [0.3, 1.0])
def test_flow_and_stochastic_sampler_share_marginals_on_the_way(x64, gaussian, end, key):
    path = Until(Linear(), end)
    transport = transport_of(gaussian, path)
    a, b, _, _ = path.coefficients(jnp.asarray(end))
    covariance = a**2 * gaussian.covariances[0] + b**2 * np.eye(3)
    for samples in (
        transport.sample(10_000, key=key, solver=Solver(rtol=1e-3, atol=1e-3)),
        sample_sde(transport, 10_000, key=key, steps=100),
        sample_sde(transport, 10_000, key=key, steps=100, diffusion=lambda t: jnp.sqrt(1 - t)),
    ):
        samples = np.asarray(samples)
        assert np.abs(samples.mean(axis=0) - a * gaussian.means[0]).max() < 0.05
        np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.05)


def test_both_samplers_reach_a_mixture(mixture, key):
    transport, (draw_key, key) = transport_of(mixture, Linear()), jax.random.split(key)
    truth = mixture.sample(draw_key, 2000)
    stochastic = partial(sample_sde, transport, 2000, key=key)
    # Two draws of this size from the mixture itself are within 0.002 of each other.
    same = [energy_distance(mixture.sample(k, 2000), truth) for k in jax.random.split(key, 4)]
    assert np.abs(same).max() < 0.002
    assert energy_distance(transport.sample(2000, key=key), truth) < 0.003
    assert energy_distance(stochastic(steps=64), truth) < 0.003
    assert energy_distance(stochastic(steps=2), truth) > 0.02


def songs_moments(path, steps, corrector_steps, ratio):
    """Variance on normal data, in Song's own numbers: σᵢ of the exploding path, βᵢ of the preserving one.

    For a centred normal law the norms are half-normal, so the corrector's length is 2 α (r V_noise / V)² of variances.
    """
    first, last = path.times
    times = np.linspace(first, last, steps + 1)
    sizes = [[float(c) for c in path.coefficients(jnp.asarray(t))[:2]] for t in times]
    variance = path.prior_scale**2
    for (a, b), (a_next, b_next) in zip(sizes[:-1], sizes[1:]):
        total = a**2 * SPREAD**2 + b**2
        exploding = path.prior_scale > 1
        beta = 0.0 if exploding else 1 - a**2 / a_next**2  # ᾱᵢ = a², and so 1 - βᵢ = ᾱᵢ / ᾱᵢ₋₁
        alpha = 1 - beta
        for _ in range(corrector_steps):
            length = 2 * alpha * ratio**2 * total**2 / variance
            variance = (1 - length / total) ** 2 * variance + 2 * length
        if exploding:
            step = b**2 - b_next**2
            variance = (1 - step / total) ** 2 * variance + step
        else:
            variance = (2 - np.sqrt(1 - beta) - beta / total) ** 2 * variance + beta
    return variance


@pytest.mark.parametrize("path", [VarianceExploding(0.1, 5.0), VariancePreserving()], ids=["ve", "vp"])
@pytest.mark.parametrize("corrector_steps", [0, 2])
def test_predictor_corrector_has_the_moments_of_songs_rule(x64, path, corrector_steps, key):
    steps, ratio = 8, 0.3

    def score(t, y, args):
        a, b, _, _ = path.coefficients(t)
        return -y / (a**2 * SPREAD**2 + b**2)

    transport = Transport(score, path, Normal((1,), path.prior_scale), Euclidean((1,)), "score")
    variance = songs_moments(path, steps, corrector_steps, ratio)
    samples = predictor_corrector(
        transport,
        60_000,
        key=key,
        steps=steps,
        corrector_steps=corrector_steps,
        signal_to_noise=ratio,
        denoise=False,
    )
    assert abs(samples.mean()) < 4 * np.sqrt(variance / 60_000)
    assert abs(samples.var() - variance) < 5 * variance * np.sqrt(2 / 60_000)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_predictor_reaches_the_data_on_every_path_as_steps_grow(x64, path):
    """By the variance's own recursion: the error falls at least in proportion, and is small at the end."""
    first, last = path.times

    def gap(steps):
        variance = path.prior_scale**2
        for t, s in itertools.pairwise(np.linspace(first, last, steps + 1)):
            (a, b), (a_s, b_s) = ([float(c) for c in path.coefficients(jnp.asarray(u))[:2]] for u in (t, s))
            kept = a / a_s
            noise = b**2 - kept**2 * b_s**2
            variance = (2 - kept - noise / (a**2 * SPREAD**2 + b**2)) ** 2 * variance + noise
        a, b = (float(c) for c in path.coefficients(jnp.asarray(last))[:2])
        return abs(np.sqrt(variance) / np.hypot(a * SPREAD, b) - 1)

    coarse, fine = gap(64), gap(256)
    assert fine < 0.4 * coarse and fine < 0.05


def test_corrector_mends_a_coarse_predictor(mixture, key):
    transport, (draw_key, key) = transport_of(mixture, VarianceExploding(0.01, 20.0), "score"), jax.random.split(key)
    truth = mixture.sample(draw_key, 2000)
    run = partial(predictor_corrector, transport, 2000, key=key, steps=20, predictor="probability flow")
    alone, corrected = (energy_distance(run(corrector_steps=n), truth) for n in (0, 1))
    assert corrected < 0.5 * alone


def test_denoising_ends_at_the_expected_data(x64, key):
    path = VarianceExploding(0.5, 20.0)
    transport = normal_transport(path)
    for sampler in (sample_sde, predictor_corrector):
        noisy, clean = (sampler(transport, 64, key=key, steps=20, denoise=denoise) for denoise in (False, True))
        gain = SPREAD**2 / (SPREAD**2 + 0.25)
        np.testing.assert_allclose(clean, CENTRE + gain * (noisy - CENTRE), rtol=1e-8)


@pytest.mark.parametrize("sampler", [sample_sde, predictor_corrector])
def test_same_key_same_samples_and_each_row_its_condition(sampler):
    path = VariancePreserving()

    def score(t, y, args):  # data at the condition itself, spread 0.1
        a, b, _, _ = path.coefficients(t)
        return -(y - a * args) / (a**2 * 0.01 + b**2)

    transport = Transport(score, path, Normal((2,)), Euclidean((2,)), "score")
    args = 3.0 * jnp.arange(8.0).reshape(4, 2)
    first, second, other = (sampler(transport, 4, key=jax.random.key(k), args=args, steps=60) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.all(first != other)
    assert first.dtype == jnp.float32
    np.testing.assert_allclose(first, args, atol=1.5)


def test_errors_say_what_is_wrong(key):
    velocity = lambda t, y, args: -y  # noqa: E731
    empirical = Transport(velocity, Linear(), Empirical(jnp.ones((3, 2))), Euclidean((2,)))
    coupled = Transport(velocity, Linear(), Normal((2,)), Euclidean((2,)), independent=False)
    for sampler in (sample_sde, predictor_corrector):
        for transport in (empirical, coupled):
            with pytest.raises(ValueError, match="paired independently"):
                sampler(transport, 4, key=key, steps=5)
        with pytest.raises(ValueError, match="steps as a whole number, at least 1"):
            sampler(Transport(velocity, Linear(), Normal((2,)), Euclidean((2,))), 4, key=key, steps=0)
    with pytest.raises(ValueError, match="'reverse diffusion' or 'probability flow'"):
        predictor_corrector(
            Transport(velocity, Linear(), Normal((2,)), Euclidean((2,))), 4, key=key, steps=5, predictor="heun"
        )
