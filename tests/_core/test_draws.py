"""The draws of `jax.random`, to the bit, by a hash that is written out; normal numbers by their law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nablax._core import normal, unrolled

SAMPLERS = (jax.random.normal, jax.random.rademacher, jax.random.gumbel, jax.random.bits)


def drawn(key):
    shapes = ((), (3,), (7, 11), (2, 3, 5))
    plain = [sample(key, shape) for sample in SAMPLERS for shape in shapes]
    # Sixteen and sixty-four bits go JAX's own way.
    return [*plain, jax.random.normal(key, (5,), jnp.bfloat16), jax.random.bits(key, (5,), jnp.uint8)]


def test_the_draws_are_those_of_the_key():
    keys = jax.random.split(jax.random.key(7), 3)
    ours, truth = jax.jit(lambda keys: (jax.vmap(lambda key: drawn(unrolled(key)))(keys), jax.vmap(drawn)(keys)))(keys)
    for a, b in zip(ours, truth, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_no_loop_is_left_in_the_program():
    def loops(key):
        return jax.jit(lambda key: jax.random.normal(key, (8,))).lower(key).as_text().count("stablehlo.while")

    key = jax.random.key(0)
    assert (loops(unrolled(key)), loops(key)) == (0, 1)


def test_other_keys_stay_as_they_are():
    key = jax.random.key(0, impl="rbg")
    assert unrolled(key) is key
    twice = unrolled(unrolled(jax.random.key(3)))
    assert np.array_equal(jax.random.key_data(twice), jax.random.key_data(jax.random.key(3)))


def test_draws_are_those_of_a_key_that_is_not_partitionable():
    key = jax.random.key(5)
    with jax.threefry_partitionable(False):
        assert np.array_equal(jax.random.bits(unrolled(key), (6,)), jax.random.bits(key, (6,)))


def test_normal_numbers_have_their_law_far_into_the_tails():
    count = 16_000_000
    z = np.asarray(jax.jit(lambda key: normal(key, (count,), jnp.float32))(jax.random.key(11)), np.float64)
    assert stats.kstest(z[:2_000_000], "norm").pvalue > 1e-3
    for order, moment, square in ((1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105), (6, 15, 10395)):
        assert abs(np.mean(z**order) - moment) < 4.5 * np.sqrt((square - moment**2) / count)
    for bound in (1e-3, 0.1, 3.0, 4.0, 4.5, 5.0):
        share = 2 * stats.norm.sf(bound)
        assert abs(np.mean(np.abs(z) > bound) - share) < 4.5 * np.sqrt(share * (1 - share) / count)
    # Neighbours, in either order of an array's axes, and those of the next key have nothing to do with one another.
    other = np.asarray(normal(jax.random.key(12), (1_000_000,), jnp.float32), np.float64)
    for left, right in (
        (z[:-1], z[1:]),
        (z[:-1] ** 2 - 1, z[1:] ** 2 - 1),
        (z[: len(other)], other),
        (z[:-256], z[256:]),
    ):
        product = left * right
        assert abs(product.mean()) < 4.5 * product.std() / np.sqrt(len(product))


def test_normal_numbers_are_those_of_the_words_in_double_precision():
    """Both words, where JAX's own bits are their sum modulo 2: what is drawn cannot use one twice."""
    key, size = jax.random.key(2), 10_000
    first, second = jax.extend.random.threefry_2x32(
        jax.random.key_data(key), jnp.concatenate([jnp.zeros(size, jnp.uint32), jnp.arange(size, dtype=jnp.uint32)])
    ).reshape(2, size)
    assert np.array_equal(first ^ second, jax.random.bits(key, (size,)))
    u, v = (np.asarray(first, np.float64) + 0.5) / 2**32, np.asarray(second.view(jnp.int32), np.float64) / 2**31
    truth = np.sqrt(-2 * np.log(u)) * np.sin(np.pi / 2 * v)
    np.testing.assert_allclose(normal(key, (100, 100), jnp.float32).ravel(), truth, atol=2e-6)


def test_normal_numbers_of_other_dtypes_and_keys_are_those_of_jax():
    key, other = jax.random.key(0), jax.random.key(0, impl="rbg")
    with jax.enable_x64(True):
        assert np.array_equal(normal(key, (5,), jnp.float64), jax.random.normal(key, (5,), jnp.float64))
    assert np.array_equal(normal(other, (5,), jnp.float32), jax.random.normal(other, (5,)))
    assert normal(key, (), jnp.float32).shape == () and normal(key, (0, 3), jnp.float32).shape == (0, 3)
    with pytest.raises(TypeError):
        normal(3, (2,), jnp.float32)
