"""Variance reduction by clusters: SAGA where each row is one, no bias by enumeration, no noise where clusters agree."""

import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

RANDOM = np.random.default_rng(0)
ROWS, DIM = 6, 3
INPUTS, TARGETS = RANDOM.normal(size=(ROWS, DIM)), RANDOM.normal(size=ROWS)


def gradient(row, x):
    return INPUTS[row] * (INPUTS[row] @ x - TARGETS[row])


def test_singletons_that_keep_the_last_gradient_are_saga(x64):
    rule, rate = optimize.multi_momentum(0.05, np.full(ROWS, 1 / ROWS), decay=0.0), 0.05
    x = saga = jnp.zeros(DIM, jnp.float64)
    state, table = rule.init(x), np.zeros((ROWS, DIM))
    for row in RANDOM.integers(0, ROWS, size=30):
        update, state = rule.update(gradient(row, x), state, cluster=int(row))
        x = x + update
        fresh = gradient(row, saga)
        saga = saga - rate * (fresh - table[row] + table.mean(axis=0))
        table[row] = fresh
    np.testing.assert_allclose(x, saga, rtol=1e-12)


def warmed(rule, clusters, x):
    """A state after some uneven steps, at other points."""
    state = rule.init(x)
    for row in (0, 3, 3, 5, 1):
        _, state = rule.update(gradient(row, x + 0.1 * row), state, cluster=int(clusters[row]))
    return state


def test_there_is_no_bias_whatever_the_momenta(x64):
    clusters, x = np.array([0, 0, 0, 1, 2, 2]), jnp.ones(DIM, jnp.float64)
    rule = optimize.scale_by_multi_momentum(np.bincount(clusters) / ROWS)
    state = warmed(rule, clusters, x)
    mean = np.mean([gradient(row, x) for row in range(ROWS)], axis=0)
    alone = [rule.update(gradient(row, x), state, cluster=int(clusters[row]))[0] for row in range(ROWS)]
    np.testing.assert_allclose(np.mean(alone, axis=0), mean, rtol=1e-12)
    # And of pairs, of one cluster or of two: the mean of what each gives alone.
    for pair in ([0, 1], [2, 5]):
        stack = jnp.stack([gradient(row, x) for row in pair])
        both, _ = rule.update(stack, state, cluster=jnp.asarray(clusters[pair]))
        np.testing.assert_allclose(both, (alone[pair[0]] + alone[pair[1]]) / 2, rtol=1e-12)


def test_momenta_are_those_of_their_clusters_and_change_after_the_estimate(x64):
    rule = optimize.scale_by_multi_momentum([0.5, 0.25, 0.25], decay=0.75)
    state = rule.init({"w": jnp.zeros(2, jnp.float64)})
    stack = {"w": jnp.array([[4.0, 0.0], [8.0, 4.0], [1.0, 1.0]])}
    step, state = rule.update(stack, state, cluster=jnp.array([2, 2, 0]))
    np.testing.assert_allclose(step["w"], np.mean(stack["w"], axis=0))  # nothing is known yet
    np.testing.assert_allclose(state.momenta["w"], [[0.25, 0.25], [0, 0], [1.5, 0.5]])
    step, _ = rule.update({"w": jnp.array([2.0, 2.0])}, state, cluster=1)
    np.testing.assert_allclose(step["w"], np.array([2.0, 2.0]) + 0.5 * 0.25 + 0.25 * np.array([1.5, 0.5]))


def test_what_is_left_is_the_variance_within_clusters(x64):
    """At fixed parameters, momenta at the clusters' means: the between-cluster share is gone, by enumeration."""
    clusters, x = np.array([0, 0, 1, 1, 1, 2]), jnp.zeros(DIM, jnp.float64)
    rows = np.array([gradient(row, x) + 10 * clusters[row] for row in range(ROWS)])
    rule = optimize.scale_by_multi_momentum(np.bincount(clusters) / ROWS, decay=0.0)
    state = rule.init(x)
    for group in range(3):
        stack = jnp.asarray(rows[clusters == group])
        _, state = rule.update(stack, state, cluster=jnp.full(len(stack), group))
    left = np.array([rule.update(jnp.asarray(rows[r]), state, cluster=int(clusters[r]))[0] for r in range(ROWS)])
    means = np.array([rows[clusters == group].mean(axis=0) for group in clusters])
    np.testing.assert_allclose(left.mean(axis=0), rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(left.var(axis=0), ((rows - means) ** 2).mean(axis=0), rtol=1e-10)
    assert np.allclose(left[5], rows.mean(axis=0))  # alone in its cluster: no noise


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.multi_momentum(0.1, [0.5, 0.4]), "shares of the clusters, none negative, of sum 1"),
        (lambda: optimize.multi_momentum(0.1, [np.nan, 1.0]), "shares of the clusters, none negative, of sum 1"),
        (lambda: optimize.multi_momentum(0.1, "a"), "shares of the clusters, none negative, of sum 1"),
        (lambda: optimize.multi_momentum(0.1, [1.0], decay=1.0), "decay from 0 to below 1"),
        (lambda: _update(jnp.ones((2, 3)), jnp.array([0.0, 1.0])), "a cluster as a whole number"),
        (lambda: _update(jnp.ones((2, 3)), jnp.array([0, 1, 1])), r"gradients.*3.*one for each number in cluster"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_cluster_that_does_not_exist_is_refused_while_it_runs():
    with pytest.raises(Exception, match="expected clusters from 0 to 1"):
        _update(jnp.ones((1, 3)), jnp.array([2]))[0].block_until_ready()


def _update(stack, cluster):
    rule = optimize.scale_by_multi_momentum([0.5, 0.5])
    return rule.update(stack, rule.init(jnp.zeros(3)), cluster=cluster)
