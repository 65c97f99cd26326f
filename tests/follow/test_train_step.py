"""One step against the same step by hand, whatever takes the gradient and whatever the optimiser asks for."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import regulate
from nablax.follow import fit, train_step

X = jax.random.normal(jax.random.key(0), (24, 3))
BATCH = {"x": X, "y": X @ jnp.array([1.0, -2.0, 0.5]) + jnp.sin(X[:, 0])}
START = {"w": jnp.array([0.3, 0.1, -0.2]), "b": jnp.array(0.5)}
SETTINGS = {"steps": 6, "batch_size": 24}


def loss(params, batch):
    return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) + params["b"] - batch["y"]) ** 2)


def losses(params, batch):
    return jnp.stack([loss(params, batch), jnp.sum(params["w"] ** 2), (params["b"] - 3.0) ** 2])


def close(one, other, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), one, other)


def central(function, *, spread=1e-2):
    """An estimator of the user's: finite differences along random directions."""

    def value_and_grad(params, *args, key):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        directions = jax.random.normal(key, (8, flat.size))
        along = jax.vmap(
            lambda v: function(unravel(flat + spread * v), *args) - function(unravel(flat - spread * v), *args)
        )(directions)
        return function(params, *args), unravel(along @ directions / (16 * spread))

    return value_and_grad


def test_steps_by_fit_with_an_estimator_are_those_by_hand(key):
    out = fit(loss, START, BATCH, optimizer=optax.sgd(0.05), key=key, value_and_grad=central, **SETTINGS)
    params, values = START, []
    for k in range(6):
        draws = jax.random.fold_in(jax.random.fold_in(key, k), np.uint32(0xFFFFFFFD))
        value, grads = central(loss)(params, BATCH, key=draws)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
        values.append(value)
    close(out.last, params, rtol=1e-3)
    np.testing.assert_allclose(out.history.loss, values, rtol=1e-4)
    exact = fit(loss, START, BATCH, optimizer=optax.sgd(0.05), key=key, **SETTINGS)
    assert np.abs(exact.last["w"] - out.last["w"]).max() > 1e-3


def test_the_key_of_the_loss_is_not_that_of_the_estimator(key):
    seen = {}

    def estimator(function):
        def value_and_grad(params, batch, *, key):
            seen["estimator"] = jax.random.key_data(key)
            return jax.value_and_grad(function)(params, batch)

        return value_and_grad

    def noisy(params, batch, *, key):
        seen["loss"] = jax.random.key_data(key)
        return loss(params, batch) + params["b"] * jax.random.normal(key)

    step = train_step(noisy, optax.sgd(0.1), value_and_grad=estimator)
    found, _, value = step(START, optax.sgd(0.1).init(START), BATCH, key=key)
    assert seen["loss"].tolist() == jax.random.key_data(key).tolist() != seen["estimator"].tolist()
    expected, grads = jax.value_and_grad(functools.partial(noisy, key=key))(START, BATCH)
    close((value, found), (expected, jax.tree.map(lambda p, g: p - 0.1 * g, START, grads)))


def test_an_estimator_may_measure_nothing(key):
    def constant(function):
        return lambda params, batch: (1.0, jax.tree.map(jnp.ones_like, params))

    out = fit(loss, START, BATCH, optimizer=optax.sgd(0.5), key=key, value_and_grad=constant, **SETTINGS)
    np.testing.assert_array_equal(out.history.loss, 1.0)
    close(out.last, jax.tree.map(lambda p: p - 3.0, START))


def test_a_wrapper_that_gives_the_loss_its_key_gets_none(key):
    def noisy(params, batch, *, key):
        return loss(params, batch) + jax.random.normal(key) * params["b"]

    @functools.wraps(noisy)
    def fixed(params, batch):
        return noisy(params, batch, key=jax.random.key(5))

    @functools.wraps(noisy)
    def handed_on(*args, **kwargs):
        return noisy(*args, **kwargs)

    def after(function, **options):
        return train_step(function, optax.sgd(0.1))(START, optax.sgd(0.1).init(START), BATCH, **options)[0]

    close(after(fixed, key=key), after(functools.partial(noisy, key=jax.random.key(5))))
    close(after(handed_on, key=key), after(noisy, key=key))
    assert abs(after(noisy, key=key)["b"] - after(fixed, key=key)["b"]) > 1e-3


