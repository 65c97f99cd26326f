"""Gradients through draws against enumeration of all of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

KEY = jax.random.key(0)
LOGITS = jnp.array([0.4, -1.1, 0.7])
KEYS = jax.random.split(KEY, 100_000)


def mean_and_error(draws):
    draws = np.asarray(draws, np.float64)
    return draws.mean(0), draws.std(0) / np.sqrt(len(draws))


def expected_over_units(loss, logits):
    """Expected loss by all 2ⁿ draws."""
    p = jax.nn.sigmoid(logits)
    total = 0.0
    for bits in itertools.product([0.0, 1.0], repeat=len(logits)):
        h = jnp.array(bits)
        total += jnp.prod(jnp.where(h > 0, p, 1 - p)) * loss(h)
    return total


def expected_over_classes(loss, logits):
    return jnp.sum(jax.nn.softmax(logits) * jnp.stack([loss(row) for row in jnp.eye(len(logits))]))


def bumpy(h):
    return jnp.sum(h * jnp.array([1.0, 2.0, -1.0])) ** 2 + 3 * h[0] * h[1] + jnp.sin(5 * h[2]) + 4


def test_straight_through_is_right_for_linear_losses_and_the_identity_passes_gradients_on():
    weights = jnp.array([1.0, -2.0, 0.5])

    def linear(a, key):
        return jnp.dot(weights, estimate.straight_through(a, key=key, derivative="sigmoid"))

    mean, error = mean_and_error(jax.vmap(lambda key: jax.grad(linear)(LOGITS, key))(KEYS[:10]))
    np.testing.assert_allclose(
        mean, jax.grad(lambda a: expected_over_units(lambda h: weights @ h, a))(LOGITS), rtol=1e-5
    )
    assert not error.any() or error.max() < 1e-6  # it does not depend on the draw
    plain = jax.grad(lambda a: jnp.dot(weights, estimate.straight_through(a, key=KEY)))(LOGITS)
    np.testing.assert_allclose(plain, weights)
    drawn = jax.vmap(lambda key: estimate.straight_through(LOGITS, key=key))(KEYS)
    mean, error = mean_and_error(drawn)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert np.all(np.abs(mean - jax.nn.sigmoid(LOGITS)) < 4 * error)


def test_smooth_times_stochastic_has_the_right_mean_and_half_the_derivative():
    drawn = jax.vmap(lambda key: estimate.smooth_times_stochastic(LOGITS, key=key))(KEYS)
    mean, error = mean_and_error(drawn)
    assert np.all(np.abs(mean - jax.nn.sigmoid(LOGITS)) < 4 * error)
    slopes = jax.vmap(lambda key: jax.grad(lambda a: estimate.smooth_times_stochastic(a, key=key).sum())(LOGITS))(KEYS)
    mean, error = mean_and_error(slopes)
    p = jax.nn.sigmoid(LOGITS)
    assert np.all(np.abs(mean - 0.5 * p * (1 - p)) < 4 * error)


@pytest.mark.parametrize("baseline", ["none", "mean", "best"])
def test_score_function_is_unbiased_for_any_loss(baseline):
    def estimated(key):
        return jax.value_and_grad(lambda a: estimate.score_function(bumpy, a, key=key, draws=4, baseline=baseline))(
            LOGITS
        )

    values, slopes = jax.jit(jax.vmap(estimated))(KEYS)
    value, truth = jax.value_and_grad(lambda a: expected_over_units(bumpy, a))(LOGITS)
    mean, error = mean_and_error(values)
    assert abs(mean - value) < 4 * error
    mean, error = mean_and_error(slopes)
    assert np.all(np.abs(mean - truth) < 4 * error)


def test_the_best_baseline_has_the_least_variance_and_the_loss_keeps_its_own_derivative():
    def spread(baseline):
        draw = jax.jit(
            jax.vmap(
                lambda key: jax.grad(lambda a: estimate.score_function(bumpy, a, key=key, draws=32, baseline=baseline))(
                    LOGITS
                )
            )
        )
        return float(np.var(np.asarray(draw(KEYS[:20_000])), axis=0).sum())

    none, mean, best = spread("none"), spread("mean"), spread("best")
    assert none > 1.5 * mean > 1.5 * best
    slope = jax.grad(lambda w: estimate.score_function(lambda h: w * jnp.sum(h), LOGITS, key=KEY, draws=64))(2.0)
    drawn = jax.random.bernoulli(KEY, jnp.broadcast_to(jax.nn.sigmoid(LOGITS), (64, 3)))
    assert float(slope) == pytest.approx(float(drawn.sum(1).mean()), rel=1e-6)


def test_the_best_baseline_is_no_noisier_than_the_mean_where_draws_are_few_and_units_many():
    """Its own draws' noise, where it went all of the way to the best constant, would make it 1.3 times as noisy."""
    logits, parts = 2.0 * jnp.sin(3.0 * jnp.arange(12)) - 1, jnp.cos(jnp.arange(12.0))

    def gradient(key, baseline):
        def expected(a):
            return estimate.score_function(lambda h: 1 + h @ parts, a, key=key, draws=8, baseline=baseline)

        return jax.grad(expected)(logits)

    mean, best = jax.jit(jax.vmap(lambda key: (gradient(key, "mean"), gradient(key, "best"))))(KEYS[:20_000])
    mean, best = np.asarray(mean), np.asarray(best)
    excess = np.sum((best - best.mean(0)) ** 2 - (mean - mean.mean(0)) ** 2, axis=1)
    ratio, error = mean_and_error(excess / mean.var(0).sum())
    assert ratio < 2 * error and error < 0.01


