import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import diagnose


def velocity(t, y, args):
    """Carries N(0, 1) to N(0, 2²), and turns on the way."""
    return y / (1 + t) + jnp.array([[0.0, -1.0], [1.0, 0.0]]) @ y


def log_density(t, y, args):
    return -0.5 * jnp.sum(y**2) / (1 + t) ** 2 - 2 * jnp.log(1 + t)


def test_every_part_says_what_it_says_alone(key):
    ys = 1.5 * jax.random.normal(key, (1500, 2))
    record = diagnose.field_health(velocity, 0.5, ys, log_density=log_density, trajectories=16, waves=32, key=key)
    assert record.continuity.residual.value < 1e-5
    # J = I/1.5 + R at the start; the rotation's share of it is 1/(1 + 1/1.5²).
    np.testing.assert_allclose(record.conservativity.antisymmetry.value, 1 / (1 + 1 / 2.25), rtol=0.02)
    rest = record.gauge.remainder
    assert abs(rest.value - 1 / (1 + 1 / 2.25)) < 4 * rest.standard_error + 0.02
    # Second derivatives of a potential fitted to 750 noisy samples.
    assert record.gauge.relative_condition.value < 0.5
    np.testing.assert_allclose(record.stiffness.log_norm.value[0], 1 / 1.5, rtol=1e-4)
    np.testing.assert_allclose(record.stiffness.lipschitz.value[0], np.sqrt(1 + 1 / 2.25), rtol=1e-4)
    np.testing.assert_allclose(record.stiffness.amplification.value, np.log(2 / 1.5), rtol=2e-3)
    assert record.path.trajectories == 16 and record.path.relative_straightness.value > 0.01
    text = record.table()
    for title in ("Conservativity", "Gauge split", "Path geometry", "Stiffness", "Continuity"):
        assert title in text
    assert record.notes == ()


def test_what_is_left_out_is_said(key):
    ys = jax.random.normal(key, (20, 2))
    text = diagnose.field_health(lambda t, y, args: args * y, 0.0, ys, jnp.ones(20), steps=4, key=key).table()
    assert "conditions differ" in text and "Continuity" not in text and "Gauge split: v" not in text
    with pytest.raises(ValueError, match="one time"):
        diagnose.field_health(lambda t, y, args: -y, jnp.zeros(20), ys, key=key)


def test_only_too_few_samples_become_a_note(key):
    ys = jax.random.normal(key, (20, 2))
    record = diagnose.field_health(lambda t, y, args: -y, 0.0, ys, steps=4, key=key)
    assert record.gauge is None and "20 were given" in record.notes[0]

    def wrong(t, y, args):
        raise ValueError("the caller's own fault")

    with pytest.raises(ValueError, match="the caller's own fault"):
        diagnose.field_health(lambda t, y, args: -y, 0.0, ys, steps=4, score=wrong, waves=4, key=key)


def test_the_same_call_is_compiled_once(key):
    traced = []

    def density(t, y, args):
        traced.append(t)
        return log_density(t, y, args)

    def field(t, y, args):
        return -y

    ys = jax.random.normal(key, (60, 2))
    for _ in range(2):
        once = len(traced)
        record = diagnose.field_health(field, 0.0, ys, log_density=density, steps=4, waves=4, key=key)
    assert record.gauge.condition is not None and len(traced) == once > 0
