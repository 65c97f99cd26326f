import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import gauge

# N(0, diag) in three dimensions, and the remainder r = S Σ⁻¹ y with S antisymmetric, which leaves it as it is.
VARIANCES = jnp.array([1.0, 0.5, 2.0])
TURN = jnp.array([[0.0, -1.0, 0.5], [1.0, 0.0, -2.0], [-0.5, 2.0, 0.0]])


def score(t, y, args):
    return -y / VARIANCES


def turn(y):
    return TURN @ (y / VARIANCES)


@pytest.fixture
def ys(key):
    return jax.random.normal(key, (4000, 3)) * jnp.sqrt(VARIANCES)[None]


def test_a_known_mixture_of_gradient_and_gauge_is_taken_apart(ys, key):
    record = gauge(lambda t, y, args: score(t, y, args) + turn(y), 0.0, ys, score=score, reference=score, key=key)
    # E‖Σ⁻¹y‖² = tr Σ⁻¹ and E‖SΣ⁻¹y‖² = tr S Σ⁻¹ Sᵀ.
    gradient, rest = jnp.sum(1 / VARIANCES), jnp.trace(TURN @ jnp.diag(1 / VARIANCES) @ TURN.T)
    for part, expected in ((record.conservative, gradient), (record.remainder, rest)):
        assert abs(part.value - expected / (gradient + rest)) < 4 * part.standard_error + 0.03
    assert abs(record.overlap.value) < 0.03 and record.p_value > 0.01
    assert record.weak < 2 * record.weak_floor
    assert record.relative_condition.value < 0.25
    # Everything that differs from the score is harmless.
    assert abs(record.difference.value - rest / gradient) < 4 * record.difference.standard_error
    assert abs(record.harmful.value) < 0.05 * record.difference.value
    learnt = jax.vmap(jax.grad(record.potential))(ys)
    error = jnp.mean(jnp.sum((learnt + ys / VARIANCES[None]) ** 2, axis=1)) / gradient
    assert error < 0.15


def test_a_quadratic_potential_is_found_exactly(x64, key):
    matrix = jnp.array([[-1.0, 0.4], [0.4, -2.0]])
    ys = jax.random.normal(key, (200, 2))
    record = gauge(lambda t, y, args: matrix @ y + args, 0.0, ys, jnp.array([0.5, 1.0]), waves=4, key=key)
    assert record.remainder.value < 1e-12
    np.testing.assert_allclose(jax.hessian(record.potential)(ys[0]), matrix, atol=1e-5)
    assert record.condition is None and record.harmful is None


def test_a_gradient_beyond_quadratics_is_found(key):
    ys = jax.random.normal(key, (4000, 2))
    record = gauge(lambda t, y, args: jnp.stack([jnp.cos(2 * y[0]) * y[1], jnp.sin(2 * y[0]) / 2]), 0.0, ys, key=key)
    assert record.remainder.value < 0.02 < 0.5 < record.conservative.value


def test_a_wrong_score_is_harmful_and_a_rotated_one_is_not(ys, key):
    wrong = gauge(lambda t, y, args: 1.3 * score(t, y, args), 0.0, ys, reference=score, key=key)
    assert abs(wrong.harmful.value - 0.09) < 0.01 and abs(wrong.difference.value - 0.09) < 0.01


def test_what_the_basis_cannot_express_is_not_passed_off_as_gauge(key):
    # A gradient of far too short a wavelength for the basis: a remainder that the strong condition gives away.
    ys = jax.random.normal(key, (2000, 2))
    record = gauge(lambda t, y, args: jnp.cos(25 * y), 0.0, ys, score=lambda t, y, args: -y, key=key)
    assert record.remainder.value > 0.8 and record.relative_condition.value > 0.8


def test_a_remainder_that_moves_probability_has_a_small_p_value(ys, key):
    from nablax.diagnose._field import _gauge, _potential

    def turned(t, y, args):
        return score(t, y, args) + turn(y)

    right = gauge(turned, 0.0, ys, waves=16, key=key)
    trial = _potential.random_potential(ys, 32, key)
    moment, field = jnp.zeros(()), lambda t, y, args: jnp.tanh(3 * y)
    numbers = _gauge._measure(field, None, None, right.potential, None, trial, ys, moment, None, 32)
    poor = _gauge._record(numbers, right.potential, len(ys))
    assert poor.p_value < 1e-6 and poor.weak > 5 * poor.weak_floor
    assert right.p_value > 0.01


def test_a_field_that_is_no_number_has_no_p_value(key):
    record = gauge(lambda t, y, args: jnp.nan * y, 0.0, jax.random.normal(key, (200, 2)), waves=4, tests=5, key=key)
    assert np.isnan(record.p_value) and np.isnan(record.remainder.value)


def test_trees_table_and_faults(key):
    ys = {"a": jax.random.normal(key, (200,)), "b": jax.random.normal(key, (200, 2))}
    record = gauge(lambda t, y, args: jax.tree.map(jnp.negative, y), 0.0, ys, waves=4, tests=5, key=key)
    assert (
        record.remainder.value < 1e-6
        and np.isnan(record.p_value)
        and {str(x.dtype) for x in jax.tree.leaves(record)} == {"float32"}
    )
    assert "remainder's share" in record.table() and "nats" not in record.table()
    with pytest.raises(ValueError, match="at least"):
        gauge(lambda t, y, args: y, 0.0, jnp.ones((20, 2)), key=key)
    with pytest.raises(ValueError, match="one time"):
        gauge(lambda t, y, args: y, jnp.zeros(20), jnp.ones((20, 2)), key=key)
