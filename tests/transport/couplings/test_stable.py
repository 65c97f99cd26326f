"""Couplings by what they satisfy: brute force over all permutations, and over all pairs of pairs."""

import itertools

import jax
import numpy as np
import pytest

from nablax.transport import coupled_batches, heuristic_coupling, optimal_coupling, stable_coupling

KEY = jax.random.key(0)


def costs_between(noise, data):
    return ((np.asarray(noise, float)[:, None] - np.asarray(data, float)[None]) ** 2).sum(-1)


def stable(pairing, costs):
    """Whether no noise and data point are nearer to each other than to their partners."""
    own = costs[pairing, np.arange(len(pairing))]
    partner_of_noise = np.empty_like(own)
    partner_of_noise[pairing] = own
    return not np.any((costs < own[None]) & (costs < partner_of_noise[:, None]))


def clouds(count, dim, seed):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, dim)), 3 * generator.normal(size=(count, dim)) + 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 6])
def test_stable_is_the_only_permutation_that_is_stable(count, seed):
    noise, data = clouds(count, 2, seed)
    costs = costs_between(noise, data)
    all_stable = [order for order in itertools.permutations(range(count)) if stable(np.array(order), costs)]
    assert all_stable == [tuple(stable_coupling(noise, data, key=KEY))]


def test_a_larger_batch_is_stable_and_the_cheapest_pairing_is_not():
    noise, data = clouds(128, 3, 0)
    costs = costs_between(noise, data)
    found, cheapest = stable_coupling(noise, data, key=KEY), optimal_coupling(noise, data, key=KEY)
    assert sorted(found) == list(range(128))
    assert stable(found, costs) and not stable(cheapest, costs)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_no_swap_of_two_partners_helps(scale):
    noise, data = clouds(96, 3, 1)
    costs = costs_between(noise, data)
    found = heuristic_coupling(noise * scale, data * scale, key=KEY)
    assert sorted(found) == list(range(96))
    own = costs[found, np.arange(96)]
    swapped = costs[found]  # of noise found[i] with data j
    assert np.all(own[:, None] + own[None] <= swapped + swapped.T + 1e-9)
    total = {
        "optimal": costs[optimal_coupling(noise, data, key=KEY), np.arange(96)].sum(),
        "heuristic": own.sum(),
        "independent": costs.diagonal().sum(),
    }
    assert total["optimal"] <= total["heuristic"] < 1.1 * total["optimal"] < 0.7 * total["independent"]
    # Which local end is reached depends on the key alone.
    np.testing.assert_array_equal(found, heuristic_coupling(noise, data, key=KEY))


def test_on_a_line_no_swap_helps_only_where_both_are_sorted():
    noise, data = clouds(200, 1, 2)
    pairing = heuristic_coupling(noise, data, key=KEY)
    np.testing.assert_array_equal(np.argsort(noise[pairing, 0]), np.argsort(data[:, 0]))


@pytest.mark.parametrize("coupling", [stable_coupling, heuristic_coupling])
def test_points_that_coincide_end_and_faults(coupling):
    same = np.zeros((40, 2))
    assert sorted(coupling(same, same, key=KEY)) == list(range(40))
    with pytest.raises(ValueError, match="one shape"):
        coupling(np.zeros((3, 2)), np.zeros((4, 2)), key=KEY)
    with pytest.raises(ValueError, match="keeps classes apart"):
        coupled_batches(np.zeros((8, 2)), coupling, 4, key=KEY, condition=np.zeros(8))
