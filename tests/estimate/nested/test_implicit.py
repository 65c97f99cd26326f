"""Implicit derivatives against closed forms, in both modes, of second order, and failing aloud."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)


def ridge(rows=30, columns=6):
    return jnp.asarray(DRAWS.normal(size=(rows, columns))), jnp.asarray(DRAWS.normal(size=rows))


def ridge_loss(w, x, y, strength):
    return 0.5 * jnp.sum((x @ w - y) ** 2) + 0.5 * strength * jnp.sum(w**2)


def ridge_by_descent(init, x, y, strength):
    rate = 1 / (jnp.linalg.norm(x, 2) ** 2 + strength)
    return jax.lax.fori_loop(0, 3000, lambda _, w: w - rate * jax.grad(ridge_loss)(w, x, y, strength), init)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": True},
        {"linear_solver": lx.GMRES(rtol=1e-12, atol=1e-12)},
        {"linear_solver": lx.Normal(lx.CG(rtol=1e-12, atol=1e-12))},
    ],
)
def test_ridge_has_its_closed_form_in_both_modes_and_to_second_order(options):
    x, y = ridge()
    solution = jax.jit(
        functools.partial(estimate.implicit(ridge_by_descent, jax.grad(ridge_loss), **options), jnp.zeros(6))
    )
    strength = jnp.array(0.7)
    inverse = jnp.linalg.inv(x.T @ x + strength * jnp.eye(6))
    w = inverse @ (x.T @ y)
    np.testing.assert_allclose(solution(x, y, strength), w, rtol=1e-10)
    first = -inverse @ w
    np.testing.assert_allclose(jax.jacfwd(solution, argnums=2)(x, y, strength), first, rtol=1e-8)
    np.testing.assert_allclose(jax.jacrev(solution, argnums=2)(x, y, strength), first, rtol=1e-8)
    np.testing.assert_allclose(jax.jacrev(solution, argnums=1)(x, y, strength), inverse @ x.T, atol=1e-9)
    second = jax.jacfwd(jax.jacrev(solution, argnums=2), argnums=2)(x, y, strength)
    np.testing.assert_allclose(second, 2 * inverse @ inverse @ w, rtol=1e-7)
    np.testing.assert_allclose(
        jax.jacrev(jax.jacrev(solution, argnums=2), argnums=2)(x, y, strength), second, rtol=1e-7
    )


def test_a_fixed_point_that_is_not_symmetric_and_a_batch_of_them():
    matrix = jnp.asarray(0.3 * DRAWS.normal(size=(4, 4)))

    def mapped(z, p):
        return jnp.tanh(p["w"] @ z + p["b"])

    def iterate(z, p):
        return jax.lax.while_loop(lambda c: c[1] < 200, lambda c: (mapped(c[0], p), c[1] + 1), (z, 0))[0]

    solution = estimate.implicit(iterate, lambda z, p: mapped(z, p) - z)
    params = {"w": matrix, "b": jnp.arange(4.0) / 4, "name": "net"}

    def loss(b):
        return jnp.sum(solution(jnp.zeros(4), params | {"b": b}) ** 3)

    z = solution(jnp.zeros(4), params)
    d = jnp.diag(1 - z**2)
    truth = jnp.linalg.solve((jnp.eye(4) - d @ matrix).T, 3 * z**2) @ d
    np.testing.assert_allclose(jax.grad(loss)(params["b"]), truth, rtol=1e-9)
    many = jnp.stack([params["b"], -params["b"]])
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(many)[1], jax.grad(loss)(-params["b"]), rtol=1e-9)


def test_a_minimum_under_constraints_by_the_projected_gradient():
    """Least squares on the nonnegative numbers: coordinates at the bound do not move."""
    target = jnp.array([1.0, -2.0, 0.5])

    def step(x, t):
        return jnp.maximum(x - 0.5 * (x - t), 0)

    solution = estimate.implicit(
        lambda x, t: jax.lax.fori_loop(0, 100, lambda _, x: step(x, t), x), lambda x, t: step(x, t) - x
    )
    np.testing.assert_allclose(solution(jnp.ones(3), target), [1.0, 0.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(jax.jacrev(solution, argnums=1)(jnp.ones(3), target), jnp.diag(jnp.array([1.0, 0, 1])))


def test_many_unknowns_are_solved_without_the_matrix_and_the_start_has_no_derivative():
    size = 1000
    diagonal = jnp.linspace(1.0, 3.0, size)

    def condition(u, b):
        return diagonal * u + 0.3 * jnp.roll(u, 1) - b

    dense = jnp.diag(diagonal) + 0.3 * jnp.roll(jnp.eye(size), 1, axis=0)
    solution = estimate.implicit(lambda u, b: jnp.linalg.solve(dense, b), condition)
    b = jnp.asarray(DRAWS.normal(size=size))
    slope = jax.grad(lambda b: jnp.sum(solution(jnp.zeros(size), b) ** 2))(b)
    np.testing.assert_allclose(slope, jnp.linalg.solve(dense.T, 2 * jnp.linalg.solve(dense, b)), rtol=1e-7)
    program = jax.make_jaxpr(jax.grad(lambda b: jnp.sum(estimate.implicit(lambda u, b: b, condition)(u0, b))))
    u0 = jnp.zeros(size)
    assert f"[{size},{size}]" not in str(program(b))
    assert not jax.grad(lambda start: jnp.sum(solution(start, b)))(u0).any()


def test_a_singular_condition_fails_aloud_and_so_does_a_solver_that_stops_short():
    x, y = ridge(40, 20)
    short = estimate.implicit(
        ridge_by_descent, jax.grad(ridge_loss), symmetric=True, linear_solver=lx.CG(rtol=1e-12, atol=0.0, max_steps=2)
    )
    with pytest.raises(RuntimeError):
        jax.block_until_ready(jax.grad(lambda s: jnp.sum(short(jnp.zeros(20), x, y, s)))(0.1))
    flat = estimate.implicit(lambda x, t: x, lambda x, t: 0.0 * x + t, linear_solver=lx.GMRES(rtol=1e-9, atol=1e-9))
    with pytest.raises(RuntimeError):
        jax.block_until_ready(jax.grad(lambda t: flat(jnp.ones(()), t))(1.0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.implicit(3, lambda x: x), "solve, a function"),
        (lambda: estimate.implicit(lambda x: x, None), "condition, a function"),
        (lambda: estimate.implicit(lambda x: x, lambda x: x, linear_solver="cg"), "linear_solver"),
        (lambda: estimate.implicit(lambda x: x[:1], lambda x: x)(jnp.ones(2)), "a solve whose value"),
        (lambda: estimate.implicit(lambda x: x, lambda x: x)(jnp.arange(2)), "init"),
        (
            lambda: jax.grad(
                lambda t: jnp.sum(estimate.implicit(lambda x, t: x, lambda x, t: x[0] - t)(jnp.ones(2), t))
            )(1.0),
            "a condition whose value",
        ),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_solvers_may_answer_in_numbers_of_python():
    """Of which there are some where scalars are differentiated without jit."""
    scaled = estimate.implicit(lambda x, a, n: a * n, lambda x, a, n: x - a * n)
    assert float(jax.grad(scaled, argnums=1)(jnp.array(1.0), 2.0, 3)) == 3.0


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_right_hand_side_with_zeros_is_solved_like_any_other(symmetric):
    diagonal = jnp.linspace(1.0, 100.0, 300)
    solution = estimate.implicit(lambda u, b: b / diagonal, lambda u, b: diagonal * u - b, symmetric=symmetric)
    weights = jnp.where(jnp.arange(300) < 150, jnp.arange(300.0), 0.0)
    slope = jax.jit(jax.grad(lambda b: jnp.vdot(weights, solution(jnp.zeros(300), b))))(jnp.ones(300))
    np.testing.assert_allclose(slope, weights / diagonal, atol=1e-6)
