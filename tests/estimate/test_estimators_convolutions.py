"""A convolutional loss is met with the convolutions that XLA is fast at in loops on a CPU, by every estimator that loops."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
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


def remembered(kernel):
    """Two moments back: the state is an image, the parameters the kernel."""

    def step(kernel, x, u):
        return jnp.tanh(lax.conv_general_dilated(x.reshape(1, 2, 5, 5), kernel, (1, 1), "SAME").ravel() + u)

    learner = estimate.real_time(step, lambda kernel, x: jnp.sum(x**2), mode="truncated", window=3)
    state = learner.init(kernel, X[0].ravel(), u=jnp.zeros(50))
    return learner.update(kernel, state, jnp.ones(50))[1]


class Block(eqx.Module):
    kernel: jax.Array

    def __call__(self, t, z, x):
        return z + lax.conv_general_dilated(x[None], self.kernel, (1, 1), "SAME").mean((0, 2, 3))


def classified(kernel):
    net = estimate.NoProp(Block(kernel), jnp.eye(2), mode="continuous", steps=3, key=KEY)
    return net(X[0], key=KEY)


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
    "real_time": remembered,
    "noprop": classified,
    "metasmoothness": lambda kernel: (
        diagnose.metasmoothness(
            lambda rate: descended(kernel, rate, 0), jnp.array(0.1), step=0.01, probes=2, key=KEY
        ).value
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_loops_hold_fast_convolutions_alone(call, loops_are_fast):
    loops_are_fast(CALLS[call], KERNEL)


def blurred(x, kernel):
    return x + 0.1 * lax.conv_general_dilated(x, kernel, (1, 1), "SAME")


# More unknowns than are factorised, so that the solver iterates.
IMAGES = jnp.concatenate([X, -X])


def condition(x, kernel):
    return blurred(jnp.tanh(x), kernel) + x - IMAGES


def solve(init, kernel):
    return init


def along(kernel, linear_solver=None):
    root = estimate.implicit(solve, condition, linear_solver=linear_solver)
    return jax.jvp(lambda kernel: root(IMAGES, kernel), (kernel,), (kernel,))[1]


def back(kernel, linear_solver=None):
    x, pull = estimate.implicit_vjp(solve, condition, linear_solver=linear_solver)(IMAGES, kernel)
    return pull(x)[0][0]


def gradient(kernel):
    root = estimate.implicit(solve, condition)
    return jax.grad(lambda kernel: jnp.sum(root(IMAGES, kernel) ** 2))(kernel)


LOOSE = lx.GMRES(rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "call",
    [along, back, gradient, lambda kernel: along(kernel, LOOSE), lambda kernel: back(kernel, LOOSE)],
    ids=["along", "back", "gradient", "along, another solver", "back, another solver"],
)
def test_a_linear_operator_holds_them_too(call):
    """Lineax hides the operator from what is traced; in the compiled program XLA sees to those outside of loops."""
    text = jax.jit(call).lower(KERNEL).compile().as_text()
    assert set(re.findall(r"convolution\(.*dim_labels=(\S+?)[,\s]", text)) == {"b01f_01io->b01f"}
