"""Gradient-normalised Newton against its iteration with the whole matrix, and where its radius lets Newton alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import follow, optimize
from nablax.calculus import fisher_product, gauss_newton_product

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(size=(30, 4)) * np.array([1.0, 3.0, 10.0, 0.3])
SIGNS = np.sign(RANDOM.normal(size=30))
START = np.array([1.0, -2.0, 1.5, 3.0])


def losses(w, batch):
    return jnp.logaddexp(0, -SIGNS * (batch @ w))


def logistic(w, batch):
    return jnp.mean(losses(w, batch))


def run(optimizer, start, batch, steps, loss=logistic, extra=None):
    """Parameters after each step, and the states."""
    step = follow.train_step(loss, optimizer, extra=extra)

    def body(carry, _):
        *carry, _ = step(*carry, batch)
        return carry, carry

    return jax.jit(lambda: jax.lax.scan(body, [start, optimizer.init(start)], length=steps))()[1]


def dense(start, rows, curvature, steps, metric):
    """The authors' iteration, written down from its description: one factorisation a try."""
    loss = jax.jit(jax.value_and_grad(lambda w: logistic(w, rows)))
    curvature = jax.jit(curvature)
    x, gamma, path, radii, counts = start, 1.0, [], [], []
    for _ in range(steps):
        value, g = (np.asarray(part) for part in loss(x))
        matrix = np.asarray(curvature(x))
        counted = 0
        while counted < 40:
            counted += 1
            damping = np.sqrt(g @ (g / metric)) / gamma
            new = x - np.linalg.solve(matrix + damping * np.diag(metric), g)
            after, slope = (np.asarray(part) for part in loss(new))
            if value - after >= slope @ (slope / metric) / (8 * damping):
                gamma *= 2
                break
            gamma /= 2
        x = new
        path.append(x), radii.append(gamma), counts.append(counted)
    return path, radii, counts


@pytest.mark.parametrize("metric", [np.ones(4), np.array([1.0, 4.0, 50.0, 0.2])])
def test_it_is_the_iteration_with_the_whole_matrix(x64, metric):
    rows = jnp.asarray(ROWS)
    given = None if np.all(metric == 1) else jnp.asarray(metric)
    path, state = run(optimize.gradient_normalised_newton(metric=given), jnp.asarray(START), rows, 8)
    exact, radii, tries = dense(START, rows, jax.hessian(lambda w: logistic(w, rows)), 8, metric)
    np.testing.assert_allclose(path, exact, rtol=1e-7)
    np.testing.assert_array_equal(state.gamma, radii)
    np.testing.assert_array_equal(state.tries, tries)
    assert np.all(state.accepted) and max(tries) > 1


def test_other_curvatures_are_other_products(x64):
    rows = jnp.asarray(ROWS)

    def gauss_newton(params, batch, grads):
        # Of the mean of half squares of sigmoids' errors, whose Hessian is another.
        product = gauss_newton_product(
            lambda w, batch: jax.nn.sigmoid(batch @ w), lambda out, batch: jnp.mean((out - SIGNS) ** 2) / 2
        )
        return {"product_fn": lambda v: product(params, v, batch)}

    def fisher(params, batch, grads):
        return {"product_fn": lambda v: fisher_product(losses)(params, v, batch)}

    def sigmoid_slopes(w):
        return jax.jacrev(lambda w: jax.nn.sigmoid(rows @ w))(w)

    def slopes(w):
        return jax.jacrev(lambda w: losses(w, rows))(w)

    for extra, jacobian in ((gauss_newton, sigmoid_slopes), (fisher, slopes)):
        path, state = run(optimize.gradient_normalised_newton(), jnp.asarray(START), rows, 5, extra=extra)
        exact, radii, _ = dense(
            START, rows, lambda w, jacobian=jacobian: jacobian(w).T @ jacobian(w) / len(rows), 5, np.ones(4)
        )
        np.testing.assert_allclose(path, exact, rtol=1e-6)
        np.testing.assert_array_equal(state.gamma, radii)


