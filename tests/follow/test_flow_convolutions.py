"""A convolutional field is followed with the convolutions that XLA is fast at in loops on a CPU, whatever the solver."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nablax.follow import Solver, flow

DRAWS = np.random.default_rng(0)
KERNEL = jnp.asarray(DRAWS.normal(size=(3, 3, 3, 3)), jnp.float32) / 10
X = jnp.asarray(DRAWS.normal(size=(4, 3, 5, 5)), jnp.float32)


def loss(kernel):
    """Channels first, as Equinox has them; two layers, so that one gradient is of a layer's input."""
    x = X.astype(kernel.dtype)
    first = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
    return jnp.mean(lax.conv_general_dilated(first, kernel, (1, 1), "SAME") ** 2)


def descent(t, kernel, args):
    return -jax.grad(loss)(kernel)


SOLVERS = {
    "fixed": Solver(steps=3),
    "adaptive": Solver(),
    "one stage": Solver(steps=3, method=diffrax.Euler()),
    "implicit": Solver(rtol=1e-3, atol=1e-3, method=diffrax.Kvaerno3()),
    "a traced number of steps": None,
}


def followed(solver, **keywords):
    def end(kernel):
        steps = jnp.argmax(kernel) * 0 + 3  # known at run time alone
        return flow(descent, kernel, 0.0, 1.0, solver=solver or Solver(steps=steps), **keywords).ys

    return end


def layouts(found):
    return {tuple(one.params["dimension_numbers"]) for one in found}


ROWS = (0, 3, 1, 2)
FAST = {(ROWS, (3, 2, 0, 1), ROWS)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_loops_hold_fast_convolutions_alone(solver, loop_convolutions):
    found = loop_convolutions(jax.make_jaxpr(followed(SOLVERS[solver]))(KERNEL))
    assert len(found) >= 5 and layouts(found) == FAST


def test_those_of_the_noise_too(loop_convolutions):
    def noise(t, kernel, args):
        return loss(kernel)

    end = followed(Solver(steps=3), noise=noise, key=jax.random.key(0))
    found = loop_convolutions(jax.make_jaxpr(end)(KERNEL))
    assert len(found) >= 7 and layouts(found) == FAST


def test_steps_and_their_gradient_are_those_by_hand(x64):
    kernel = KERNEL.astype(jnp.float64)

    def by_hand(kernel):
        for _ in range(3):
            kernel = kernel + descent(0.0, kernel, None) / 3
        return kernel

    ours = followed(Solver(steps=3, method=diffrax.Euler()))
    np.testing.assert_allclose(ours(kernel), by_hand(kernel), rtol=1e-12, atol=1e-14)
    slopes = [jax.grad(lambda k, end=end: jnp.sum(jnp.sin(end(k))))(kernel) for end in (ours, by_hand)]
    np.testing.assert_allclose(*slopes, rtol=1e-10, atol=1e-12)


def test_an_equal_field_is_compiled_once():
    traced = []

    def field(t, y, args):
        traced.append(None)
        return -y

    flow(field, jnp.ones(2), 0.0, 1.0, solver=Solver(steps=3))
    once = len(traced)
    flow(field, jnp.zeros(2), 0.0, 1.0, solver=Solver(steps=3))
    assert len(traced) == once
