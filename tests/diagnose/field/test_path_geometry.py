import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import path_geometry


def rotation(t, y, args):
    return jnp.array([-y[1], y[0]])


def test_constant_speed_is_straight_in_a_pytree_in_single_precision(key):
    y0s = (jax.random.normal(key, (3, 2)), jnp.zeros((3,)))
    record = path_geometry(
        lambda t, y, args: (jnp.full_like(y[0], 2.0), jnp.full_like(y[1], 1.0)),
        y0s,
        steps=3,
        squared_wasserstein=7.2,
    )
    np.testing.assert_allclose(record.energy.value, 9.0, rtol=1e-5)
    np.testing.assert_allclose(record.straightness.value, 0.0, atol=1e-5)
    np.testing.assert_allclose(record.normalised_energy.value, 0.25, rtol=1e-5)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(record)} == {"float32"}
    text = record.table()
    assert "straightness / energy" in text and "normalised path energy" in text and "3 trajectories" in text


def test_circle_has_the_closed_form_in_both_directions(x64):
    # Angle a at unit angular speed: energy r² a, chord² 2 r² (1 − cos a).
    radii, angle = np.array([1.0, 2.0, 3.0]), 2.0
    there = path_geometry(rotation, jnp.stack([radii, 0 * radii], axis=1), t1=angle, steps=4000)
    ends = jnp.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1)
    back = path_geometry(rotation, ends, t0=angle, t1=0.0, steps=4000)
    energies, straight = radii**2 * angle, 2 * radii**2 * (1 - np.cos(angle)) / angle
    for record in (there, back):
        np.testing.assert_allclose(record.energy.value, energies.mean(), rtol=1e-6)
        np.testing.assert_allclose(record.energy.standard_error, energies.std(ddof=1) / np.sqrt(3), rtol=1e-6)
        np.testing.assert_allclose(record.straight_energy.value, straight.mean(), rtol=1e-6)
        np.testing.assert_allclose(record.straightness.value, (energies - straight).mean(), rtol=1e-6)
        share = 1 - (1 - np.cos(angle)) * 2 / angle**2
        np.testing.assert_allclose(record.relative_straightness.value, share, rtol=1e-6)
        assert abs(record.relative_straightness.standard_error) < 1e-7
        assert record.normalised_energy is None


def test_euler_gives_the_riemann_sum_and_its_straightness(x64, key):
    def field(t, y, args):
        return jnp.sin(3 * y) * (1 + t) + args

    y0s, args, steps = jax.random.normal(key, (6, 2)), jnp.linspace(0.0, 1.0, 6), 20
    record = path_geometry(field, y0s, args, steps=steps, method=diffrax.Euler())
    energy, straightness = [], []
    for y0, shift in zip(np.asarray(y0s), np.asarray(args)):
        y, velocities = y0, []
        for step in range(steps):
            velocities.append(np.sin(3 * y) * (1 + step / steps) + shift)
            y = y + velocities[-1] / steps
        velocities = np.array(velocities)
        energy.append(np.sum(velocities**2) / steps)
        straightness.append(np.sum((velocities - (y - y0)) ** 2) / steps)
    np.testing.assert_allclose(record.energy.value, np.mean(energy), rtol=1e-12)
    np.testing.assert_allclose(record.straightness.value, np.mean(straightness), rtol=1e-12)


def test_gaussian_to_gaussian_transport_has_the_wasserstein_energy(x64, key):
    # The optimal map from N(0, 1) to N(m, s²) is x ↦ m + s x and W2² = m² + (s − 1)²; its paths are straight.
    mean, scale = 2.0, 0.5

    def velocity(t, y, args):
        return mean + (scale - 1) * (y - t * mean) / (1 + t * (scale - 1))

    y0s = jax.random.normal(key, (4000, 1))
    squared = mean**2 + (scale - 1) ** 2
    record = path_geometry(velocity, y0s, steps=20, squared_wasserstein=squared)
    assert abs(record.energy.value - squared) < 4 * record.energy.standard_error
    assert record.relative_straightness.value < 1e-5
    assert record.normalised_energy.value < 4 * record.normalised_energy.standard_error


def test_faults_speak():
    with pytest.raises(ValueError, match="t0 and t1 apart"):
        path_geometry(lambda t, y, args: y, jnp.ones((2, 1)), t1=0.0)
    with pytest.raises(ValueError, match="leading axis"):
        path_geometry(lambda t, y, args: y, jnp.ones((2, 1)), jnp.ones(3))