def test_the_metric_takes_units_out_of_the_path(x64):
    units = np.array([1e-2, 1.0, 30.0, 1e3])
    plain, _ = run(optimize.gradient_normalised_newton(metric=jnp.ones(4)), jnp.asarray(START), jnp.asarray(ROWS), 6)
    # y = units * w, so that lengths of y in the metric units**-2 are those of w.
    rule = optimize.gradient_normalised_newton(metric=jnp.asarray(units**-2))
    other, _ = run(rule, jnp.asarray(START * units), jnp.asarray(ROWS / units), 6)
    np.testing.assert_allclose(other / units[None], plain, rtol=1e-7)


def test_with_a_wide_radius_a_quadratic_takes_one_step_and_at_the_end_nothing_moves(x64):
    curvature = jnp.asarray([1e-2, 1.0, 1e2])

    def loss(w, batch):
        return jnp.sum(curvature * w**2) / 2

    path, state = run(optimize.gradient_normalised_newton(gamma=1e12), jnp.ones(3), jnp.ones(1), 120, loss)
    damping = np.linalg.norm(curvature) / 1e12
    np.testing.assert_allclose(path[0], damping / (curvature + damping), rtol=1e-3)
    assert np.all(np.isfinite(path)) and np.all(np.isfinite(state.gamma)) and np.max(np.abs(path[-1])) < 1e-8


def test_from_a_saddle_it_goes_down_where_newton_stays(x64):
    def loss(w, batch):
        return w[0] ** 2 / 2 - w[1] ** 2 / 2 + w[1] ** 4 / 4

    path, state = run(optimize.gradient_normalised_newton(), jnp.array([1.0, 1e-3]), jnp.ones(1), 30, loss)
    values = jax.vmap(lambda w: loss(w, None))(path)
    assert np.all(state.accepted[:10]) and np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(np.abs(path[-1]), [0, 1], atol=1e-6)


def test_where_no_radius_will_do_nothing_moves_and_the_state_says_so():
    """A value that no step lowers, beside a gradient that says otherwise."""
    rule, w = optimize.gradient_normalised_newton(gamma=0.5), jnp.ones(2)
    update, state = rule.update(
        w, rule.init(w), w, value=0.0, grad_fn=lambda w: (jnp.ones(()), jnp.ones(2)), product_fn=lambda v: v
    )
    assert not np.any(update) and not state.accepted
    assert state.tries == 40 and state.gamma == 0.5


def test_a_metric_that_measures_nothing_is_refused():
    with pytest.raises(ValueError, match="a metric of positive numbers"):
        optimize.gradient_normalised_newton(metric=jnp.zeros(2))
    with pytest.raises(ValueError, match="a metric that is shaped like"):
        optimize.gradient_normalised_newton(metric=jnp.ones(2)).init(jnp.ones(3))


def test_a_metric_that_is_traced_and_others_that_are_none():
    w, look = jnp.array([1.0, 2.0]), jax.value_and_grad(lambda w: jnp.sum(w**2))

    def moved(metric):
        rule = optimize.gradient_normalised_newton(metric=metric)
        given = {"value": jnp.array(5.0), "grad_fn": look, "product_fn": lambda v: 2 * v}
        return rule.update(2 * w, rule.init(w), w, **given)[0]

    metric = jnp.array([1.0, 4.0])
    np.testing.assert_allclose(jax.jit(moved)(metric), moved(metric), rtol=1e-5)
    for other in ("a", jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0.0]), jnp.array([True, True])):
        with pytest.raises(ValueError, match="a metric of positive numbers"):
            optimize.gradient_normalised_newton(metric=other)


@pytest.mark.parametrize(("value", "grad_fn"), [(jnp.ones(3), jax.value_and_grad(jnp.sum)), (1.0, lambda w: (w, w))])
def test_a_loss_for_each_number_is_no_value(value, grad_fn):
    rule, w = optimize.gradient_normalised_newton(), jnp.ones(3)
    with pytest.raises(ValueError, match=r"one loss as value of gradient_normalised_newton of shape.*got f32"):
        rule.update(w, rule.init(w), w, value=value, grad_fn=grad_fn, product_fn=lambda v: v)
