"""Couplings: the marginals stay, the pairing is the one that was asked for, and the pairs come out as pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest

from nablax.fields import MLP
from nablax.follow import fit
from nablax.transport import (
    Linear,
    SinkhornCoupling,
    class_aware_coupling,
    coupled_batches,
    flow_matching,
    independent_coupling,
    optimal_coupling,
)

KEY = jax.random.key(0)


def ring(generator, count):
    """Eight clusters on a circle of radius 5, and which cluster each point is from."""
    labels = generator.integers(8, size=count)
    angles = 2 * np.pi * labels / 8
    centres = 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (centres + 0.3 * generator.normal(size=(count, 2))).astype(np.float32), labels


def costs_between(noise, data):
    noise, data = np.asarray(noise, np.float64), np.asarray(data, np.float64)
    return ((noise.reshape(len(noise), 1, -1) - data.reshape(1, len(data), -1)) ** 2).sum(-1)


def cost_of(pairing, noise, data):
    return costs_between(noise[pairing], data).diagonal().sum()


def pairs(count, dim, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, dim)).astype(np.float32), ring(generator, count)[0] @ generator.normal(
        size=(2, dim)
    ).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_optimal_is_the_best_of_all_permutations(count, seed):
    noise, data = pairs(count, 3, seed)
    best = min(cost_of(list(order), noise, data) for order in itertools.permutations(range(count)))
    assert cost_of(optimal_coupling(noise, data, key=KEY), noise, data) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize(("count", "dim"), [(47, 2), (64, 2), (256, 2), (256, 30), (400, 1)])
def test_optimal_costs_what_the_exact_solver_finds(count, dim, scale):
    noise, data = pairs(count, dim)
    noise, data = noise * np.float32(scale), data * np.float32(scale)
    costs = costs_between(noise, data)
    exact = costs[linear_sum_assignment(costs)].sum()
    pairing = optimal_coupling(noise, data, key=KEY)
    assert sorted(pairing) == list(range(count))
    assert cost_of(pairing, noise, data) == pytest.approx(exact, rel=1e-9)
    # The contrast: rows left as they came, and the pairing read the wrong way round, cost more.
    assert cost_of(np.arange(count), noise, data) > 1.05 * exact
    assert cost_of(np.argsort(pairing), noise, data) > 1.05 * exact


def test_the_warm_start_survives_degenerate_costs():
    noise, data = pairs(128, 2)
    for left, right in [(noise, np.zeros_like(data)), (np.zeros_like(noise), data), (noise, noise[::-1].copy())]:
        pairing = optimal_coupling(left, right, key=KEY)
        assert sorted(pairing) == list(range(128))
    # A permuted copy is found exactly.
    assert pairing.tolist() == list(range(127, -1, -1))
    far = noise + np.array([[1e6, 0]] * 64 + [[0, 0]] * 64)
    costs = costs_between(far, data)
    exact = costs[linear_sum_assignment(costs)].sum()
    assert cost_of(optimal_coupling(far, data, key=KEY), far, data) == pytest.approx(exact, rel=1e-9)


def test_in_one_dimension_optimal_sorts():
    noise, data = pairs(200, 1)
    pairing = optimal_coupling(noise, data, key=KEY)
    np.testing.assert_array_equal(np.argsort(noise[pairing, 0]), np.argsort(data[:, 0]))


def test_images_are_paired_whole():
    noise, data = pairs(60, 12)
    shaped = optimal_coupling(noise.reshape(60, 2, 2, 3), data.reshape(60, 2, 2, 3), key=KEY)
    np.testing.assert_array_equal(shaped, optimal_coupling(noise, data, key=KEY))


def test_not_a_number_is_refused():
    noise, data = pairs(64, 2)
    data[3, 0] = np.nan
    with pytest.raises(ValueError):
        optimal_coupling(noise, data, key=KEY)


@pytest.mark.parametrize("coupling", [independent_coupling, optimal_coupling, class_aware_coupling])
def test_shapes_that_differ_are_refused(coupling):
    with pytest.raises(ValueError, match="one shape"):
        coupling(np.zeros((3, 2)), np.zeros((4, 2)), key=KEY, labels=np.zeros(4))


def test_sinkhorn_plan_has_uniform_marginals():
    noise, data = pairs(96, 2)
    plan = SinkhornCoupling(0.5, tolerance=1e-4).plan(jnp.asarray(noise), jnp.asarray(data))
    assert bool(plan.converged)
    np.testing.assert_allclose(plan.matrix.sum(1), 1 / 96, atol=2e-6)
    np.testing.assert_allclose(plan.matrix.sum(0), 1 / 96, atol=2e-6)
    assert float(plan.row_error) < 2e-4 and float(plan.column_error) < 2e-4


def test_sinkhorn_is_the_entropic_optimum():
    """At the optimum log P + cost/ε is a row potential plus a column potential: no 2 × 2 exchange gains."""
    noise, data = pairs(20, 2)
    with jax.enable_x64(True):
        plan = SinkhornCoupling(2.0, tolerance=1e-10).plan(jnp.asarray(noise, float), jnp.asarray(data, float))
        surface = np.log(np.asarray(plan.matrix)) + costs_between(noise, data) / 2.0
    interaction = surface - surface.mean(0) - surface.mean(1, keepdims=True) + surface.mean()
    np.testing.assert_allclose(interaction, 0, atol=1e-5)
    assert np.ptp(np.log(np.asarray(plan.matrix))) > 10  # far from the independent plan


def test_sinkhorn_tends_to_the_exact_pairing_and_to_independence():
    noise, data = pairs(12, 2, seed=3)
    exact = optimal_coupling(noise, data, key=KEY)
    small = SinkhornCoupling(0.003, max_iterations=200_000).plan(jnp.asarray(noise), jnp.asarray(data)).matrix
    np.testing.assert_array_equal(np.argmax(small, axis=0), exact)
    assert float(small[exact, np.arange(12)].sum()) > 0.99
    large = SinkhornCoupling(1e5).plan(jnp.asarray(noise), jnp.asarray(data)).matrix
    np.testing.assert_allclose(large, 1 / 144, rtol=0.02)
    # In between it is neither.
    middle = SinkhornCoupling(5.0).plan(jnp.asarray(noise), jnp.asarray(data)).matrix
    assert 0.15 < float(middle[exact, np.arange(12)].sum()) < 0.95


def test_sinkhorn_draws_from_its_plan():
    noise, data = pairs(16, 2)
    coupling = SinkhornCoupling(5.0)
    plan = np.asarray(coupling.plan(jnp.asarray(noise), jnp.asarray(data)).matrix)
    draws = np.stack([coupling(noise, data, key=jax.random.key(i)) for i in range(400)])
    share = np.stack([(draws == j).mean(0) for j in range(16)])
    # Counts of 400 draws: five standard errors.
    error = np.sqrt(16 * plan * (1 - 16 * plan) / 400)
    assert np.all(np.abs(share - 16 * plan) < 5 * error + 0.01)


def test_sinkhorn_says_when_it_did_not_converge():
    noise, data = pairs(32, 2)
    coupling = SinkhornCoupling(1e-3, max_iterations=20)
    assert not bool(coupling.plan(jnp.asarray(noise), jnp.asarray(data)).converged)
    with pytest.raises(RuntimeError, match="iterations"):
        coupling(noise, data, key=KEY)


def class_noise(coupling, batches=200):
    """Noise that went with the cluster at angle 0, over many batches of 64."""
    generator = np.random.default_rng(1)
    kept, shares = [], []
    for _ in range(batches):
        noise = generator.normal(size=(64, 2)).astype(np.float32)
        data, labels = ring(generator, 64)
        pairing = coupling(noise, data, key=KEY, labels=labels)
        assert sorted(pairing) == list(range(64))
        kept.append(noise[pairing][labels == 0])
        shares.append((labels == 0).mean())
    return np.concatenate(kept), np.mean(shares)


def test_class_aware_keeps_the_prior_of_each_class_and_optimal_does_not():
    aware, share = class_noise(class_aware_coupling)
    plain, _ = class_noise(optimal_coupling)
    assert share == pytest.approx(1 / 8, abs=0.02)
    for axis in range(2):
        assert kstest(aware[:, axis], "norm").pvalue > 0.01
    assert kstest(plain[:, 0], "norm").pvalue < 1e-10
    assert plain[:, 0].mean() > 1.0  # the cluster on the right got the noise on the right


def test_class_aware_is_optimal_inside_each_class():
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(300, 2)).astype(np.float32)
    data, labels = ring(generator, 300)
    onehot = np.eye(8, dtype=np.float32)[labels]
    pairing = class_aware_coupling(noise, data, key=KEY, labels=onehot)
    np.testing.assert_array_equal(pairing, class_aware_coupling(noise, data, key=KEY, labels=labels))
    for label in range(8):
        members = np.flatnonzero(labels == label)
        assert set(pairing[members]) == set(members)
        costs = costs_between(noise[members], data[members])
        best = costs[linear_sum_assignment(costs)].sum()
        assert costs_between(noise[pairing[members]], data[members]).diagonal().sum() == pytest.approx(best)


def test_class_aware_needs_labels_and_leaves_distinct_ones_alone():
    noise, data = pairs(10, 2)
    with pytest.raises(ValueError, match="labels"):
        class_aware_coupling(noise, data, key=KEY)
    pairing = class_aware_coupling(noise, data, key=KEY, labels=np.linspace(0, 1, 10))
    assert pairing.tolist() == list(range(10))


def test_batches_hold_pairs_that_belong_together():
    """A pairing shuffled against its batch has the right marginals and the wrong cost."""
    data, labels = ring(np.random.default_rng(0), 500)
    source = coupled_batches(data, optimal_coupling, 64, key=KEY)
    batches = source(3, 4)
    assert {name: value.shape for name, value in batches.items()} == {"data": (4, 64, 2), "noise": (4, 64, 2)}
    assert all(value.dtype == np.float32 for value in batches.values())
    for noise, rows in zip(batches["noise"], batches["data"], strict=True):
        costs = costs_between(noise, rows)
        best = costs[linear_sum_assignment(costs)].sum()
        assert costs.diagonal().sum() == pytest.approx(best, rel=1e-9)
        assert np.roll(costs, 1, axis=0).diagonal().sum() > 1.5 * best

    onehot = np.eye(8, dtype=np.float32)[labels]
    lookup = {tuple(row): tuple(condition) for row, condition in zip(data, onehot, strict=True)}
    batch = coupled_batches(data, class_aware_coupling, 64, key=KEY, condition=onehot)(0, 1)
    assert [lookup[tuple(row)] for row in batch["data"][0]] == [tuple(row) for row in batch["condition"][0]]


def test_batches_depend_on_the_step_alone():
    data, _ = ring(np.random.default_rng(0), 300)
    for coupling in (optimal_coupling, independent_coupling, SinkhornCoupling(1.0)):
        source = coupled_batches(data, coupling, 64, key=KEY)
        whole, again = source(0, 6), coupled_batches(data, coupling, 64, key=KEY)
        for name in whole:
            np.testing.assert_array_equal(whole[name][4:], again(4, 2)[name])
            assert not np.array_equal(whole[name][0], whole[name][1])
        other = coupled_batches(data, coupling, 64, key=jax.random.key(1))(0, 1)
        assert not np.array_equal(other["noise"][0], whole["noise"][0])


def test_batches_pass_through_the_rows_and_draw_normal_noise():
    data = np.arange(200, dtype=np.float32)[:, None]
    batches = coupled_batches(data, independent_coupling, 50, key=KEY)(0, 40)
    assert sorted(batches["data"][:4].ravel()) == list(range(200))  # one epoch, each row once
    assert kstest(batches["noise"].ravel(), "norm").pvalue > 0.01
    starts = np.array([[-1.0], [1.0]], np.float32)
    drawn = coupled_batches(data, independent_coupling, 50, key=KEY, noise=starts)(0, 40)["noise"]
    assert set(drawn.ravel()) == {-1.0, 1.0} and abs(drawn.mean()) < 0.1


def test_a_condition_with_a_coupling_across_classes_is_refused():
    data, labels = ring(np.random.default_rng(0), 100)
    for coupling in (optimal_coupling, SinkhornCoupling(1.0)):
        with pytest.raises(ValueError, match="class_aware_coupling"):
            coupled_batches(data, coupling, 10, key=KEY, condition=labels[:, None])


@pytest.mark.parametrize("wrong", [{"batch_size": 101}, {"condition": np.zeros((99, 1))}, {"noise": np.zeros((5, 3))}])
def test_batches_refuse_what_does_not_fit(wrong):
    arguments = {"batch_size": 10} | wrong
    with pytest.raises(ValueError, match="expected"):
        coupled_batches(np.zeros((100, 2)), independent_coupling, key=KEY, **arguments)


@pytest.mark.parametrize(
    ("pairing", "got"),
    [
        (np.arange(10.0), r"f64\[10\]"),
        (np.ones(10, bool), r"bool\[10\]"),
        (np.arange(9), r"i64\[9\]"),
        (np.arange(10)[:, None], r"i64\[10,1\]"),
        (list(range(10)), "a list|\\[0, 1"),
        (np.arange(10) - 1, "-1 to 8"),
        (np.arange(10) + 1, "1 to 10"),
    ],
    ids=["floats", "a mask", "too few", "two axes", "a list", "below", "beyond"],
)
def test_a_coupling_that_returns_no_pairing_is_refused(pairing, got):
    source = coupled_batches(np.zeros((100, 2)), lambda noise, data, *, key, labels=None: pairing, 10, key=KEY)
    with pytest.raises(ValueError, match=f"a coupling that returns 10 whole numbers.*{got}"):
        source(0, 1)


def test_a_field_learns_from_coupled_batches():
    """With the exact coupling between two shifted normals the optimal velocity is the shift, everywhere."""
    data = np.random.default_rng(0).normal([3.0, -1.0], 1.0, (2000, 2)).astype(np.float32)
    done = fit(
        flow_matching(Linear()),
        MLP(2, width=32, depth=2, key=KEY),
        coupled_batches(data, optimal_coupling, 128, key=jax.random.key(1)),
        optimizer=optax.adam(3e-3),
        steps=300,
        batch_size=128,
        key=jax.random.key(2),
    )
    velocity = jax.vmap(done.model)(jnp.full(3, 0.5), jnp.array([[1.5, -0.5], [2.5, -0.5], [1.5, 0.5]]), None)
    np.testing.assert_allclose(velocity, [[3.0, -1.0]] * 3, atol=0.45)
    # Pairs at random cost 2 · 2 more in squared distance; the irreducible loss tells them apart.
    assert done.history.loss[-50:].mean() < 0.3