def test_aggregator_and_adam_in_fit_are_those_by_hand(key):
    optimizer = optax.chain(regulate.upgrad(), optax.adam(0.05))
    gradients = regulate.multi_value_and_grad(losses)
    out = fit(
        losses, START, BATCH, optimizer=optimizer, key=key, value_and_grad=regulate.multi_value_and_grad,
        validation=BATCH, validate_every=3, **SETTINGS,
    )  # fmt: skip
    params, state, values = START, optimizer.init(START), []
    for _ in range(6):
        value, grads = gradients(params, BATCH)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        values.append(value)
    close(out.last, params, rtol=1e-4)
    assert out.history.loss.shape == out.history.validation.shape == (6, 3)
    np.testing.assert_allclose(out.history.loss, values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out.history.validation[5], losses(params, BATCH), rtol=1e-4, atol=1e-6)
    assert np.isnan(out.history.validation[[0, 1, 3, 4]]).all()


def asking(*names):
    """An optimiser that puts what it is given into its state."""

    def update(grads, state, params=None, **extra):
        return jax.tree.map(jnp.zeros_like, params), {name: extra[name] for name in names}

    return optax.GradientTransformationExtraArgs(lambda params: None, update)


def functions(grads, state, params=None, *, value_fn, grad_fn, product_fn, **extra):
    there = jax.tree.map(lambda p: p + 0.1, params)
    return jax.tree.map(jnp.zeros_like, params), (value_fn(there), grad_fn(there), product_fn(there))


@pytest.mark.parametrize("several", [False, True])
def test_what_an_optimiser_may_ask_for_is_of_the_present_batch(several):
    of, take = (losses, regulate.multi_value_and_grad) if several else (loss, jax.value_and_grad)

    def mean(params):
        return jnp.mean(of(params, BATCH))

    names = ("value", "grad", "values", "gradients") if several else ("value", "grad")
    _, found, *_ = train_step(of, asking(*names), value_and_grad=take)(START, None, BATCH)
    close((found["value"], found["grad"]), jax.value_and_grad(mean)(START))
    if several:
        close((found["values"], found["gradients"]), take(of)(START, BATCH))
    ask = optax.GradientTransformationExtraArgs(lambda params: None, functions)
    _, (value, gradient, product), *_ = train_step(of, ask, value_and_grad=take)(START, None, BATCH)
    there = jax.tree.map(lambda p: p + 0.1, START)
    np.testing.assert_allclose(value, mean(there), rtol=1e-6)
    close(gradient, take(of)(there, BATCH))
    close(product, jax.jvp(jax.grad(mean), (START,), (there,))[1], rtol=1e-4)


def test_extra_arguments_of_the_users_reach_the_rule_before_the_loops_own(key):
    def extra(params, batch, grads):
        return {"inputs": batch["x"] + params["b"], "value": jnp.array(-7.0)}

    step = train_step(loss, asking("inputs", "value"), extra=extra)
    _, found, value = step(START, None, BATCH)
    close((found["inputs"], found["value"], value), (X + 0.5, -7.0, loss(START, BATCH)))


def test_a_rule_of_the_penalised_gradient_needs_no_argument_by_hand(key):
    rate, weight = 0.05, 0.1
    optimizer = optax.chain(regulate.gradient_norm(weight, 1e-2), optax.sgd(rate))
    out = fit(loss, START, BATCH, optimizer=optimizer, key=key, **SETTINGS)
    params = START
    for _ in range(6):
        grads = jax.grad(loss)(params, BATCH)
        uphill = jax.grad(loss)(jax.tree.map(lambda p, g: p + 1e-2 * g, params, grads), BATCH)
        grads = jax.tree.map(lambda g, u: g + weight / 1e-2 * (u - g), grads, uphill)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    close(out.last, params, rtol=1e-4)


@pytest.mark.parametrize("opaque", [False, True])
def test_optaxs_sharpness_aware_steps(opaque, key):
    """It names the arguments that it takes, and its ``grad_fn`` is another."""
    optimizer = optax.contrib.sam(optax.sgd(0.1), optax.chain(optax.sgd(0.05)), sync_period=2, opaque_mode=opaque)

    def extra(params, batch, grads):
        return {"grad_fn": lambda p, _: jax.grad(loss)(p, batch)}

    out = fit(loss, START, BATCH, optimizer=optimizer, key=key, extra=extra if opaque else None, **SETTINGS)
    params = START
    for _ in range(6 if opaque else 3):
        grads = jax.grad(loss)(params, BATCH)
        uphill = jax.tree.map(lambda p, g: p + 0.05 * g, params, grads)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(uphill, BATCH))
    close(out.last, params, rtol=1e-4)