def test_reinmax_is_right_for_quadratic_losses_where_straight_through_is_not():
    """By enumeration of the draw, in closed form: each class's gradient by its probability."""
    with jax.enable_x64(True):
        logits = jnp.array([0.3, -0.8, 1.1, 0.0])
        matrix = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))

        def quadratic(d):
            return d @ matrix @ d + jnp.sum(matrix[0] * d)

        def cubic(d):
            return jnp.sum(matrix[0] * d) ** 3

        def mean(method, loss):
            keys = jax.random.split(KEY, 400)
            drawn = jax.vmap(lambda key: method(logits, key=key))(keys)
            slopes = jax.vmap(lambda key: jax.grad(lambda a: loss(method(a, key=key)))(logits))(keys)
            firsts = [int(jnp.argmax(drawn[:, k])) for k in range(4)]  # one draw of each class is enough
            return sum(p * slopes[first] for p, first in zip(jax.nn.softmax(logits), firsts))

        truth = jax.grad(lambda a: expected_over_classes(quadratic, a))(logits)
        np.testing.assert_allclose(mean(estimate.reinmax, quadratic), truth, atol=1e-12)
        assert np.abs(mean(estimate.categorical_straight_through, quadratic) - truth).max() > 0.05
        third = jax.grad(lambda a: expected_over_classes(cubic, a))(logits)
        errors = [
            np.abs(mean(m, cubic) - third).max() for m in (estimate.reinmax, estimate.categorical_straight_through)
        ]
        assert 1e-6 < errors[0] < errors[1]


