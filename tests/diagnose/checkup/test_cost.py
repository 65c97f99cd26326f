"""What a check-up takes: programs, and memory beside a training step's."""

import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.calculus import lanczos
from nablax.diagnose import checkup
from nablax.diagnose._checkup._checkup import _measure
from nablax.diagnose._checkup._curvature import hessian
from nablax.diagnose._checkup._shared import Asked, Effort, Given
from nablax.diagnose._checkup._verdict import DEFAULT

KEY = jax.random.key(0)


def chain(weights, x):
    """Of many layers, whose values are all that a gradient needs."""
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return jnp.mean(x**2)


def temporary(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def by_map(product, start):
    return jax.lax.map(product, jnp.stack([start] * 8))


def by_lanczos(product, start):
    return lanczos(product, start, steps=8)


@pytest.mark.parametrize("loop", [by_map, by_lanczos])
def test_a_loop_of_hessian_products_takes_the_memory_of_one(loop):
    """Kept from one to the next, as by a linearisation, every layer's values would be there twice."""
    width, layers, rows = 8, 16, 4096
    x = jax.random.normal(KEY, (rows, width))
    weights = jax.random.normal(jax.random.key(1), (layers * width**2,)) / width**0.5
    value = lambda vector: chain(vector.reshape(layers, width, width), x)  # noqa: E731

    one = temporary(lambda at, v: hessian(value, at)(v), weights, weights)
    many = temporary(lambda at, v: loop(hessian(value, at), v), weights, weights)
    kept = temporary(lambda at, v: loop(jax.linearize(jax.grad(value), at)[1], v), weights, weights)
    assert many < 1.15 * one < 0.85 * kept


def test_hessian_products_are_those_of_the_hessian():
    x = jax.random.normal(KEY, (5, 3))
    value = lambda vector: chain(vector.reshape(2, 3, 3), x)  # noqa: E731
    at = jax.random.normal(jax.random.key(1), (18,))
    dense = jax.hessian(value)(at)
    product = hessian(value, at)
    np.testing.assert_allclose(jax.vmap(product)(jnp.eye(18)), dense, atol=1e-6)
    np.testing.assert_allclose(jax.linearize(product, at)[1](at), dense @ at, atol=1e-6)


def test_memory_beside_a_training_step():
    """Of arguments, answer and what is held between: of a perceptron 3.1 times as much (guide), by the compiler's count.

    The bound leaves it room to put its buffers in another order; with a linearisation kept it was 4.8.
    """
    random = np.random.default_rng(0)
    batch = random.normal(size=(512, 64)).astype(np.float32), random.integers(0, 10, size=512)
    shapes = ((64, 96), (96,), (96, 96), (96,), (96, 10), (10,))
    params = [jnp.asarray(random.normal(size=shape) / shape[0] ** 0.5, jnp.float32) for shape in shapes]

    def logits(params, batch):
        hidden = jax.nn.relu(batch[0] @ params[0] + params[1][None])
        return jax.nn.relu(hidden @ params[2] + params[3][None]) @ params[4] + params[5][None]

    def loss(params, batch):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1]))

    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)

    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    def whole(compiled):
        used = compiled.memory_analysis()
        return used.argument_size_in_bytes + used.temp_size_in_bytes + used.output_size_in_bytes

    asked, given = Asked(loss, None, None, logits, None, optimizer), Given(params, batch, state, None, None, None, KEY)
    checked = (
        eqx.filter_jit(_measure.__wrapped__)
        .lower(asked, given, Effort(128, 8, 5), None, None, DEFAULT)
        .compile()
        .compiled
    )
    assert whole(checked) < 3.6 * whole(jax.jit(step).lower(params, state, batch).compile())


def test_a_check_up_is_one_program():
    """Of the loss there is one compiled, for as long as it is the same; by its name, beside those that check a key."""
    compiled = []

    class Names(logging.Handler):
        def emit(self, record):
            compiled.append(record.getMessage())

    logger, handler = logging.getLogger("jax._src.dispatch"), Names(logging.DEBUG)
    x, optimizer = jax.random.normal(KEY, (32, 3)), optax.sgd(0.1)
    call = {"optimizer": optimizer, "key": KEY, "steps": 2, "rows": 8}
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        for start in (jnp.ones(3), jnp.zeros(3)):
            checkup(square, start, x, **call)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    programs = [said for said in compiled if said.startswith("Finished XLA compilation of jit(_")]
    assert len([said for said in programs if "_measure" in said]) == 1
    assert not [said for said in programs if "_further" in said]


def square(params, x):
    return jnp.mean((x @ params - 1.0) ** 2)
