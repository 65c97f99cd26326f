"""Values along a linear field: the exponential map, its volume, and the order of the method."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm
from scipy.stats import norm

from nablax.app._key import random_key
from nablax.app._model._along import STEPS, drawn_values, value_log_density
from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport

MATRIX = np.array([[0.5, -1.0, 0.3], [0.8, -0.2, 0.0], [0.1, 0.4, 0.9]])


def field(t, y, args):
    return (1.0 + t) * jnp.asarray(MATRIX, y.dtype) @ y + args


TRANSPORT = Transport(field, Linear(), Normal((3,)), Euclidean((3,)))
# The field is A y times 1 + t: time runs as t + t² / 2, up to 3/2.
CARRIED = expm(1.5 * MATRIX)


def exact(points):
    codes = points @ np.linalg.inv(CARRIED).T
    return norm.logpdf(codes).sum(axis=1) - 1.5 * np.trace(MATRIX)


def test_density_is_the_priors_and_the_volume_of_the_exponential_map():
    points = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    value, gap = value_log_density(TRANSPORT, jnp.asarray(points), jnp.zeros((7, 3)), jnp.asarray(STEPS), True)
    np.testing.assert_allclose(value, exact(points), rtol=2e-6)
    assert float(gap.max()) < 1e-5
    assert np.isnan(value_log_density(TRANSPORT, jnp.asarray(points), jnp.zeros((7, 3)), jnp.asarray(STEPS))[1]).all()


def test_half_as_many_steps_are_off_by_sixteen_times_as_much():
    points = np.random.default_rng(1).normal(size=(5, 3))
    with jax.enable_x64():
        given, nothing = jnp.asarray(points), jnp.zeros((5, 3))
        off = [
            np.abs(np.asarray(value_log_density(TRANSPORT, given, nothing, jnp.asarray(k))[0]) - exact(points)).max()
            for k in (16, 32, 64)
        ]
    assert 12 < off[0] / off[1] < 20 and 12 < off[1] / off[2] < 20


def test_draws_are_the_noise_of_their_key_carried_along_whatever_the_steps():
    key = random_key(3)
    noise = np.asarray(jax.random.normal(key, (6, 3)))
    for steps in (16, 32):
        drawn = drawn_values(TRANSPORT, jnp.zeros((6, 3)), jnp.asarray(steps), key)
        np.testing.assert_allclose(drawn, noise @ CARRIED.T, rtol=1e-4, atol=1e-4)
