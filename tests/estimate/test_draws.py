"""The draws of `jax.random`, to the bit, by a hash that is written out."""

import jax
import jax.numpy as jnp
import numpy as np

from nablax.estimate._draws import unrolled

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
