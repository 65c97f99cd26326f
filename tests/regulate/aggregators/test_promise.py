"""What is promised of a direction holds on the vector itself: no conflict, and nothing where gradients cancel."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import regulate

PROMISE = ["upgrad", "dual_projection", "mgda"]


def cancelling(count, dim, seed, scale=1.0):
    """Gradients of which a positive combination is zero: a Pareto-stationary point."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, dim))
    weights = random.uniform(0.2, 2, size=count)
    rows[-1] = -(weights[:-1] @ rows[:-1]) / weights[-1]
    return scale * rows


@pytest.mark.parametrize("name", PROMISE)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_nothing_is_left_at_stationary_points_of_any_scale(name, dtype):
    with jax.enable_x64(True):
        method = getattr(regulate, name)(throw=False)
        state = method.init(jnp.zeros(200, dtype))
        step = jax.jit(method.update)
        for count, scale in itertools.product((2, 5, 16), (1e-15, 1.0, 1e15)):
            for seed in range(4):
                vector, after = step(jnp.asarray(cancelling(count, 200, seed, scale), dtype), state)
                assert not np.any(np.asarray(vector, np.float64)) and bool(after.stationary), (count, scale, seed)


@pytest.mark.parametrize("name", PROMISE)
def test_what_is_short_and_above_rounding_is_kept(name):
    """Cancelling to a thousandth (a millionth in double) leaves a direction, which is right and called no rest."""
    with jax.enable_x64(True):
        for dtype, share in (("float32", 1e-3), ("float64", 1e-9)):
            method = getattr(regulate, name)()
            for seed in range(4):
                common = np.random.default_rng(seed + 10).normal(size=200)
                rows = jnp.asarray(cancelling(3, 200, seed) + share * common, dtype)
                vector, state = jax.jit(method.update)(rows, method.init(jnp.zeros(200, dtype)))
                vector, rows = np.asarray(vector, np.float64), np.asarray(rows, np.float64)
                assert not state.stationary and np.any(vector)
                cosines = rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector)
                assert cosines.min() > -10 * np.finfo(dtype).eps / share


def test_adam_after_an_aggregator_stays_on_the_pareto_set():
    """Two quadratics at a point between their minima, where rounding alone would send Adam along the set."""
    ends = jnp.array([[1.0, 2.0, 0.3], [-2.0, 0.7, 1.1]])
    start = 0.3 * ends[0] + 0.7 * ends[1]

    def losses(x):
        return 0.5 * jnp.sum((x[None] - ends) ** 2, axis=1)

    optimizer = optax.chain(regulate.upgrad(objectives=2), optax.adam(0.1))

    def step(carry, _):
        x, state = carry
        grads = regulate.multi_value_and_grad(losses)(x)[1]
        updates, state = optimizer.update(grads, state, x)
        return (optax.apply_updates(x, updates), state), state[0].stationary

    (x, _), rest = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=50))()
    assert np.all(rest) and np.array_equal(x, start)


@pytest.mark.parametrize("name", PROMISE)
def test_gradients_nearly_parallel_or_opposite_in_single_precision(name):
    """Angles down to 1e-5, which the Gramian's rounding (5e-4) does not resolve."""
    method = getattr(regulate, name)()
    step = jax.jit(lambda grads: method.update(grads, method.init(jnp.zeros(50))))
    random = np.random.default_rng(0)
    for count, angle in itertools.product((2, 3, 8), (1e-5, 1e-4, 3e-4, 1e-3)):
        for case in range(10):
            base, signs = random.normal(size=50), (-1.0) ** np.arange(count) if case % 2 else np.ones(count)
            noise = random.normal(size=(count, 50)) / np.sqrt(50)
            rows = signs[:, None] * base + angle * np.linalg.norm(base) * noise
            vector, state = step(jnp.asarray(rows, jnp.float32))
            rows, vector = np.asarray(jnp.asarray(rows, jnp.float32), np.float64), np.asarray(vector, np.float64)
            norms = np.linalg.norm(rows, axis=1)
            if not state.stationary:
                worst = (rows @ vector / norms).min() / np.linalg.norm(vector)
                assert worst > -2 * np.finfo(np.float32).eps, (count, angle, worst)
            # At rest only where the angle is near the rounding of the gradients themselves.
            assert angle < 1e-4 or not state.stationary


@pytest.mark.parametrize("name", ["upgrad", "dual_projection"])
def test_a_direction_mended_in_single_precision_is_the_one_of_double(name):
    random = np.random.default_rng(1)
    with jax.enable_x64(True):
        method = getattr(regulate, name)()
        step = jax.jit(lambda grads: method.update(grads, method.init(grads[0]))[0])
        for angle in (1e-3, 3e-4, 1e-4):
            for _ in range(5):
                base = random.normal(size=50)
                rows = np.stack([base, -base]) + angle * random.normal(size=(2, 50))
                single = jnp.asarray(rows, jnp.float32)
                found, exact = (np.asarray(step(x), np.float64) for x in (single, single.astype(jnp.float64)))
                cosine = found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)
                assert cosine > 1 - 1e-4 and np.isclose(np.linalg.norm(found), np.linalg.norm(exact), rtol=0.02)
