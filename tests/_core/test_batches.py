"""Batches: permutations that are never stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from nablax._core import permute, rows_of, take


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 64, 100, 1797, 65_537])
def test_a_permutation(size, key):
    image = jax.jit(permute, static_argnums=1)(jnp.arange(size), size, key=key)
    np.testing.assert_array_equal(np.sort(image), np.arange(size))


def test_large_sizes_stay_in_range(key):
    size = 2**31 - 1
    image = permute(jnp.arange(size - 1000, size), size, key=key)
    assert image.dtype == jnp.int32 and (image >= 0).all() and len(set(image.tolist())) == 1000


@pytest.mark.parametrize("size", [5, 65, 101])
def test_uniform_over_keys(size):
    keys = jax.random.split(jax.random.key(3), 30_000)
    images = np.asarray(jax.vmap(lambda key: permute(jnp.arange(size), size, key=key))(keys))
    for position in (0, size // 2, size - 1):
        counts = np.bincount(images[:, position], minlength=size)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
    # Neighbours are as independent as two draws without replacement can be.
    pairs = images[:, 0] * size + images[:, 1]
    counts = np.bincount(pairs, minlength=size * size).reshape(size, size)
    assert scipy.stats.chisquare(counts[~np.eye(size, dtype=bool)]).pvalue > 1e-4


def test_an_epoch_has_each_row_at_most_once_and_epochs_differ(key):
    draw = jax.jit(jax.vmap(lambda step: rows_of(step, 103, 10, key=key)))
    rows = np.asarray(draw(jnp.arange(40))).reshape(4, 100)
    for epoch in rows:
        assert len(set(epoch)) == 100
    assert len({tuple(epoch) for epoch in rows}) == 4
    assert len({frozenset(range(103)) - frozenset(epoch) for epoch in rows}) > 1


def test_take(key):
    data = {"a": jnp.arange(20.0).reshape(10, 2), "b": (jnp.arange(10),)}
    out = take(data, jnp.array([3, 3, 9]))
    np.testing.assert_array_equal(out["a"], [[6, 7], [6, 7], [18, 19]])
    np.testing.assert_array_equal(out["b"][0], [3, 3, 9])