def test_side_by_side_over_rates_it_is_one_after_the_other(key):
    rates = jnp.array([0.01, 0.1, 0.3])

    def run(rate):
        optimizer = optax.adam(rate)
        step = train_step(loss, optimizer)

        def body(carry, _):
            *carry, value = step(*carry, BATCH)
            return tuple(carry), value

        return jax.lax.scan(body, (START, optimizer.init(START)), length=5)

    together = jax.jit(jax.vmap(run))(rates)
    for i, rate in enumerate(rates):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], together), run(rate))


def test_a_whole_model_and_an_auxiliary_value(key):
    model = eqx.nn.MLP(3, "scalar", 8, 1, key=key)
    weights = eqx.filter(model, eqx.is_inexact_array)
    optimizer = optax.sgd(0.1)

    def of_model(model, batch):
        out = jax.vmap(model)(batch["x"])
        return jnp.mean((out - batch["y"]) ** 2), out

    step = eqx.filter_jit(train_step(of_model, optimizer, has_aux=True))
    after, _, value, out = step(model, optimizer.init(weights), BATCH)
    (expected, aux), grads = eqx.filter_value_and_grad(of_model, has_aux=True)(model, BATCH)
    close((value, out), (expected, aux))
    close(
        eqx.filter(after, eqx.is_inexact_array),
        eqx.filter(eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, grads)), eqx.is_inexact_array),
    )
    assert after.activation is model.activation


SGD = optax.sgd(0.1)
WRONG = {
    "a rule alone": (
        lambda: regulate.flooding(0.1).update(START, optax.EmptyState(), START),
        r"expected value=... at the update of flooding, got none. Pass value=loss",
    ),
    "inputs": (
        lambda: train_step(loss, regulate.tract(lambda p: p["w"][None], outputs_axis=0))(
            START, optax.EmptyState(), BATCH
        ),
        r"expected inputs=... at the update of tract, got none. Pass inputs=.*extra=lambda",
    ),
    "no aggregator": (
        lambda: train_step(losses, SGD, value_and_grad=regulate.multi_value_and_grad)(START, SGD.init(START), BATCH),
        r"expected an update that is shaped like .*f32\[3\].*got .*f32\[3,3\].*upgrad\(\)",
    ),
    "several losses": (
        lambda: train_step(losses, SGD)(START, SGD.init(START), BATCH),
        r"one real number, got f32\[3\]. Take the mean",
    ),
    "no auxiliary value": (
        lambda: train_step(loss, SGD, has_aux=True)(START, SGD.init(START), BATCH),
        r"a loss that returns \(value, aux\), for has_aux=True, got f32\[\]. Return both",
    ),
    "no key": (
        lambda: train_step(lambda p, b, *, key: loss(p, b), SGD)(START, SGD.init(START), BATCH),
        r"expected a key for the loss, got none. Pass key=jax.random.fold_in\(key, k\)",
    ),
    "no key to draw with": (
        lambda: train_step(loss, SGD, value_and_grad=central)(START, SGD.init(START), BATCH),
        r"expected a key for the estimator, got none. Pass key=",
    ),
    "a seed": (
        lambda: train_step(loss, SGD)(START, SGD.init(START), BATCH, key=0),
        r"expected key: a random key, got 0. Pass jax.random.key\(0\)",
    ),
    "a gradient alone": (
        lambda: train_step(loss, SGD, value_and_grad=jax.grad)(START, SGD.init(START), BATCH),
        r"function returns \(value, grads\), got .*Pass jax.value_and_grad",
    ),
    "no dict of extra arguments": (
        lambda: train_step(loss, SGD, extra=lambda params, batch, grads: None)(START, SGD.init(START), BATCH),
        r"an extra that returns a dict of arguments by name, got None. Return \{",
    ),
    "a result for an estimator": (
        lambda: train_step(loss, SGD, value_and_grad=jax.value_and_grad(loss)(START, BATCH)),
        r"expected value_and_grad, a function, got \(f32",
    ),
    "a result for extra": (lambda: train_step(loss, SGD, extra={"inputs": X}), "expected extra, a function, got"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
