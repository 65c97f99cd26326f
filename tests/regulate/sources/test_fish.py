import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import fish

CENTRES = jax.random.normal(jax.random.key(1), (3, 4))


def losses(w):
    return jnp.array([jnp.sum(jnp.sin(w + c) + (w - c) ** 2 * w**2 / 5) for c in CENTRES])


def domain_grad(w, index):
    return jax.grad(lambda w: losses(w)[index])(w)


def test_mean_over_orders_is_the_gradient_of_the_matching_objective_to_second_order(x64):
    w = jnp.linspace(-1.0, 1.0, 4)
    grads = jax.jacobian(losses)(w)
    orders = jnp.array(list(itertools.permutations(range(3))))

    def products(w):
        g = jax.jacobian(losses)(w)
        return g[0] @ g[1] + g[0] @ g[2] + g[1] @ g[2]

    @jax.jit
    def error(rate):
        aggregator = fish(rate, key=jax.random.key(0))

        def one(order):
            return aggregator.update(grads, aggregator.init(w), w, domain_grad=domain_grad, order=order)[0]

        expected = jnp.mean(grads, axis=0) - rate / 6 * jax.grad(products)(w)
        return jnp.linalg.norm(jnp.mean(jax.vmap(one)(orders), axis=0) - expected)

    first, second = float(error(1e-2)), float(error(5e-3))
    assert first < 0.02 and np.log2(first / second) == pytest.approx(2, abs=0.2)


def test_the_outer_step_is_a_share_of_the_walk():
    w, rate = jnp.linspace(-1.0, 1.0, 4), 0.05
    aggregator = fish(rate, key=jax.random.key(0))
    order = jnp.array([2, 0, 1])
    updates, _ = aggregator.update(jax.jacobian(losses)(w), aggregator.init(w), w, domain_grad=domain_grad, order=order)
    end = w
    for index in order:
        end = end - rate * domain_grad(end, index)
    np.testing.assert_allclose(w - 3 * rate * updates, end, rtol=1e-5, atol=1e-6)


def test_orders_come_from_the_key_and_change():
    w = jnp.linspace(-1.0, 1.0, 4)
    aggregator = fish(0.2, key=jax.random.key(0))
    state, seen = aggregator.init(w), set()
    for _ in range(12):
        updates, state = aggregator.update(jax.jacobian(losses)(w), state, w, domain_grad=domain_grad)
        seen.add(round(float(updates[0]), 5))
    assert 1 < len(seen) <= 6


def test_faults():
    aggregator = fish(0.1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="domain_grad"):
        aggregator.update(CENTRES, aggregator.init(CENTRES[0]), CENTRES[0])
    with pytest.raises(ValueError, match="order"):
        aggregator.update(
            CENTRES, aggregator.init(CENTRES[0]), CENTRES[0], domain_grad=domain_grad, order=jnp.array([0, 1])
        )
