"""A convolutional loss is met with the convolutions that XLA is fast at in loops on a CPU, by every estimator that loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nablax import diagnose, estimate

DRAWS = np.random.default_rng(0)
KERNEL = jnp.asarray(DRAWS.normal(size=(2, 2, 3, 3)), jnp.float32) / 10
X = jnp.asarray(DRAWS.normal(size=(4, 2, 5, 5)), jnp.float32)
KEY = jax.random.key(0)


def loss(kernel, x=X):
    """Channels first, as Equinox has them; two layers, so that one gradient is of a layer's input."""
    first = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
    return jnp.mean(lax.conv_general_dilated(first, kernel, (1, 1), "SAME") ** 2) + jnp.sum(kernel**2)


def descended(kernel, rate, step):
    return kernel - rate * jax.grad(loss)(kernel)


def decayed(kernel, decay):
    return loss(kernel) + decay * jnp.sum(kernel**2)


def hypergradient(method):
    found = estimate.hypergradient(lambda k, decay: loss(k), decayed, method=method, steps=2, rate=0.01)
    return lambda kernel: found(jnp.array(1.0), kernel)[1]


def resting(kernel):
    layer = eqx.nn.Conv2d(2, 2, 3, padding=1, key=KEY)
    net = estimate.Equilibrium([eqx.tree_at(lambda one: one.weight, layer, kernel)] * 2, steps=3)
    return estimate.equilibrium_state(net, X)


CALLS = {
    "average": lambda kernel: estimate.average(estimate.forward_gradient(loss), probes=2)(kernel, key=KEY),
    "spsa": lambda kernel: estimate.spsa(loss)(kernel, key=KEY),
    "gaussian_smoothing": lambda kernel: estimate.gaussian_smoothing(loss, probes=2)(kernel, key=KEY),
    "seed_replay": lambda kernel: estimate.seed_replay(loss)(kernel, key=KEY)[1].slopes,
    "metagradient": lambda kernel: estimate.metagradient(descended, lambda k, rate: loss(k), steps=3)(
        jnp.array(0.1), kernel
    ),
    **{f"hypergradient, {method}": hypergradient(method) for method in ("neumann", "unrolled")},
    "equilibrium_state": resting,
    "metasmoothness": lambda kernel: (
        diagnose.metasmoothness(
            lambda rate: descended(kernel, rate, 0), jnp.array(0.1), step=0.01, probes=2, key=KEY
        ).value
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_loops_hold_fast_convolutions_alone(call, loop_convolutions):
    found = loop_convolutions(jax.make_jaxpr(CALLS[call])(KERNEL))
    rows = (0, 3, 1, 2)
    assert found and {tuple(one.params["dimension_numbers"]) for one in found} == {(rows, (3, 2, 0, 1), rows)}
