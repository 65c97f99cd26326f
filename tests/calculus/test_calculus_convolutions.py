"""A convolutional map is met with the convolutions that XLA is fast at in loops on a CPU, by every iteration over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nablax import calculus

DRAWS = np.random.default_rng(0)
KERNEL = jnp.asarray(DRAWS.normal(size=(3, 3, 3, 3)), jnp.float32) / 10
X = jnp.asarray(DRAWS.normal(size=(4, 3, 5, 5)), jnp.float32)
KEY = jax.random.key(0)


def loss(kernel, x=X):
    """Channels first, as Equinox has them; two layers, so that one gradient is of a layer's input."""
    first = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
    return jnp.mean(lax.conv_general_dilated(first, kernel, (1, 1), "SAME") ** 2)


def product(kernel):
    return lambda v: calculus.hessian_product(loss)(kernel, v)


CALLS = {
    "lanczos": lambda kernel: calculus.lanczos(product(kernel), kernel, steps=3).diagonal,
    "top_eigenvalues": lambda kernel: (
        calculus.top_eigenvalues(product(kernel), kernel, count=1, steps=3, key=KEY).values
    ),
    "spectral_density": lambda kernel: calculus.spectral_density(product(kernel), kernel, steps=3, key=KEY).nodes,
    "arnoldi": lambda kernel: calculus.arnoldi(
        lambda v: product(kernel)(v.reshape(kernel.shape)).ravel(), kernel.size, 3, key=KEY, dtype=kernel.dtype
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_loops_hold_fast_convolutions_alone(call, loops_are_fast):
    loops_are_fast(CALLS[call], KERNEL)
