"""A convolutional field is followed with the convolutions that XLA is fast at in loops on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nablax.follow import Solver
from nablax.spaces import Euclidean
from nablax.transport import (
    Linear,
    Normal,
    Transport,
    march,
    posterior_guidance,
    pseudoinverse_guidance,
    sample_sde,
    steer,
)

SHAPE = (5, 5, 2)
KERNEL = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 3)), jnp.float32) / 10


def field(t, y, args):
    """Channels first, as Equinox has them."""
    image = jnp.moveaxis(y.reshape(SHAPE), -1, 0)[None]
    return jnp.moveaxis(lax.conv_general_dilated(image, KERNEL, (1, 1), "SAME")[0], 0, -1).reshape(y.shape)


def cost(y, args):
    return jnp.sum((y - 1) ** 2)


def euler(now, y, args):
    return y + (now.s - now.t) * TRANSPORT.velocity(now.t, y, args), None


TRANSPORT = Transport(field, Linear(), Normal(SHAPE), Euclidean(SHAPE))
CALLS = {
    "sample": lambda key: TRANSPORT.sample(3, key=key, solver=Solver(steps=2)),
    "encode": lambda key: TRANSPORT.encode(jnp.ones((3, *SHAPE)), solver=Solver(steps=2)),
    "log_prob": lambda key: (
        TRANSPORT.log_prob(jnp.ones((3, *SHAPE)), solver=Solver(steps=2), panels=1, probes=2, key=key).value
    ),
    "sample_sde": lambda key: sample_sde(TRANSPORT, 3, key=key, steps=2),
    "steer": lambda key: steer(TRANSPORT, cost, 3, key=key, steps=2)[0],
    "march": lambda key: march(TRANSPORT, jax.vmap(euler, in_axes=(None, 0, 0)), 3, key=key, steps=2)[0],
    "pseudoinverse_guidance": lambda key: pseudoinverse_guidance(
        TRANSPORT, lambda y: field(0.0, y, None), jnp.ones(SHAPE), 0.1, 3, key=key, steps=2
    )[0],
    "posterior_guidance": lambda key: posterior_guidance(TRANSPORT, cost, 3, key=key, steps=2)[0],
}


@pytest.mark.parametrize("call", CALLS)
def test_loops_hold_fast_convolutions_alone(call, loops_are_fast, key):
    loops_are_fast(CALLS[call], key)


def test_samples_are_those_of_the_same_linear_map_without_convolutions(key):
    matrix = jax.jacobian(lambda y: field(0.0, y, None))(jnp.zeros(SHAPE)).reshape(50, 50)
    plain = Transport(
        lambda t, y, args: (matrix @ y.reshape(-1)).reshape(y.shape), Linear(), Normal(SHAPE), Euclidean(SHAPE)
    )
    np.testing.assert_allclose(
        TRANSPORT.sample(3, key=key, solver=Solver(steps=4)),
        plain.sample(3, key=key, solver=Solver(steps=4)),
        rtol=1e-4,
        atol=1e-5,
    )