@pytest.mark.parametrize("method", [estimate.reinmax, estimate.categorical_straight_through, estimate.gumbel])
def test_rows_of_classes_are_drawn_and_differentiated_each_by_its_own_logits(method):
    random = np.random.default_rng(1)
    logits = jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32)
    drawn = jax.jit(jax.vmap(lambda key: method(logits, key=key)))(KEYS)
    assert set(np.unique(drawn)) == {0.0, 1.0} and bool(jnp.all(jnp.sum(drawn, axis=-1) == 1))
    mean, error = mean_and_error(drawn)
    assert np.all(np.abs(mean - jax.nn.softmax(logits, axis=-1)) < 4.5 * error)
    weights = random.normal(size=(2, 3, 4))

    def slope(temperature):
        return jax.vjp(lambda a: method(a, key=KEY, temperature=temperature), logits)[1](jnp.float32(weights))[0]

    def covariance(q):
        return np.einsum("...i,ij->...ij", q, np.eye(4)) - q[..., None] * q[..., None, :]

    if method is estimate.gumbel:  # of its relaxation, whose own derivative that is
        q = np.asarray(method(logits, key=KEY, temperature=1.5, hard=False))
        rule = covariance(q) / 1.5
    else:
        p, soft = (np.asarray(jax.nn.softmax(logits / t, axis=-1)) for t in (1.0, 1.5))
        middle = 0.5 * (soft + np.asarray(method(logits, key=KEY)))
        heun = 2 * covariance(middle) - 0.5 * covariance(p)
        rule = heun if method is estimate.reinmax else covariance(soft) / 1.5
    np.testing.assert_allclose(slope(1.5), np.einsum("...ij,...j->...i", rule, weights), atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_draws_of_half_precision_have_the_probabilities_of_their_logits(dtype):
    """As drawn in half precision the first of three even classes had 0.337, a unit of probability 0.018 had 0.023."""
    even = jnp.zeros((1_000_000, 3), dtype)
    for method in (estimate.reinmax, estimate.categorical_straight_through, estimate.gumbel):
        drawn = method(even, key=KEY, temperature=jnp.float32(1.0))
        assert drawn.dtype == dtype
        shares = np.asarray(drawn, np.float64).mean(0)
        assert np.all(np.abs(shares - 1 / 3) < 4.5 * np.sqrt(2 / 9 / 1e6))
    unit = jnp.full(1_000_000, -4.0, dtype)
    plain, gates = estimate.straight_through(unit, key=KEY), estimate.smooth_times_stochastic(unit, key=KEY)
    # A gate that is open has the probability of being so for its value.
    for drawn, share in ((plain, float(jax.nn.sigmoid(unit[0]))), (gates, float(gates.max()))):
        assert drawn.dtype == dtype
        rate = np.mean(np.asarray(drawn, np.float64) > 0)
        assert abs(rate - share) < 4.5 * np.sqrt(share / 1e6)


def test_units_that_are_always_on_or_off_have_values_and_finite_derivatives():
    """The difference of two infinities, and the slope of a root at 0, are no numbers."""
    sure = jnp.array([jnp.inf, -jnp.inf, 3e38, -3e38, -200.0, -95.0, 50.0])
    on = np.array([1.0, 0, 1, 0, 0, 0, 1])
    for options in ({}, {"key": KEY}, {"key": KEY, "derivative": "sigmoid"}):
        unit = functools.partial(estimate.straight_through, **options)
        np.testing.assert_array_equal(unit(sure), on)
        slopes = jax.grad(lambda a, unit=unit: jnp.sum(unit(a)))(sure)
        assert bool(jnp.all(jnp.isfinite(slopes)))
    gate = functools.partial(estimate.smooth_times_stochastic, key=KEY)
    np.testing.assert_array_equal(gate(sure), on)
    assert bool(jnp.all(jnp.abs(jax.grad(lambda a: jnp.sum(gate(a)))(sure)) < 1e-20))
    score = functools.partial(estimate.score_function, lambda h: jnp.sum(h) ** 2, key=KEY)
    assert float(score(sure)) == 9 and bool(jnp.all(jax.grad(score)(sure) == 0))
    # Where nothing is out of range the slope is the one by hand: half of σ' where the gate is open.
    a = jnp.linspace(-20.0, 20.0, 9)
    p = jax.nn.sigmoid(a)
    opened = np.asarray(gate(a)) > 0
    np.testing.assert_allclose(
        jax.grad(lambda a: jnp.sum(gate(a)))(a), opened * 0.5 * np.sqrt(p) * jax.nn.sigmoid(-a), rtol=1e-5, atol=1e-12
    )


def test_gumbel_draws_classes_with_their_probabilities_and_relaxes_them():
    drawn = jax.vmap(lambda key: estimate.gumbel(LOGITS, key=key, temperature=0.5))(KEYS)
    mean, error = mean_and_error(drawn)
    assert np.all(np.abs(mean - jax.nn.softmax(LOGITS)) < 4 * error)
    soft = estimate.gumbel(LOGITS, key=KEY, temperature=0.5, hard=False)
    assert float(jnp.sum(soft)) == pytest.approx(1) and 0 < float(soft.max()) < 1
    hard = jax.grad(lambda a: estimate.gumbel(a, key=KEY, temperature=0.5)[0])(LOGITS)
    np.testing.assert_allclose(
        hard, jax.grad(lambda a: estimate.gumbel(a, key=KEY, temperature=0.5, hard=False)[0])(LOGITS)
    )


def test_rectified_sign_is_the_clipped_identity_at_first_and_finite_everywhere():
    def slope(x, order):
        return jax.vmap(jax.grad(lambda x: estimate.rectified_straight_through(x, order)))(x)

    inside = jnp.array([-1.49, -0.3, 0.0, 0.05, 1.0, 1.5])
    np.testing.assert_allclose(slope(inside, 1.0), 1.0, rtol=1e-6)
    assert not slope(jnp.array([-1.51, 1.6, 1e38, -jnp.inf, jnp.inf]), 1.0).any()
    # The middle's slope is the mean one of the power function there.
    for order in (1.5, 3.0):
        assert float(slope(jnp.array([0.03]), order)[0]) * 0.2 == pytest.approx(2 * 0.1 ** (1 / order), rel=1e-5)
        everywhere = jnp.array([0.0, 1e-45, -1e-38, 1e-7, 0.1, 0.5, 1.5, 3e38, jnp.inf, -jnp.inf], jnp.float32)
        assert bool(jnp.all(jnp.isfinite(slope(everywhere, order))))
    x = jnp.linspace(0.11, 1.5, 20)
    np.testing.assert_allclose(slope(x, 3.0), jax.vmap(jax.grad(lambda x: x ** (1 / 3)))(x), rtol=1e-5)
    np.testing.assert_allclose(estimate.rectified_straight_through(jnp.array([-2.0, 0.0, 0.3])), [-1, 0, 1])


@pytest.mark.parametrize("surrogate", ["sigmoid", "fast sigmoid", "arctangent", "triangle"])
def test_a_spike_is_a_step_whose_bump_has_its_area_and_is_finite(surrogate):
    def bump(x):
        return jax.vmap(jax.grad(lambda x: estimate.spike(x, surrogate=surrogate, slope=3.0)))(x)

    x = jnp.linspace(-2000.0, 2000.0, 4_000_001)
    area = float(jnp.sum(bump(x).astype(jnp.float32)) * 1e-3)
    assert area == pytest.approx(2 / 3 if surrogate == "fast sigmoid" else 1.0, rel=2e-3)
    extreme = jnp.array([jnp.finfo(jnp.float32).max, -jnp.finfo(jnp.float32).max, 1e-45, jnp.inf, -jnp.inf, 0.0])
    assert bool(jnp.all(jnp.isfinite(bump(extreme))))
    np.testing.assert_allclose(estimate.spike(jnp.array([-1.0, 0.0, 2.0]), surrogate=surrogate), [0, 0, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.straight_through(jnp.arange(3)), "floating-point"),
        (lambda: estimate.straight_through(LOGITS, derivative="tanh"), "identity"),
        (lambda: estimate.smooth_times_stochastic(LOGITS, key=3), "random key"),
        (lambda: estimate.reinmax(LOGITS, key=KEY, temperature=0.5), "of 1 or more"),
        (lambda: estimate.gumbel(LOGITS, key=KEY, temperature=0.0), "above 0"),
        (lambda: estimate.gumbel(jnp.array(1.0), key=KEY), "classes"),
        (lambda: estimate.reinmax(jnp.zeros((4, 0)), key=KEY), "classes"),
        (lambda: estimate.score_function(bumpy, LOGITS, key=KEY, draws=1), "draws"),
        (lambda: estimate.score_function(lambda h: h, LOGITS, key=KEY), "one real number"),
        (lambda: estimate.spike(LOGITS, surrogate="relu"), "surrogate among"),
        (lambda: estimate.spike(LOGITS, slope=0.0), "slope"),
        (lambda: estimate.rectified_straight_through(jnp.arange(3)), "floating-point"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
