"""A convolutional loss is met with the convolutions that XLA is fast at in loops on a CPU, by every solver that loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from nablax import estimate, optimize

DRAWS = np.random.default_rng(0)
# As many rows and channels as it takes for groups of them, which vmap makes, to be worth it.
KERNEL = jnp.asarray(DRAWS.normal(size=(6, 6, 3, 3)), jnp.float32) / 20
X = jnp.asarray(DRAWS.normal(size=(8, 6, 4, 4)), jnp.float32)
KEY = jax.random.key(0)
CROWD = jnp.stack([KERNEL, 2 * KERNEL])


def outputs(kernel, x):
    """Channels first, as Equinox has them; two layers, so that one gradient is of a layer's input."""
    first = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
    return lax.conv_general_dilated(first, kernel, (1, 1), "SAME")


def loss(kernel, x=X):
    return jnp.mean(outputs(kernel, x) ** 2) + jnp.sum(kernel**2)


def near(kernel, params):
    return loss(kernel) + jnp.sum((kernel - params) ** 2)


def size(kernel):
    return jnp.sum(jnp.abs(kernel))


RATES = {"rate": 0.01, "lower_rate": 0.1, "system_rate": 0.1}
SMOOTH = estimate.Smoothness(convexity=1.0, hessian=0.0, mixed=0.0, upper=1.0, mixed_norm=2.0)
SOLVERS = {
    "consensus": lambda k: optimize.consensus(loss, jnp.stack([k, 2 * k]), steps=2, key=KEY).params,
    "averaged_langevin": lambda k: optimize.averaged_langevin(
        lambda x: loss(x.reshape(k.shape)), k.ravel(), steps=2, step_size=0.01, key=KEY).params,
    "mean_field_descent_ascent": lambda k: optimize.mean_field_descent_ascent(
        lambda x, y: loss(x) - loss(y), (CROWD + k[None], CROWD), steps=2, step_size=0.01, sharpness=1.0, key=KEY
    ).params,
    "bo_rep": lambda k: optimize.bo_rep(
        lambda x, params, key: loss(x), lambda x, params, key: near(x, params), k, k, steps=2, key=KEY, **RATES
    ).params,
    "lv_hba": lambda k: optimize.lv_hba(
        lambda x, params: loss(x), near, lambda x, params: loss(x)[None] - 1, lambda x, params: (x, params), k, k,
        steps=2, rate=0.01, answer_rate=0.01, centre_rate=0.1, proximity=1.0,
    ).params,
    "maid": lambda k: optimize.maid(loss, near, k, k, smoothness=SMOOTH, curvature=10.0, steps=2).params,
    "gradient_sliding": lambda k: optimize.gradient_sliding(
        loss, size, k, curvature=100.0, convexity=1.0, steps=2
    ).params,
    "accelerated_gradient_sliding": lambda k: optimize.accelerated_gradient_sliding(
        loss, size, lambda x, width: jnp.sum(jnp.sqrt(x**2 + width)), k,
        curvature=100.0, convexity=1.0, coupling=1.0, steps=2,
    ).params,
    "proxy_descent": lambda k: optimize.proxy_descent(loss, loss, k, rate=0.1, steps=2).params,
    "landscape_learning": lambda k: optimize.landscape_learning(
        lambda x, y: jnp.mean((x - y) ** 2), lambda trained, z: outputs(trained, z)[0], k, X[:1], X,
        rate=0.1, steps=2, batch_size=1, key=KEY, optimizer=optax.sgd(0.1),
    ).params,
}  # fmt: skip
RULES = {
    "entropy_sgd": optimize.scale_by_local_entropy(1.0, steps=3, key=KEY),
    "target_surrogate": optimize.target_surrogate(
        optax.sgd(0.1), lambda k, x: outputs(k, x[None])[0].ravel(), lambda out, x: jnp.mean(out**2), eta=0.5, steps=2
    ),
    "spider": optimize.scale_by_spider(),
    "oasis": optimize.oasis(key=KEY),
    "psgd": optimize.scale_by_psgd("newton", key=KEY),
    "thermodynamic_natural_gradient": optimize.scale_by_thermodynamic_natural_gradient(1.0, key=KEY),
    "saddle_free_newton": optimize.scale_by_saddle_free_newton(damping=(0.1, 1.0)),
    "gradient_normalised_newton": optimize.gradient_normalised_newton(),
}


def updated(rule):
    def once(kernel, _=None):
        extra = {
            "value": jnp.ones(()),
            "value_fn": loss,
            "grad_fn": jax.value_and_grad(loss),
            "product_fn": lambda v: jax.jvp(jax.grad(loss), (kernel,), (v,))[1],
            "inputs": X,
        }
        update, _ = rule.update(jnp.ones_like(kernel), rule.init(kernel), kernel, **extra)
        return kernel + update, None

    return once


def branching(rule):
    """Within a loop of one round, so that convolutions in branches count, which are no faster than those in loops."""
    return lambda kernel: lax.scan(updated(rule), kernel, length=1)[0]


CALLS = SOLVERS | {
    name: branching(rule) if name in ("spider", "oasis", "psgd") else updated(rule) for name, rule in RULES.items()
}


@pytest.mark.parametrize("call", CALLS)
def test_loops_hold_fast_convolutions_alone(call, loops_are_fast):
    loops_are_fast(CALLS[call], KERNEL)


def test_a_linear_operator_holds_them_too():
    """Lineax keeps the operator out of the traced program's sight, so that the lowered one is read."""
    text = jax.jit(updated(optimize.scale_by_natural_gradient())).lower(KERNEL).as_text()
    layouts = re.findall(r"stablehlo.convolution.*dim_numbers = (.*?), window", text)
    assert layouts and set(layouts) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
