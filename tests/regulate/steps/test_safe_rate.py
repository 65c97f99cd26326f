"""A step held under the limit: quadratics whose limit is known, networks that a rate kills, and what is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import follow, regulate

CURVATURES = jnp.array([0.1, 1.0, 10.0])


def descend(optimizer, steps, curvatures=CURVATURES, start=None):
    start = jnp.ones_like(curvatures) if start is None else start

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(curvatures * x, state, x, product_fn=lambda v: curvatures * v)
        return (optax.apply_updates(x, updates), state), (0.5 * jnp.sum(curvatures * x**2), state.scale, state.ratio)

    (x, state), course = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=steps))()
    return x, state, course


@pytest.mark.parametrize("rate", [0.3, 3.0, 300.0, 3e6])
@pytest.mark.parametrize("make", [optax.sgd, lambda r: optax.sgd(r, 0.9), lambda r: optax.sgd(r, 0.9, nesterov=True)])
def test_a_quadratic_converges_at_any_rate(make, rate):
    """Alone these diverge from a rate of 2/10 (3.8/10 with momentum) on."""
    x, _, (values, scales, _) = descend(regulate.safe_rate(make(rate)), 400)
    assert values[-1] < 1e-3 * values[0] and np.all(np.isfinite(x))
    if rate > 0.4:
        plain = make(rate)
        state, x = plain.init(jnp.ones(3)), jnp.ones(3)
        for _ in range(30):
            updates, state = plain.update(CURVATURES * x, state, x)
            x = x + updates
        assert not np.sum(CURVATURES * x**2) <= values[0]
        assert np.all(scales < 1)


@pytest.mark.parametrize("limit", [0.5, 1.0, 1.9])
def test_the_scale_is_the_limit_over_what_was_measured(limit):
    """Along an eigenvector gradient descent's ratio is rate times curvature, and c over it the scale."""
    for curvature, rate in ((10.0, 1.0), (0.5, 100.0), (1e6, 3e-5)):
        optimizer = regulate.safe_rate(optax.sgd(rate), limit=limit)
        x = jnp.ones(1)
        update, state = optimizer.update(curvature * x, optimizer.init(x), x, product_fn=lambda v, c=curvature: c * v)
        np.testing.assert_allclose(state.ratio, rate * curvature, rtol=1e-6)
        np.testing.assert_allclose(state.scale, limit / (rate * curvature), rtol=1e-6)
        np.testing.assert_allclose(update, -limit * x, rtol=1e-6)


@pytest.mark.parametrize("make", [optax.sgd, lambda r: optax.sgd(r, 0.5), optax.adam])
def test_a_safe_rate_is_passed_on_bit_by_bit(make):
    optimizer, plain = regulate.safe_rate(make(1e-3)), make(1e-3)
    x, state, (_, scales, ratios) = descend(optimizer, 60)

    def step(carry, _):
        x, state = carry
        updates, state = plain.update(CURVATURES * x, state, x)
        return (optax.apply_updates(x, updates), state), None

    start = jnp.ones(3)
    (alone, _), _ = jax.jit(lambda: jax.lax.scan(step, (start, plain.init(start)), length=60))()
    assert np.all(scales == 1) and np.all(ratios < 1) and int(state.step) == 60
    np.testing.assert_array_equal(x, alone)


def test_it_is_measured_at_every_early_step_and_then_every_few():
    calls = []

    def product(vector):
        jax.debug.callback(lambda: calls.append(1))
        return CURVATURES * vector

    optimizer = regulate.safe_rate(optax.sgd(1e-3), every=7)
    step = jax.jit(lambda x, state: optimizer.update(CURVATURES * x, state, x, product_fn=product))
    state, made = optimizer.init(jnp.ones(3)), []
    for _ in range(60):
        calls.clear()
        _, state = step(jnp.ones(3), state)
        jax.effects_barrier()
        made.append(len(calls))
    assert made == [1 if k < 20 or k % 7 == 0 else 0 for k in range(60)]


