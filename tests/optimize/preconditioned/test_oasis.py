"""OASIS on quadratics, where its rate is known, and in units that it should not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

KEY = jax.random.key(0)


def run(rule, start, gradient, product, steps):
    """Parameters and rates, by one compiled loop."""

    def step(carry, _):
        x, state = carry
        update, state = rule.update(
            gradient(x), state, x, product_fn=lambda v: product(x, v), grad_fn=lambda w: (0.0, gradient(w))
        )
        return (x + update, state), (x + update, state.rate)

    return jax.jit(lambda: jax.lax.scan(step, (start, rule.init(start)), length=steps))()[1]


def test_the_rate_is_a_half_on_a_diagonal_and_stays_a_number_at_the_end(x64):
    curvature = jnp.geomspace(1e-3, 1e3, 5)
    path, rates = run(
        optimize.oasis(key=KEY), jnp.ones(5), lambda x: curvature * x, lambda x, v: curvature * v, steps=1200
    )
    np.testing.assert_allclose(rates[0], 1e-3)
    np.testing.assert_allclose(rates[1:30], 0.5, rtol=1e-12)
    np.testing.assert_allclose(path[29], 0.999 * 0.5**29, rtol=1e-9)
    assert np.all(np.isfinite(rates)) and np.all(np.abs(path[-1]) < 1e-150)


def test_units_of_the_loss_and_of_each_parameter_drop_out(x64):
    units, unit = jnp.array([1e-2, 1.0, 30.0, 1e3]), 50.0
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(12, 4)))

    def apart(x):  # a diagonal Hessian, of which the estimate is exact
        return jnp.tanh(3 * x - 1) + 0.1 * x

    def coupled(x):
        return rows.T @ jnp.tanh(rows @ x - 1)

    rule, start = optimize.oasis(b2=0.9, floor=1e-12, key=KEY), jnp.ones(4)
    for gradient, scale in ((apart, units), (coupled, jnp.ones(4))):

        def in_units(y, gradient=gradient, scale=scale):  # y = scale * x
            return unit * gradient(y / scale) / scale

        (path, rates), (other, same) = (
            run(rule, at, f, lambda x, v, f=f: jax.jvp(f, (x,), (v,))[1], 25)
            for at, f in ((start, gradient), (scale * start, in_units))
        )
        np.testing.assert_allclose(same, rates, rtol=1e-6)
        np.testing.assert_allclose(other / scale[None], path, rtol=1e-6, atol=1e-9)
        assert np.linalg.norm(gradient(path[-1])) < 0.1 * np.linalg.norm(gradient(start))


@pytest.mark.parametrize("missing", ["product_fn", "grad_fn"])
def test_what_it_needs_is_named(missing):
    rule, x = optimize.oasis(key=KEY), jnp.ones(2)
    given = {"product_fn": lambda v: v, "grad_fn": lambda w: (0.0, w)}
    given.pop(missing)
    with pytest.raises(ValueError, match=rf"{missing}=\.\.\. at the update of oasis"):
        rule.update(x, rule.init(x), x, **given)
