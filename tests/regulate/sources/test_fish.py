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
        aggregator = fish(rate)

        def one(order):
            return aggregator.update(grads[order[0]], aggregator.init(w), w, domain_grad=domain_grad, order=order)[0]

        expected = jnp.mean(grads, axis=0) - rate / 6 * jax.grad(products)(w)
        return jnp.linalg.norm(jnp.mean(jax.vmap(one)(orders), axis=0) - expected)

    first, second = float(error(1e-2)), float(error(5e-3))
    assert first < 0.02 and np.log2(first / second) == pytest.approx(2, abs=0.2)


def test_the_outer_step_is_a_share_of_the_walk():
    w, rate = jnp.linspace(-1.0, 1.0, 4), 0.05
    aggregator = fish(rate)
    order = jnp.array([2, 0, 1])
    first = domain_grad(w, order[0])
    updates, _ = aggregator.update(first, aggregator.init(w), w, domain_grad=domain_grad, order=order)
    end = w
    for index in order:
        end = end - rate * domain_grad(end, index)
    np.testing.assert_allclose(w - 3 * rate * updates, end, rtol=1e-5, atol=1e-6)


def test_it_visits_every_domain_once_and_takes_as_many_gradients_as_there_are():
    """With gradients that are constants, digits of a number say which domains were visited and how often."""
    sizes, visited = jnp.array([1.0, 10.0, 100.0, 1000.0]), []
    regulator = fish(0.1)

    def slope(w, index):
        jax.debug.callback(lambda i: visited.append(int(i)), index)
        return sizes[index] * (1 + 0 * w)

    order = jnp.array([2, 0, 3, 1])
    updates, _ = regulator.update(
        sizes[2], regulator.init(None), jnp.array(0.0), domain_grad=slope, order=order, unknown=1
    )
    np.testing.assert_allclose(4 * updates, 1111.0, rtol=1e-6)
    jax.effects_barrier()
    assert visited == [0, 3, 1]


def test_faults():
    for rate, words in ((-0.1, "expected inner_rate, a finite number at least 0, got -0.1"), ("0.1", "got a str")):
        with pytest.raises(ValueError, match=words):
            fish(rate)
    regulator = fish(0.1)
    for given, words in (
        ({"order": jnp.arange(3)}, "domain_grad"),
        ({"domain_grad": domain_grad}, "order=... at the update of fish, got none. Pass order="),
        ({"domain_grad": domain_grad, "order": jnp.array([0])}, "two at least"),
        ({"domain_grad": domain_grad, "order": jnp.eye(3)}, "two at least"),
    ):
        with pytest.raises(ValueError, match=words):
            regulator.update(CENTRES[0], regulator.init(None), CENTRES[0], **given)
