"""Products with a solution's derivative against dense solves, and what is said of solves that stop short."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(3)
SIZE = 12


def problem(condition_number):
    """A nonlinear condition whose Jacobian at the solution is known, of eigenvalues over so many decades."""
    frames = [np.linalg.qr(DRAWS.normal(size=(SIZE, SIZE)))[0] for _ in range(2)]
    matrix = jnp.asarray(frames[0] @ np.diag(np.geomspace(1, condition_number, SIZE)) @ frames[1])
    x = jnp.asarray(DRAWS.normal(size=SIZE))
    forcing = matrix @ (x + x**3)

    def condition(x, params):
        return params["matrix"] @ (x + x**3) - params["forcing"]

    params = {"matrix": matrix, "forcing": forcing, "count": jnp.array(3), "name": "cubic"}
    jacobian = matrix @ jnp.diag(1 + 3 * x**2)
    return condition, params, x, jacobian


def newton(condition):
    def solve(x, params):
        def one(x, _):
            return x - jnp.linalg.solve(jax.jacfwd(condition)(x, params), condition(x, params)), None

        return jax.lax.scan(one, x, length=60)[0]

    return solve


def test_the_product_is_that_of_a_dense_solve_and_nothing_is_left():
    condition, params, x, jacobian = problem(10.0)
    v = jnp.asarray(DRAWS.normal(size=SIZE))
    found, pull = estimate.implicit_vjp(newton(condition), condition)(jnp.zeros(SIZE), params)
    np.testing.assert_allclose(found, x, rtol=1e-9)
    (slopes,), error = eqx.filter_jit(pull)(v)
    u = jnp.linalg.solve(jacobian.T, v)
    np.testing.assert_allclose(slopes["forcing"], u, rtol=1e-9)
    np.testing.assert_allclose(slopes["matrix"], -jnp.outer(u, x + x**3), rtol=1e-9, atol=1e-12)
    assert slopes["count"] is None and slopes["name"] is None
    assert error.condition < 1e-10 and error.residual < 1e-12
    at_rest = estimate.implicit(newton(condition), condition)
    slope = jax.grad(lambda b: jnp.vdot(v, at_rest(jnp.zeros(SIZE), params | {"forcing": b})))(params["forcing"])
    np.testing.assert_allclose(slopes["forcing"], slope, rtol=1e-9)
    assert float(pull(jnp.zeros(SIZE))[1].residual) == 0
    root = estimate.implicit_vjp(lambda x, a: jnp.sqrt(a), lambda x, a: x**2 - a)(1.0, 4.0)[1]
    assert float(root(jnp.array(1.0))[0][0]) == pytest.approx(0.25)


@pytest.mark.parametrize("condition_number", [1e2, 1e6])
def test_a_loose_solve_says_what_it_has_left_and_the_slope_is_wrong_by_as_much(condition_number):
    """The slope's error is the residual, pulled back by the exact derivative: no other number could stand for it."""
    condition, params, x, jacobian = problem(condition_number)
    v = jnp.asarray(DRAWS.normal(size=SIZE))
    loose = lx.GMRES(rtol=1e-2, atol=1e-2, restart=3, max_steps=6, stagnation_iters=100)
    _, pull = estimate.implicit_vjp(newton(condition), condition, linear_solver=loose)(x, params)
    (slopes,), error = pull(v)
    u = slopes["forcing"]
    left = jacobian.T @ u - v
    assert float(error.residual) == pytest.approx(float(jnp.linalg.norm(left) / jnp.linalg.norm(v)), rel=1e-6)
    assert float(error.residual) > 1e-4
    exact = jnp.linalg.solve(jacobian.T, v)
    np.testing.assert_allclose(u - exact, jnp.linalg.solve(jacobian.T, left), rtol=1e-6, atol=1e-9)
    raising = estimate.implicit(newton(condition), condition, linear_solver=loose)
    with pytest.raises(RuntimeError):
        slope = jax.grad(lambda b: jnp.vdot(v, raising(x, params | {"forcing": b})))(params["forcing"])
        jax.block_until_ready(slope)


def test_a_point_that_is_no_solution_and_a_singular_system_are_reported():
    condition, params, x, _ = problem(10.0)
    away = x + 0.1
    _, pull = estimate.implicit_vjp(lambda start, params: start, condition)(away, params)
    error = pull(jnp.ones(SIZE))[1]
    assert float(error.condition) == pytest.approx(float(jnp.linalg.norm(condition(away, params))), rel=1e-12)
    _, pull = estimate.implicit_vjp(lambda x, t: x, lambda x, t: 0.0 * x + t)(jnp.ones(3), jnp.ones(3))
    assert not float(pull(jnp.ones(3))[1].residual) < 1


@pytest.mark.parametrize("symmetric", [False, True])
def test_second_derivatives_and_batches(symmetric):
    """Ridge regression: the slope in the strength and its own, in closed form."""
    x, y = jnp.asarray(DRAWS.normal(size=(30, 6))), jnp.asarray(DRAWS.normal(size=30))
    weights = jnp.arange(1.0, 7.0)

    def slope(strength):
        pulled = estimate.implicit_vjp(
            lambda w, s: jnp.linalg.solve(x.T @ x + s * jnp.eye(6), x.T @ y),
            lambda w, s: x.T @ (x @ w - y) + s * w,
            symmetric=symmetric,
        )
        (found,), error = pulled(jnp.zeros(6), strength)[1](weights)
        return found, error

    def truth(strength):
        inverse = jnp.linalg.inv(x.T @ x + strength * jnp.eye(6))
        return weights @ inverse @ (x.T @ y)

    strengths = jnp.array([0.3, 2.0])
    found, error = jax.jit(jax.vmap(slope))(strengths)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(truth))(strengths), rtol=1e-10)
    assert error.residual.shape == (2,) and bool(jnp.all(error.residual < 1e-12))
    for derivative in (jax.grad, jax.jacfwd):
        second = jax.jit(derivative(lambda s: slope(s)[0]))(0.7)
        np.testing.assert_allclose(second, jax.grad(jax.grad(truth))(0.7), rtol=1e-9)


def test_trees_of_many_unknowns_without_the_matrix():
    diagonal = jnp.linspace(1.0, 3.0, 400)

    def condition(x, b):
        return {"a": diagonal * x["a"] - b, "c": 2.0 * x["c"] - jnp.mean(x["a"])}

    start = {"a": jnp.zeros(400), "c": jnp.zeros(())}

    def solve(start, b):
        a = b / diagonal
        return {"a": a, "c": jnp.mean(a) / 2}

    _, pull = estimate.implicit_vjp(solve, condition)(start, jnp.ones(400))
    (slope,), error = pull({"a": jnp.zeros(400), "c": jnp.ones(())})
    np.testing.assert_allclose(slope, 1 / (800 * diagonal), rtol=1e-7)
    assert error.residual < 1e-9


def test_a_cotangent_of_another_shape_is_refused():
    _, pull = estimate.implicit_vjp(lambda x, b: b, lambda x, b: x - b)(jnp.zeros(3), jnp.ones(3))
    with pytest.raises(ValueError, match="a cotangent"):
        pull(jnp.ones(2))
    with pytest.raises(ValueError, match="a condition whose value"):
        estimate.implicit_vjp(lambda x, b: x, lambda x, b: x[0])(jnp.zeros(3), 1.0)[1](jnp.ones(3))
