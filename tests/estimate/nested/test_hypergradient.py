"""Hypergradients against ridge's closed form, the series' exact error, and bounds that hold."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)
X, V, Y, T = (DRAWS.normal(size=size) for size in ((30, 6), (20, 6), 30, 20))
LOG = DRAWS.normal(size=6)
HESSIAN = X.T @ X + np.diag(np.exp(LOG))
RATE = 1 / float(np.linalg.eigvalsh(HESSIAN)[-1])


def lower(w, p):
    """Ridge with a strength for each weight, that grows as an exponential."""
    return 0.5 * jnp.sum((X @ w["w"] - Y) ** 2) + 0.5 * jnp.sum(jnp.exp(p["log"]) * w["w"] ** 2)


def upper(w, p):
    return 0.5 * jnp.sum((V @ w["w"] - T) ** 2) + 0.1 * jnp.sum(p["log"] ** 2)


def fitted(log):
    return jnp.linalg.solve(X.T @ X + jnp.diag(jnp.exp(log)), X.T @ Y)


def outer(log):
    """The upper loss through the closed form, to be differentiated by JAX."""
    return upper({"w": fitted(log)}, {"log": log})


@pytest.fixture
def params(x64):
    return {"log": jnp.asarray(LOG), "name": "ridge"}


@pytest.fixture
def solution(x64):
    return {"w": fitted(LOG), "steps": 3}


def test_conjugate_gradients_give_ridges_closed_form(params, solution):
    function = estimate.hypergradient(upper, lower, tolerance=1e-12)
    value, grads = eqx.filter_jit(function)(params, solution)
    np.testing.assert_allclose(value, outer(LOG), rtol=1e-12)
    np.testing.assert_allclose(grads["log"], jax.grad(outer)(LOG), rtol=1e-8)
    assert grads["name"] is None


@pytest.mark.parametrize("steps", [1, 7])
def test_the_series_falls_short_by_the_power_of_each_eigenvalue_and_is_unrolling_at_the_minimum(
    steps, params, solution
):
    series = estimate.hypergradient(upper, lower, method="neumann", steps=steps, rate=RATE)
    grads = series(params, solution)[1]["log"]
    pull = V.T @ (V @ solution["w"] - T)
    values, vectors = np.linalg.eigh(HESSIAN)
    q = vectors @ ((1 - (1 - RATE * values) ** steps) / values * (vectors.T @ pull))
    np.testing.assert_allclose(grads, 0.2 * LOG - jnp.exp(LOG) * solution["w"] * q, rtol=1e-9)
    unrolled = estimate.hypergradient(upper, lower, method="unrolled", steps=steps, rate=RATE)
    np.testing.assert_allclose(unrolled(params, solution)[1]["log"], grads, rtol=1e-8)


def test_unrolled_is_the_derivative_of_its_steps_away_from_the_minimum():
    start = {"w": jnp.ones(6)}

    def after(log):
        w = start["w"]
        for _ in range(3):
            w = w - RATE * (X.T @ (X @ w - Y) + jnp.exp(log) * w)
        return upper({"w": w}, {"log": log})

    value, grads = estimate.hypergradient(upper, lower, method="unrolled", steps=3, rate=RATE)({"log": LOG}, start)
    np.testing.assert_allclose(value, after(LOG), rtol=1e-12)
    np.testing.assert_allclose(grads["log"], jax.grad(after)(LOG), rtol=1e-10)


def ridge_smoothness():
    return estimate.Smoothness(
        convexity=jnp.linalg.eigvalsh(HESSIAN)[0],
        hessian=0.0,
        mixed=jnp.exp(jnp.max(LOG)),
        upper=jnp.linalg.norm(V, 2) ** 2,
    )


@pytest.mark.parametrize("options", [{"tolerance": 0.3}, {"method": "neumann", "steps": 5, "rate": RATE}])
def test_the_bound_holds_wherever_the_fit_stops_and_vanishes_at_the_minimum(options, solution):
    bounded = estimate.hypergradient(upper, lower, smoothness=ridge_smoothness(), **options)
    truth = jax.grad(outer)(LOG)

    @jax.jit
    def at(w):
        (_, error), grads = bounded({"log": LOG}, {"w": w})
        distance = jnp.linalg.norm(w - solution["w"])
        return error, jnp.linalg.norm(grads["log"] - truth), distance

    for size in (0.0, 1e-3, 0.1, 1.0):
        for draw in range(5):
            shift = np.random.default_rng(draw).normal(size=6)
            error, off, distance = at(solution["w"] + size * shift)
            assert off <= error.gradient * (1 + 1e-9) and distance <= error.state * (1 + 1e-6) + 1e-12
            assert error.gradient < 1e3 * (off + error.residual + distance) + 1e-9
    sharp = estimate.hypergradient(upper, lower, smoothness=ridge_smoothness(), tolerance=1e-12)
    assert sharp({"log": LOG}, solution)[0][1].gradient < 1e-8


@pytest.mark.parametrize(
    ("lower", "upper", "constants", "reached"),
    [
        # Only one constant is not zero: the bound must be made of it, and reaches what is true to first order.
        (lambda x, p: x**2 / 2 - p * x, lambda x, p: x**2 / 2, {"upper": 1.0}, 1.0),
        (lambda x, p: x**2 / 2 + p * jax.nn.softplus(x), lambda x, p: x, {"mixed": 0.25}, 1.0),
        (lambda x, p: x**2 / 2 + jax.nn.softplus(x) - p * x, lambda x, p: x, {"hessian": 0.0963}, 0.5),
        (lambda x, p: x**2 / 2, lambda x, p: x * p, {"direct": 1.0}, 1.0),
    ],
)
def test_each_constant_bounds_its_own_part(lower, upper, constants, reached):
    smoothness = estimate.Smoothness(**({"convexity": 1.0, "hessian": 0.0, "mixed": 0.0, "upper": 0.0} | constants))
    bounded = jax.jit(estimate.hypergradient(upper, lower, tolerance=1e-12, smoothness=smoothness))
    params = jnp.array(0.0)
    minimum = jnp.array(0.0)
    for _ in range(30):
        minimum -= jax.grad(lower)(minimum, params) / jax.grad(jax.grad(lower))(minimum, params)
    truth = bounded(params, minimum)[1]
    shares = []
    for shift in (-1.0, -0.01, 0.01, 1.0):
        (_, error), grads = bounded(params, minimum + shift)
        off = float(jnp.abs(grads - truth))
        assert off <= float(error.gradient) * (1 + 1e-6)
        shares.append(off / float(error.gradient))
    assert max(shares) > 0.3 * reached


def test_the_mixed_derivatives_norm_is_found_over_either_side_and_asked_for_where_both_are_long():
    matrix = jnp.asarray(DRAWS.normal(size=(300, 4)))

    def at(matrix):
        def lower(x, p):
            return jnp.sum(x**2) / 2 - x @ (matrix @ p)

        smoothness = estimate.Smoothness(convexity=1.0, hessian=0.0, mixed=0.0, upper=1.0)
        bounded = estimate.hypergradient(lambda x, p: jnp.sum(x**2) / 2, lower, smoothness=smoothness)
        (_, error), _ = bounded(jnp.ones(matrix.shape[1]), jnp.ones(matrix.shape[0]))
        return float((error.gradient - error.residual * jnp.linalg.norm(matrix, 2)) / error.state)

    assert at(matrix) == pytest.approx(float(jnp.linalg.norm(matrix, 2)), rel=1e-6)
    assert at(matrix.T) == pytest.approx(float(jnp.linalg.norm(matrix, 2)), rel=1e-6)
    with pytest.raises(ValueError, match="mixed_norm"):
        at(jnp.ones((300, 300)))


def test_single_precision_stays_and_a_series_that_grows_fails_aloud(params, solution):
    single = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float32) if hasattr(x, "dtype") else x)
    value, grads = estimate.hypergradient(upper, lower)(single({"log": LOG}), single({"w": solution["w"]}))
    assert grads["log"].dtype == jnp.float32 and grads["log"].shape == (6,)
    np.testing.assert_allclose(grads["log"], jax.grad(outer)(LOG), rtol=1e-2, atol=1e-3)
    wild = estimate.hypergradient(upper, lower, method="neumann", steps=30, rate=3 * RATE)
    with pytest.raises(RuntimeError, match="the Neumann series grows"):
        jax.block_until_ready(wild(params, solution))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, w: estimate.hypergradient(3, lower), "upper, a function"),
        (lambda p, w: estimate.hypergradient(upper, None), "lower, a function"),
        (lambda p, w: estimate.hypergradient(upper, lower, method="exact"), "a method among"),
        (lambda p, w: estimate.hypergradient(upper, lower, method="neumann"), "a rate for the method neumann"),
        (lambda p, w: estimate.hypergradient(upper, lower, method="unrolled", rate=0.1, steps=0), "steps"),
        (lambda p, w: estimate.hypergradient(upper, lower, tolerance=-1.0), "tolerance"),
        (
            lambda p, w: estimate.hypergradient(
                upper, lower, method="unrolled", rate=0.1, smoothness=ridge_smoothness()
            ),
            "a method that solves",
        ),
        (lambda p, w: estimate.hypergradient(upper, lower)(p, {"w": jnp.arange(6)}), "x of real"),
        (lambda p, w: estimate.hypergradient(upper, lower)({"log": jnp.arange(6)}, w), "real floating-point leaves"),
        (lambda p, w: estimate.hypergradient(lambda w, p: w["w"], lower)(p, w), "an upper loss"),
        (lambda p, w: estimate.hypergradient(upper, lambda w, p: w["w"])(p, w), "a lower loss"),
        (lambda p, w: estimate.Smoothness(convexity=0.0, hessian=0.0, mixed=0.0, upper=0.0), "convexity"),
        (lambda p, w: estimate.Smoothness(convexity=1.0, hessian=-1.0, mixed=0.0, upper=0.0), "hessian"),
    ],
)
def test_bad_input_is_refused_in_words(call, words, params, solution):
    with pytest.raises(ValueError, match=words):
        call(params, solution)
