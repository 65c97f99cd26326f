"""A convolutional loss is met with the convolutions that XLA is fast at in loops on a CPU, by what loops over it here."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nablax import regulate

DRAWS = np.random.default_rng(0)
KERNEL = jnp.asarray(DRAWS.normal(size=(2, 2, 3, 3)), jnp.float32) / 10
X = jnp.asarray(DRAWS.normal(size=(4, 2, 5, 5)), jnp.float32)


def step(kernel, state, image):
    return jnp.tanh(lax.conv_general_dilated(state + image, kernel, (1, 1), "SAME"))


def travelled(kernel):
    function = regulate.unrolled_value_and_grad(step, lambda kernel, states: jnp.mean(states[-1] ** 2))
    return function(kernel, X, jnp.stack([X, -X, X]))[1]


def losses(kernel):
    """Of the whole batch, so that each takes a pass of its own."""
    images = step(kernel, step(kernel, X, 0.0), 0.0)
    return jnp.mean((images - images.mean(0, keepdims=True)) ** 2, (1, 2, 3))


CALLS = {"unrolled_value_and_grad": travelled, "gramian": lambda kernel: regulate.gramian(losses, kernel, memory=1)}


@pytest.mark.parametrize("call", CALLS)
def test_loops_hold_fast_convolutions_alone(call, loops_are_fast):
    loops_are_fast(CALLS[call], KERNEL)
