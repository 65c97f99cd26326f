"""Exact Gauss-Newton against the system among the parameters, with the Jacobian and the curvature formed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from nablax import follow, optimize


def predict(params, row):
    hidden = jnp.tanh(params["in"] @ row["x"] + params["shift"])
    return params["scale"] * (params["out"] @ hidden)


def entropy(outputs, row):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, row["y"])


def squares(outputs, row):
    return jnp.sum((outputs - row["y"]) ** 2) / 2


def problem(labels):
    random = np.random.default_rng(0)
    params = {
        "in": jnp.asarray(random.normal(size=(4, 3))),
        "shift": jnp.asarray(random.normal(size=4)),
        "out": jnp.asarray(random.normal(size=(3, 4))),
        "scale": jnp.asarray(1.5),
        "none": None,
    }
    y = random.integers(0, 3, size=5) if labels else random.normal(size=(5, 3))
    return params, {"x": jnp.asarray(random.normal(size=(5, 3))), "y": jnp.asarray(y)}


@pytest.mark.parametrize(("loss", "labels"), [(entropy, True), (squares, False)])
def test_it_is_the_solution_of_the_damped_system_among_the_parameters(x64, loss, labels):
    params, batch = problem(labels)
    flat, tree = ravel_pytree(params)
    damping = 1e-2

    def outputs(vector):
        return jax.vmap(lambda row: predict(tree(vector), row))(batch)

    def of_outputs(out):
        return jnp.mean(jax.vmap(loss)(out, batch))

    @jax.jit
    def both():
        jacobian = jax.jacrev(outputs)(flat).reshape(15, -1)
        bent = jax.hessian(of_outputs)(outputs(flat)).reshape(15, 15)
        gradient = jax.grad(lambda v: of_outputs(outputs(v)))(flat)
        exact = jnp.linalg.solve(jacobian.T @ bent @ jacobian + damping * jnp.eye(len(flat)), gradient)
        rule = optimize.scale_by_gauss_newton(predict, loss, damping=damping)
        return exact, rule.update(params, rule.init(params), params, inputs=batch)[0]

    exact, found = both()
    np.testing.assert_allclose(ravel_pytree(found)[0], exact, rtol=1e-10, atol=1e-12)


def test_one_step_solves_least_squares_and_of_many_solutions_takes_the_nearest(x64):
    random = np.random.default_rng(1)
    for rows, dim in ((12, 4), (4, 12)):
        batch = {"x": jnp.asarray(random.normal(size=(rows, dim))), "y": jnp.asarray(random.normal(size=rows))}
        rule = optimize.exact_gauss_newton(1.0, lambda w, row: row["x"] @ w, squares, damping=1e-8)
        start = jnp.asarray(random.normal(size=dim))
        update, _ = rule.update(start, rule.init(start), start, inputs=batch)
        change = np.linalg.lstsq(batch["x"], batch["y"] - batch["x"] @ start)[0]
        np.testing.assert_allclose(update, change, rtol=1e-5)


def test_a_schedule_and_momentum_are_those_of_the_directions(x64):
    params, batch = problem(True)
    plain = optimize.scale_by_gauss_newton(predict, entropy)
    rule = optimize.exact_gauss_newton(lambda step: 0.1 * (step + 1), predict, entropy, momentum=0.9)

    @jax.jit
    def run():
        state, at, found, directions = rule.init(params), params, [], []
        for _ in range(2):
            directions.append(plain.update(at, plain.init(at), at, inputs=batch)[0]["in"])
            update, state = rule.update(at, state, at, inputs=batch)
            found.append(update["in"])
            at = optax.apply_updates(at, update)
        return found, directions

    found, (first, second) = run()
    np.testing.assert_allclose(found[0], -0.1 * first, rtol=1e-10)
    np.testing.assert_allclose(found[1], -0.2 * (0.9 * 0.1 * first + 0.1 * second) / (1 - 0.81), rtol=1e-10)


def test_damping_falls_where_the_model_is_right_and_grows_where_a_step_overshoots(x64):
    batch = {"x": jnp.ones((3, 1)), "y": jnp.zeros(3)}
    settings = {"damping": 0.1, "adaptation": 0.01}
    linear = optimize.scale_by_gauss_newton(lambda w, row: row["x"] @ w, squares, **settings)
    # With outputs arctan(w) the step from w = 3 is arctan(3)·10 to first order, beyond 0 to the other side.
    curved = optimize.scale_by_gauss_newton(
        lambda w, row: jnp.arctan(row["x"] @ w), squares, **settings | {"damping": 1e-3}
    )
    w = jnp.array([3.0])
    for rule, expected in ((linear, 0.1 / 1.01), (curved, 1.01e-3)):
        _, state = rule.update(w, rule.init(w), w, inputs=batch)
        np.testing.assert_allclose(state.damping, expected, rtol=1e-12)


def test_with_the_line_search_of_optax_a_valley_is_gone_down_and_never_up(x64):
    """Residuals of Rosenbrock's function; whole steps jump out of its valley, and back."""
    rows = {"which": jnp.arange(2)}

    def residual(w, row):
        return jnp.where(row["which"] == 0, 1 - w[0], 10 * (w[1] - w[0] ** 2))

    def half_square(out, row):
        return out**2 / 2

    def loss(w, batch):
        return jnp.mean(jax.vmap(lambda row: half_square(residual(w, row), row))(batch))

    def falling(*links):
        optimizer = optax.chain(optimize.exact_gauss_newton(1.0, residual, half_square, damping=1e-3), *links)
        step = follow.train_step(loss, optimizer, extra=lambda params, batch, grads: {"inputs": batch})
        start = jnp.array([-1.2, 1.0])

        def body(carry, _):
            *carry, value = step(*carry, rows)
            return carry, value

        return jax.lax.scan(body, [start, optimizer.init(start)], length=40)[1]

    searched, whole = jax.jit(
        lambda: (falling(optax.scale_by_backtracking_linesearch(15, slope_rtol=0.1)), falling())
    )()
    assert np.all(np.diff(searched) <= 0) and searched[-1] < 1e-12
    assert np.any(np.diff(whole) > 0)


