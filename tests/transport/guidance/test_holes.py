"""What is NaN in an observation was not observed; what an operator does not look at may hold anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.spaces import Euclidean
from nablax.transport import (
    Linear,
    Normal,
    Transport,
    colourisation,
    complete,
    inpainting,
    pseudoinverse_guidance,
    sample_posterior,
    solve_inverse,
    super_resolution,
)

KEY = jax.random.key(0)
MASK = jnp.array([True, True, False, False])
HOLE, ZEROS, ONES = (jnp.array([1.0, 1.0, x, x]) for x in (jnp.nan, 0.0, 1.0))


def standard(t, y, args):
    return (2 * t - 1) / (t**2 + (1 - t) ** 2) * y


TRANSPORT = Transport(standard, Linear(), Normal(4), Euclidean(4))


def solved(operator, observation, noise_scale, method="posterior guidance"):
    return solve_inverse(TRANSPORT, operator, observation, noise_scale, 300, key=KEY, method=method)


@pytest.mark.parametrize("noise_scale", [0.0, 0.05])
@pytest.mark.parametrize("method", ["posterior guidance", "steering"])
def test_a_hole_may_hold_anything(method, noise_scale):
    """Independent coordinates: what is observed comes back, the others keep N(0, 1)."""
    answers = [solved(inpainting(MASK), seen, noise_scale, method)[0] for seen in (HOLE, ZEROS, ONES)]
    for samples in answers:
        np.testing.assert_array_equal(samples, answers[0])
    seen, hidden = answers[0][:, :2], answers[0][:, 2:]
    assert np.abs(seen - 1).max() < 0.3 and np.abs(np.mean(seen, axis=0) - 1).max() < 0.02
    assert np.abs(np.mean(hidden, axis=0)).max() < 4 / 300**0.5 and np.abs(np.std(hidden, axis=0) - 1).max() < 0.2


@pytest.mark.parametrize("method", ["posterior guidance", "steering"])
def test_the_record_counts_what_was_observed_only(method):
    _, record = solved(inpainting(MASK), HOLE, 0.0, method)
    assert np.isfinite(record.cost).all() and np.isfinite(record.final_cost).all()
    assert record.final_cost.max() < 0.1


@pytest.mark.parametrize("method", ["posterior guidance", "steering"])
def test_nan_is_a_hole_of_every_operator(method):
    """The mean of each pair of neighbours, of which one pair was not seen."""
    operator = super_resolution(2, axes=(0,))
    samples, _ = solved(operator, jnp.array([2.0, jnp.nan]), 0.0, method)
    assert np.abs(samples[:, :2].mean(axis=1) - 2).max() < 0.1
    assert np.abs(samples[:, 2:].mean(axis=1)).mean() > 0.3
    plain, _ = solved(lambda x: jnp.where(MASK, x, 0), HOLE, 0.0, method)
    np.testing.assert_allclose(plain, solved(inpainting(MASK), HOLE, 0.0, method)[0], atol=1e-5)


def test_pseudoinverse_guidance_alone_takes_holes_too():
    ours, _ = pseudoinverse_guidance(TRANSPORT, inpainting(MASK), HOLE, 0.0, 300, key=KEY)
    np.testing.assert_array_equal(ours, solved(inpainting(MASK), HOLE, 0.0)[0])


def test_draws_and_evidence_of_the_posterior_do_not_depend_on_what_is_in_a_hole():
    for seen in (HOLE, ONES):
        posterior = sample_posterior(TRANSPORT, inpainting(MASK), seen, 0.5, 200, key=KEY, particles=32, steps=8)
        # x ~ N(0, 1) seen with noise 0.5: mean 1/(1 + 0.25), and the density of 1 under N(0, 1.25), twice.
        assert np.abs(posterior.samples.mean(axis=0) - jnp.array([0.8, 0.8, 0.0, 0.0])).max() < 0.3
        expected = 2 * float(jax.scipy.stats.norm.logpdf(1.0, 0.0, 1.25**0.5))
        assert abs(float(posterior.log_evidence) - expected) < 0.05


def test_complete_takes_nan_for_a_hole_whatever_the_mask_says():
    row = jnp.array([1.0, jnp.nan, 2.0, jnp.nan])
    everywhere, truth = jnp.ones(4, bool), ~jnp.isnan(row)
    ours, exact = (complete(TRANSPORT, row, mask, 5, key=KEY, steps=4) for mask in (everywhere, truth))
    np.testing.assert_array_equal(ours.samples, exact.samples)
    np.testing.assert_array_equal(ours.samples[:, [0, 2]], np.tile([1.0, 2.0], (5, 1)))
    assert ours.log_evidence == exact.log_evidence


def test_nothing_observed_infinity_and_a_negative_noise_are_refused():
    for method in ("posterior guidance", "steering"):
        for operator, seen in (
            (inpainting(MASK), jnp.full(4, jnp.nan)),
            (inpainting(MASK), jnp.where(MASK, jnp.nan, 1.0)),
            (inpainting(~(MASK | True)), ONES),
            (colourisation(jnp.zeros((1, 4))), jnp.ones(1)),
        ):
            with pytest.raises(ValueError, match="observes something, got zero"):
                solved(operator, seen, 0.1, method)
        with pytest.raises(ValueError, match=r"a finite observation.*NaN"):
            solved(inpainting(MASK), ONES.at[0].set(jnp.inf), 0.1, method)
        with pytest.raises(ValueError, match="noise_scale ≥ 0"):
            solved(inpainting(MASK), ONES, -0.1, method)
        with pytest.raises(ValueError, match=r"a noise scale of shape \[\], got f32\[4\]"):
            solved(inpainting(MASK), ONES, jnp.ones(4), method)