def test_the_scale_comes_back_when_the_curvature_is_gone():
    optimizer = regulate.safe_rate(optax.sgd(1.0), every=1)
    x, state = jnp.ones(1), optimizer.init(jnp.ones(1))
    scales = []
    for k in range(80):
        curvature = 100.0 if k < 2 else 0.01
        _, state = optimizer.update(curvature * x, state, x, product_fn=lambda v, c=curvature: c * v)
        scales.append(float(state.scale))
    np.testing.assert_allclose(scales[:2], 0.01, rtol=1e-6)
    np.testing.assert_allclose(scales[2:40], 0.01 * 1.1 ** np.arange(1, 39), rtol=1e-4)
    assert max(np.diff(scales[2:])) < 0.1 * 1.1
    assert scales[-1] == 1


def test_what_says_nothing_changes_nothing_and_what_is_not_finite_is_retreated_from():
    optimizer = regulate.safe_rate(optax.sgd(1.0))
    x = jnp.ones(2)
    state = optimizer.init(x)
    for product in (lambda v: -5 * v, lambda v: 0 * v):  # downhill ever steeper, or straight
        update, after = optimizer.update(x, state, x, product_fn=product)
        assert float(after.scale) == 1 and float(after.ratio) == 0 and np.array_equal(update, -x)
    uphill = regulate.safe_rate(optax.scale(1.0))
    assert float(uphill.update(x, uphill.init(x), x, product_fn=lambda v: 50 * v)[1].scale) == 1
    _, after = optimizer.update(x, state, x, product_fn=lambda v: jnp.inf * v)
    assert float(after.scale) == np.float32(0.1) and float(after.ratio) == np.inf


def test_a_stack_of_gradients_is_judged_by_its_mean():
    optimizer = regulate.safe_rate(optax.chain(regulate.upgrad(), optax.sgd(100.0)))

    def losses(x, centres):
        return 0.5 * jnp.sum((x[None] - centres) ** 2, axis=1)

    step = follow.train_step(losses, optimizer, value_and_grad=regulate.multi_value_and_grad)
    x, centres = jnp.array([5.0, 1.0]), jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    state = optimizer.init(x)
    for _ in range(30):
        x, state, values = jax.jit(step)(x, state, centres)
    assert np.abs(x[1]) < 1e-4 and np.abs(x[0]) <= 1 + 1e-4  # on the Pareto set
    with pytest.raises(ValueError, match="Pass grad=, the mean of the stack"):
        optimizer.update(jnp.ones((2, 2)), optimizer.init(x), x, product_fn=lambda v: v)


def test_arguments_are_checked():
    for wrong in (0, -1, 2, 2.5, float("nan")):
        with pytest.raises(ValueError, match="a limit between 0 and 2"):
            regulate.safe_rate(optax.sgd(1.0), limit=wrong)
    with pytest.raises(ValueError, match="every as a whole number, at least 1"):
        regulate.safe_rate(optax.sgd(1.0), every=0)
    with pytest.raises(ValueError, match="optimizer"):
        regulate.safe_rate(optax.adam)
    optimizer = regulate.safe_rate(optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"product_fn=... at the update of safe_rate"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="a product that"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2), product_fn=jnp.sum)


def digits_loss(model, batch):
    x, y = batch
    hidden = jax.nn.relu(jax.nn.relu(x @ model["first"]) @ model["second"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(hidden @ model["out"], y))


@pytest.mark.parametrize("make", [lambda: optax.sgd(10.0), lambda: optax.sgd(1.0, 0.9), lambda: optax.adam(0.5)])
def test_a_network_that_a_rate_kills_is_rescued(make):
    """Rates ten to thirty times the best: alone each stays at chance, ln 10 = 2.3."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    data = (jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels))
    one, two, three = jax.random.split(jax.random.key(0), 3)
    model = {
        "first": jax.random.normal(one, (64, 64)) * (2 / 64) ** 0.5,
        "second": jax.random.normal(two, (64, 64)) * (2 / 64) ** 0.5,
        "out": jax.random.normal(three, (64, 10)) * (2 / 64) ** 0.5,
    }
    given = {"steps": 300, "batch_size": 64, "key": jax.random.key(1)}
    plain = follow.fit(digits_loss, model, data, optimizer=make(), **given)
    held = follow.fit(digits_loss, model, data, optimizer=regulate.safe_rate(make()), **given)
    assert plain.result == "diverged" or np.mean(plain.history.loss[-20:]) > 1.5
    assert held.result == "completed" and np.mean(held.history.loss[-20:]) < 0.4
