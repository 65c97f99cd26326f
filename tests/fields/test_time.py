import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.fields._time import time_features


def test_raw_time():
    assert time_features(jnp.asarray(0.25), 0).tolist() == [0.25]


@pytest.mark.parametrize("features", [2, 4, 16])
def test_sines_and_cosines_of_the_stated_frequencies(features, x64):
    count = features // 2
    frequencies = math.pi / 2 * np.geomspace(1.0, 32.0, count) if count > 1 else np.array([math.pi / 2])
    t = jnp.asarray(0.37)
    expected = np.concatenate([np.sin(frequencies * 0.37), np.cos(frequencies * 0.37)])
    assert np.allclose(time_features(t, features), expected, atol=1e-14)


def test_the_ends_and_the_middle_differ():
    values = jax.vmap(lambda t: time_features(t, 2))(jnp.array([0.0, 0.5, 1.0]))
    assert jnp.abs(values[0] - values[2]).max() > 0.9
    assert jnp.abs(values[0] - values[1]).max() > 0.2


def test_dtype_follows_the_time(x64):
    assert time_features(jnp.asarray(0.5, jnp.float32), 4).dtype == jnp.float32
    assert time_features(jnp.asarray(0.5, jnp.float64), 4).dtype == jnp.float64
