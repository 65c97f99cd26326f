"""What the first-order rules are equal to, bounded by, and stable at."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

MATRIX = np.random.default_rng(0).normal(size=(3, 4))
CURVATURE = np.random.default_rng(1).uniform(0.5, 2, size=(3, 4))


def rolled(rule, params, gradient, steps, extra=lambda params: {}):
    """Parameters after some steps, and the state, by one compiled loop."""

    def body(carry, _):
        params, state = carry
        update, state = rule.update(gradient(params), state, params, **extra(params))
        params = optax.apply_updates(params, update)
        return (params, state), params

    return jax.jit(lambda: jax.lax.scan(body, (params, rule.init(params)), None, steps))()


def test_mars_without_a_correction_is_adamw_and_vectors_have_their_own(x64):
    params = {"matrix": jnp.asarray(MATRIX), "vector": jnp.asarray(MATRIX[0])}

    def gradient(p):  # short enough not to be clipped
        return jax.tree.map(lambda leaf: 0.01 * jnp.sin(3 * leaf), p)

    ours = rolled(optimize.mars(0.01, gamma=0.0, weight_decay=0.3), params, gradient, 5)[1]
    matrices = rolled(optax.adamw(0.01, 0.95, 0.99, weight_decay=0.3), params["matrix"], gradient, 5)[1]
    vectors = rolled(optax.adamw(0.01, 0.9, 0.95, weight_decay=0.1), params["vector"], gradient, 5)[1]
    np.testing.assert_allclose(ours["matrix"], matrices, rtol=1e-12)
    np.testing.assert_allclose(ours["vector"], vectors, rtol=1e-12)


def test_mars_exact_corrects_by_the_change_on_the_present_batch_and_clips_each_tensor(x64):
    gamma, b1 = 0.5, 0.9
    rule = optimize.scale_by_mars("adamw", gamma=gamma, b1=b1, exact=True)
    here, before = jnp.asarray(0.1 * MATRIX), jnp.asarray(0.2 * MATRIX)
    batch = jnp.asarray(CURVATURE)

    def grad_fn(at):
        return 0.0, batch * at

    state = rule.init(before)
    _, state = rule.update(7.0 * before, state, before, grad_fn=grad_fn)  # the first batch, another curvature
    np.testing.assert_array_equal(state.previous, before)
    first = 7.0 * before / max(1, np.linalg.norm(7.0 * before))
    np.testing.assert_allclose(state.mu, (1 - b1) * first, rtol=1e-12)
    _, state = rule.update(batch * here, state, here, grad_fn=grad_fn)
    corrected = batch * here + gamma * b1 / (1 - b1) * batch * (here - before)
    corrected = corrected / max(1, np.linalg.norm(corrected))
    np.testing.assert_allclose(state.mu, b1 * (1 - b1) * first + (1 - b1) * corrected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"grad_fn=\.\.\. at the update of mars\(exact=True\)"):
        rule.update(here, state, here)


def test_mars_shampoo_steps_along_the_polar_factor_whatever_the_side(x64):
    tall = np.random.default_rng(2).normal(size=(6, 3))
    rule = optimize.scale_by_mars("shampoo")
    for matrix in (tall, tall.T):
        step, _ = rule.update(jnp.asarray(matrix), rule.init(jnp.asarray(matrix)))
        u, sigma, v = np.linalg.svd(step, full_matrices=False)
        factor = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
        assert np.all((sigma / factor > 0.65) & (sigma / factor < 1.25))
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(u @ v, left @ right, atol=1e-8)


def test_diffgrad_is_adam_at_half_the_rate_where_the_gradient_stands_still(x64):
    constant = jnp.asarray(MATRIX)
    ours = rolled(optimize.diffgrad(0.1), jnp.zeros((3, 4)), lambda p: constant, 6)[1]
    adam = rolled(optax.adam(0.05, eps=1e-30), jnp.zeros((3, 4)), lambda p: constant, 6)[1]
    np.testing.assert_allclose(np.diff(ours, axis=0), np.diff(adam, axis=0), rtol=1e-5)
    # At the first step the last gradient is zero.
    np.testing.assert_allclose(ours[0], -0.1 * np.sign(constant) / (1 + np.exp(-np.abs(constant))), rtol=1e-5)


def test_adamomentum_begins_ten_times_too_long_and_tends_to_the_rate(x64):
    path = rolled(optimize.adamomentum(0.1, b2=0.9, eps=0.0), jnp.zeros(2), lambda p: jnp.array([3.0, -1e-3]), 200)[1]
    np.testing.assert_allclose(path[0], [-1.0, 1.0], rtol=1e-8)
    np.testing.assert_allclose(path[-1] - path[-2], [-0.1, 0.1], rtol=1e-6)


def test_gravity_turns_the_order_of_large_gradients_round_and_leaves_small_ones(x64):
    rule = optimize.scale_by_gravity(0.0)
    gradient = jnp.concatenate([jnp.full(9, 1.0), jnp.array([1e3, -1e3])])
    bent = 2 * rule.update(gradient, rule.init(gradient))[0]  # half of it is the average's first weight
    np.testing.assert_allclose(bent, np.r_[np.full(9, 1e-6), 1e-9, -1e-9], rtol=2e-6)
    assert np.all(np.abs(bent) <= 0.5 / 1e3)
    small = 1e-6 * gradient
    np.testing.assert_allclose(2 * rule.update(small, rule.init(small))[0], small, rtol=1e-5)
    at_peak = jnp.array([1e-2, 1e2])
    np.testing.assert_allclose(2 * rule.update(at_peak, rule.init(at_peak))[0][0], 0.5e-2, rtol=1e-12)


def test_gravity_starts_with_a_spread_of_alpha_over_the_rate(x64, key):
    state = optimize.gravity(0.5, alpha=2.0, key=key).init({"a": jnp.zeros(4000), "b": jnp.zeros(4000)})[0]
    assert abs(np.std(state.velocity["a"]) / 4 - 1) < 0.05
    assert abs(np.corrcoef(state.velocity["a"], state.velocity["b"])[0, 1]) < 0.06
    with pytest.raises(ValueError, match="a key for the random start"):
        optimize.gravity(0.5)


def test_nag_gs_contracts_at_the_spectral_radius_of_its_matrix(x64):
    alpha, mu, curvature = 0.3, 0.2, 1.7
    rule = optimize.nag_gs(alpha, mu=mu, gamma=mu)  # γ at its limit from the start
    (_, _), path = rolled(rule, jnp.ones((), jnp.float64), lambda p: curvature * p, 400)
    a, b = alpha / (1 + alpha), alpha / (alpha + 1)  # αμ/(αμ + γ) with γ = μ
    towards = np.array([[1.0, 0.0], [b - b / mu * curvature, 1 - b]])  # v after the gradient at x
    matrix = np.array([[1 - a, a], [0.0, 1.0]]) @ towards
    eigenvalues = np.linalg.eigvals(matrix)
    assert abs(eigenvalues[0].imag) > 0.1  # complex, so that the determinant is the squared radius
    radius = np.abs(eigenvalues[0])
    # Three successive points of an oscillation give trace and determinant of its matrix.
    x = np.asarray(path[5:40])
    trace, determinant = np.linalg.lstsq(np.stack([x[1:-1], -x[:-2]], axis=1), x[2:], rcond=None)[0]
    np.testing.assert_allclose([trace, determinant], [np.trace(matrix), radius**2], rtol=1e-10)
    assert abs(path[-1]) < 1e-6


def test_xgrad_without_steps_is_the_optimiser_and_with_the_momentums_is_nesterov(x64):
    start = jnp.asarray(MATRIX)

    def gradient(p):
        return jnp.sin(p) * CURVATURE

    inner = optax.sgd(0.1, momentum=0.9)
    np.testing.assert_array_equal(
        rolled(optimize.xgrad(inner, 0.0), start, gradient, 5)[1], rolled(inner, start, gradient, 5)[1]
    )
    nesterov = rolled(optax.sgd(0.1, momentum=0.9, nesterov=True), start, gradient, 5)[1]
    np.testing.assert_allclose(rolled(optimize.xgrad(inner, 0.9), start, gradient, 5)[1], nesterov, rtol=1e-12)


def test_xgrad_lets_the_optimiser_within_see_the_weights_proper(x64):
    # With no gradient at all, decay alone moves: each step takes the same share of the weights themselves.
    rule = optimize.xgrad(optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)), 2.0)
    (params, state), _ = rolled(rule, jnp.asarray(MATRIX), jnp.zeros_like, 4)
    np.testing.assert_allclose(optimize.xgrad_eval_params(state, params), MATRIX * 0.95**4, rtol=1e-12)
    with pytest.raises(ValueError, match="one XGradState in it, got 0"):
        optimize.xgrad_eval_params(optax.EmptyState(), params)


@pytest.mark.parametrize("metric", [False, True])
def test_aegds_energy_pays_for_every_step_at_any_rate(x64, metric):
    curvature, rate = jnp.array([1.0, 30.0, 900.0]), 5.0  # descent is stable below 2/900
    scale = np.array([1.0, 2.0, 50.0])

    def value(x):
        return 0.5 * jnp.sum(curvature * x**2)

    rule = optimize.aegd(rate, precondition=(lambda grads, params: grads / scale) if metric else None)
    x, path, energies = jnp.array([1.0, -2.0, 0.5]), [], []
    state = rule.init(x)
    for _ in range(6):
        path.append(x)
        update, state = rule.update(curvature * x, state, x, value=value(x))
        x = x + update
        energies.append(state.energy)
    lengths = np.diff([*path, x], axis=0) ** 2 * (scale if metric else 1.0)
    lengths = lengths.sum(axis=1) if metric else lengths
    first = np.sqrt(value(path[0]) + 1)
    before, after = np.array([np.broadcast_to(first, np.shape(energies[0])), *energies[:-1]]), np.array(energies)
    np.testing.assert_allclose(after**2 + (after - before) ** 2 + lengths / rate, before**2, rtol=1e-10, atol=1e-20)
    assert np.all(after < before)


def test_aegd_says_when_its_offset_is_too_small(x64):
    rule = optimize.aegd(0.1, offset=0.5)
    with pytest.raises(Exception, match="is not positive: pass a larger offset"):
        jax.block_until_ready(rule.update(jnp.ones(2), rule.init(jnp.ones(2)), value=jnp.array(-0.7)))


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), "a", None])
def test_an_offset_of_aegd_is_a_finite_number(offset):
    with pytest.raises(ValueError, match="a finite number for offset"):
        optimize.aegd(0.1, offset=offset)


def test_a_metric_of_aegd_is_a_function():
    with pytest.raises(ValueError, match="precondition, a function"):
        optimize.aegd(0.1, precondition=3.0)
