"""Metagradients against the full unroll, with replays that are the same to the bit and few states held."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import estimate

DRAWS = np.random.default_rng(0)
X, Y = DRAWS.normal(size=(40, 3)), DRAWS.normal(size=40)


def training():
    """Adam on a small net, a random batch each step, with a rate for each of four phases and a weight for each row."""
    optimizer = optax.scale_by_adam(eps_root=1e-6)

    def fresh():
        net = {"in": jnp.asarray(DRAWS.normal(size=(3, 4))), "out": jnp.ones(4)}
        return net, optimizer.init(net), jax.random.key(1)

    def loss(net, weights, rows):
        found = jnp.tanh(jnp.asarray(X)[rows] @ net["in"]) @ net["out"]
        return jnp.mean(weights[rows] * (found - jnp.asarray(Y)[rows]) ** 2)

    def update(state, meta, step):
        net, inner, key = state
        rows = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 40)
        changes, inner = optimizer.update(jax.grad(loss)(net, meta["weights"], rows), inner)
        rate = meta["rates"][step % 4]
        return jax.tree.map(lambda p, c: p - rate * c, net, changes), inner, key

    def metric(state, meta):
        return loss(state[0], jnp.ones(40), jnp.arange(40)) + jnp.sum(meta["rates"] ** 2)

    meta = {"rates": jnp.array([0.01, 0.02, 0.005, 0.01]), "weights": jnp.ones(40), "name": "schedule"}
    return update, metric, meta, fresh()


@pytest.mark.parametrize(("steps", "branching"), [(100, 3), (64, 4), (37, 10), (1, 2)])
def test_it_is_the_gradient_of_the_full_unroll(x64, steps, branching):
    update, metric, meta, state = training()

    def unrolled(rates, weights):
        params = meta | {"rates": rates, "weights": weights}
        last = jax.lax.scan(lambda s, t: (update(s, params, t), None), state, jnp.arange(steps))[0]
        return metric(last, params)

    value, grads = jax.jit(
        lambda meta: estimate.metagradient(update, metric, steps=steps, branching=branching)(
            meta | {"name": "schedule"}, state
        )
    )({name: meta[name] for name in ("rates", "weights")})
    truth, slopes = jax.jit(jax.value_and_grad(unrolled, argnums=(0, 1)))(meta["rates"], meta["weights"])
    np.testing.assert_allclose(value, truth, rtol=1e-12)
    np.testing.assert_allclose(grads["rates"], slopes[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(grads["weights"], slopes[1], rtol=1e-12, atol=1e-14)
    assert grads["name"] is None


@pytest.mark.parametrize(("steps", "branching"), [(64, 4), (50, 3)])
def test_a_step_that_runs_again_is_the_same_to_the_bit_and_not_more_run_than_said(steps, branching):
    seen = collections.defaultdict(list)

    def update(x, rate, step):
        jax.debug.callback(lambda step, x: seen[int(step)].append(x.tobytes()), step, x)
        return jnp.sin(3.0 * x + rate) - rate * jnp.exp(-(x**2))

    through = jax.jit(estimate.metagradient(update, jnp.dot, steps=steps, branching=branching))
    jax.block_until_ready(through(jnp.full(5, 0.3), jnp.linspace(0.0, 1.0, 5)))
    jax.effects_barrier()
    assert sorted(seen) == list(range(steps))
    assert all(len(set(states)) == 1 for states in seen.values())
    # Besides the replays each step runs once within its own reverse.
    levels = math.ceil(math.log(steps) / math.log(branching) - 1e-9)
    replayed = sum(len(states) for states in seen.values()) - steps
    assert steps < replayed <= levels * steps


def test_few_states_are_held(x64):
    """Of the compiled program's memory: states of 80 kB, 4,096 steps."""
    size = 10_000

    def update(x, rate, step):
        return x - rate * jnp.sin(x)

    def held(function):
        memory = jax.jit(function).lower(jnp.array(0.1), jnp.ones(size)).compile().memory_analysis()
        return memory.temp_size_in_bytes / (8 * size)

    through = estimate.metagradient(update, lambda x, rate: jnp.sum(x), steps=4096, branching=8)
    # 29 of the tree, the present one, its cotangent, and what one reverse step keeps.
    assert 29 <= held(through) < 40
    fewer = estimate.metagradient(update, lambda x, rate: jnp.sum(x), steps=4096, branching=2)
    assert 13 <= held(fewer) < 24


def test_a_batch_of_metaparameters_and_arguments(key):
    def update(x, rate, step, target):
        return x - rate * (x - target)

    through = estimate.metagradient(update, lambda x, rate, target: jnp.sum(x**2), steps=9, branching=2)
    rates = jnp.array([0.1, 0.3])
    values, slopes = jax.vmap(lambda rate: through(rate, jnp.ones(2), jnp.zeros(2)))(rates)
    np.testing.assert_allclose(values, 2 * (1 - rates) ** 18, rtol=1e-5)
    np.testing.assert_allclose(slopes, -36 * (1 - rates) ** 17, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.metagradient(3, jnp.sum, steps=3), "update, a function"),
        (lambda: estimate.metagradient(jnp.sum, None, steps=3), "metric, a function"),
        (lambda: estimate.metagradient(jnp.sum, jnp.sum, steps=0), "steps"),
        (lambda: estimate.metagradient(jnp.sum, jnp.sum, steps=9, branching=1), "branching"),
        (lambda: ready(lambda x, p, t: x)(1, jnp.ones(2)), "real floating-point leaves"),
        (lambda: ready(lambda x, p, t: x)(jnp.array(1.0), 2.0), "a state with arrays"),
        (lambda: ready(lambda x, p, t: x[:1])(jnp.array(1.0), jnp.ones(2)), "after a step"),
        (lambda: ready(lambda x, p, t: x > p)(jnp.array(1.0), jnp.ones(2)), "a state of the dtypes"),
        (lambda: ready(lambda x, p, t: x, lambda x, p: x)(jnp.array(1.0), jnp.ones(2)), "a metric"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def ready(update, metric=lambda x, p: jnp.sum(x)):
    return estimate.metagradient(update, metric, steps=3)