def test_what_is_no_batch_is_refused():
    rule, w = optimize.exact_gauss_newton(1.0, lambda w, row: w * row["x"], squares), jnp.ones(())
    for inputs, says in (
        ({"x": jnp.ones(())}, "rows on the leading axis"),
        ({}, "rows on the leading axis"),
        ({"x": jnp.ones(3), "y": jnp.ones(2)}, "inputs"),
    ):
        with pytest.raises(ValueError, match=says):
            rule.update(w, rule.init(w), w, inputs=inputs)
    rule = optimize.exact_gauss_newton(1.0, lambda w, row: w * row["x"], lambda out, row: out * jnp.ones(2))
    with pytest.raises(ValueError, match="of one row"):
        rule.update(w, rule.init(w), w, inputs={"x": jnp.ones(3)})
    with pytest.raises(ValueError, match="damping above 0"):
        optimize.exact_gauss_newton(1.0, predict, squares, damping=0.0)


def test_a_schedule_of_the_damping_is_followed_where_it_is_injected():
    """Of ½ mean (wx - y)² with xᵀx/b = 1/3 the direction is (w - y)/3 over 1/3 + λ."""
    w, batch = jnp.full(3, 2.0), {"x": jnp.eye(3), "y": jnp.ones(3)}
    rule = optax.inject_hyperparams(optimize.scale_by_gauss_newton, static_args=("predict", "loss"))(
        lambda w, row: w @ row["x"], lambda out, row: (out - row["y"]) ** 2 / 2, damping=lambda step: 0.1 * 10.0**step
    )
    state = rule.init(w)
    for damping in (0.1, 1.0, 10.0):
        direction, state = rule.update(w, state, w, inputs=batch)
        np.testing.assert_allclose(direction, 1 / (1 + 3 * damping), rtol=1e-5)
        np.testing.assert_allclose(state.inner_state.damping, damping, rtol=1e-5)


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (lambda w, row: (w @ row, 1.0), "f32"),
        (lambda w, row: jnp.array(1), "i32"),
        (lambda w, row: 1.0, "1.0"),
        (lambda w, row: w[:0], r"f32\[0\]"),
    ],
)
def test_outputs_that_are_no_array_of_floats_are_refused(output, came):
    w, rows = jnp.ones(3), jnp.eye(3)
    gauss_newton = optimize.scale_by_gauss_newton(output, lambda out, row: jnp.sum(out))
    surrogate = optimize.target_surrogate(optax.sgd(0.1), output, lambda out, row: jnp.sum(out), eta=1.0)
    for rule in (gauss_newton, surrogate):
        with pytest.raises(ValueError, match=f"predict.*an array of real floating-point numbers, got .*{came}"):
            rule.update(w, rule.init(w), w, inputs=rows)
        with pytest.raises(ValueError, match="rows on the leading axis, got no row"):
            rule.update(w, rule.init(w), w, inputs=rows[:0])


def test_an_equinox_model_is_put_together_again(key):
    """Of a linear one a whole step without damping comes to the least squares, which is what made the data."""
    model, planted = (eqx.nn.MLP(3, "scalar", 1, 0, key=k) for k in jax.random.split(key))
    x = jax.random.normal(key, (8, 3))
    batch, params = {"x": x, "y": jax.vmap(planted)(x)}, eqx.filter(model, eqx.is_inexact_array)

    def stepped(predict):
        rule = optimize.scale_by_gauss_newton(predict, lambda out, row: (out - row["y"]) ** 2 / 2, damping=1e-5)
        return rule.update(params, rule.init(params), params, inputs=batch)[0]

    direction = stepped(lambda params, row: eqx.combine(params, model)(row["x"]))
    found = model.layers[0].weight - direction.layers[0].weight
    np.testing.assert_allclose(found, planted.layers[0].weight, atol=1e-3)
    params = eqx.filter(eqx.nn.MLP(3, "scalar", 2, 1, key=key), eqx.is_inexact_array)  # without its activation
    with pytest.raises(TypeError) as raised:
        stepped(lambda params, row: params(row["x"]))
    assert any("equinox.combine(params, model)" in note for note in raised.value.__notes__)
