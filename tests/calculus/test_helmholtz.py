import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.calculus import helmholtz


def axes(grid, lengths):
    return np.meshgrid(*[length * np.arange(n) / n for n, length in zip(grid, lengths)], indexing="ij")


def derivative(values, axis, length):
    """Spectral derivative, Nyquist mode dropped; written apart from the method's own transform."""
    n = values.shape[axis]
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    if n % 2 == 0:
        k[n // 2] = 0
    shape = [1] * values.ndim
    shape[axis] = n
    return np.fft.ifft(1j * k.reshape(shape) * np.fft.fft(values, axis=axis), axis=axis)


def divergence_and_curl(field, lengths):
    dim = field.shape[-1]
    jacobian = [[derivative(field[..., i], j, lengths[j]) for j in range(dim)] for i in range(dim)]
    curl = [jacobian[i][j] - jacobian[j][i] for i in range(dim) for j in range(i)]
    return sum(jacobian[i][i] for i in range(dim)), np.stack(curl)


def test_a_known_mixture_in_the_plane_is_recovered(x64):
    lengths = (2.0, 5.0)
    x, y = axes((16, 15), lengths)
    a, b = 2 * np.pi * x / 2.0, 2 * np.pi * y / 5.0
    # φ = sin(a) cos(2b), ψ = cos(3a + b); v = ∇φ + (∂ψ/∂y, −∂ψ/∂x) + mean.
    ka, kb = 2 * np.pi / 2.0, 2 * np.pi / 5.0
    gradient = np.stack([ka * np.cos(a) * np.cos(2 * b), -2 * kb * np.sin(a) * np.sin(2 * b)], -1)
    rotation = np.stack([-kb * np.sin(3 * a + b), 3 * ka * np.sin(3 * a + b)], -1)
    mean = np.array([0.3, -1.2])
    parts = jax.jit(lambda v: helmholtz(v, lengths))(jnp.asarray(gradient + rotation + mean))
    np.testing.assert_allclose(parts.potential_part, gradient, atol=1e-13)
    np.testing.assert_allclose(parts.solenoidal_part, rotation, atol=1e-13)
    np.testing.assert_allclose(parts.mean, mean, atol=1e-14)


def test_a_known_mixture_in_space_is_recovered(x64):
    lengths = (1.0, 2.0, 3.0)
    x, y, z = (2 * np.pi * p / length for p, length in zip(axes((8, 9, 10), lengths), lengths))
    k = 2 * np.pi / np.array(lengths)
    wave = np.cos(x - 2 * y + z)
    gradient = wave[..., None] * k * np.array([1.0, -2.0, 1.0])
    # The curl of (0, 0, sin(x + y)) and of (sin(y + 2z), 0, 0).
    first, second = np.cos(x + y), np.cos(y + 2 * z)
    rotation = np.stack([k[1] * first, -k[0] * first + 2 * k[2] * second, -k[1] * second], -1)
    parts = helmholtz(jnp.asarray(gradient + rotation), lengths)
    np.testing.assert_allclose(parts.potential_part, gradient, atol=1e-13)
    np.testing.assert_allclose(parts.solenoidal_part, rotation, atol=1e-13)


@pytest.mark.parametrize("grid", [(6, 8), (7, 5), (6, 5, 4), (4, 3, 4, 2)])
def test_noise_with_all_its_nyquist_modes_splits_into_real_parts_that_add_up(grid, x64):
    dim = len(grid)
    lengths = tuple(1.0 + np.arange(dim))
    values = np.random.default_rng(0).normal(size=(*grid, dim))
    parts = helmholtz(jnp.asarray(values), lengths)
    total = parts.potential_part + parts.solenoidal_part + parts.mean.reshape((1,) * dim + (dim,))
    np.testing.assert_allclose(total, values, atol=1e-14)
    _, curl = divergence_and_curl(np.asarray(parts.potential_part), lengths)
    divergence, _ = divergence_and_curl(np.asarray(parts.solenoidal_part), lengths)
    assert np.abs(curl).max() < 1e-12 and np.abs(divergence).max() < 1e-12
    # The contrast: the field itself has plenty of both, and the parts are orthogonal.
    divergence, curl = divergence_and_curl(values, lengths)
    assert np.abs(divergence).max() > 1 and np.abs(curl).max() > 1
    assert abs(np.sum(parts.potential_part * parts.solenoidal_part)) < 1e-12


def test_splitting_twice_changes_nothing_and_single_precision_stays(key):
    values = jax.random.normal(key, (12, 10, 2))
    parts = helmholtz(values, 1.0)
    again = helmholtz(parts.potential_part, 1.0)
    np.testing.assert_allclose(again.potential_part, parts.potential_part, atol=1e-6)
    np.testing.assert_allclose(again.solenoidal_part, 0, atol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(parts)} == {jnp.dtype("float32")}


def test_wrong_shapes_are_said():
    with pytest.raises(ValueError, match="one component per axis"):
        helmholtz(jnp.zeros((4, 4, 3)), 1.0)
    with pytest.raises(ValueError, match="positive and finite period"):
        helmholtz(jnp.zeros((4, 4, 2)), (1.0, -1.0))
    with pytest.raises(ValueError, match="positive and finite period"):
        helmholtz(jnp.zeros((4, 4, 2)), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="positive and finite period"):
        helmholtz(jnp.zeros((4, 4, 2)), (1.0, jnp.inf))
    for values in (jnp.array(1.0), jnp.ones(1)):
        with pytest.raises(ValueError, match="one component per axis"):
            helmholtz(values, 1.0)


@pytest.mark.parametrize("gap", [jnp.nan, jnp.inf])
def test_one_gap_would_reach_every_number_and_is_refused(gap):
    values = jnp.ones((4, 4, 2)).at[1, 2, 0].set(gap)
    with pytest.raises(ValueError, match="finite values, got NaN or infinity"):
        helmholtz(values, 1.0)
    # What is traced cannot be looked at.
    assert not jnp.any(jnp.isfinite(jax.jit(lambda v: helmholtz(v, 1.0))(values).potential_part))
    with pytest.raises(ValueError, match="real floating-point"):
        helmholtz(values * 1j, 1.0)


def test_whole_numbers_are_taken_as_floats():
    values = jnp.arange(32).reshape(4, 4, 2) % 7
    whole, expected = helmholtz(values, 1.0), helmholtz(values.astype(jnp.float32), 1.0)
    jax.tree.map(np.testing.assert_array_equal, whole, expected)
    assert whole.mean.dtype == jnp.float32 and np.abs(whole.potential_part).max() > 0.1
