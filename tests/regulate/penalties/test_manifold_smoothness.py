import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import manifold_affinity, manifold_smoothness


def test_gradients_on_a_circle_and_on_a_sphere(x64):
    angle = jnp.linspace(0, 2 * jnp.pi, 400, endpoint=False)
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    values = jnp.sin(2 * angle)
    slopes = jnp.sum(manifold_affinity(circle, 0.05) * (values[:, None] - values[None]) ** 2, axis=1)
    np.testing.assert_allclose(slopes, (2 * jnp.cos(2 * angle)) ** 2, atol=0.05)
    # Height on a sphere has squared gradient 1 - height²; points are spread by the golden angle.
    number = jnp.arange(1500)
    height = 1 - 2 * (number + 0.5) / 1500
    turn = number * jnp.pi * (3 - jnp.sqrt(5.0))
    radius = jnp.sqrt(1 - height**2)
    sphere = jnp.stack([radius * jnp.cos(turn), radius * jnp.sin(turn), height], 1)
    slopes = jnp.sum(manifold_affinity(sphere, 0.15) * (height[:, None] - height[None]) ** 2, axis=1)
    np.testing.assert_allclose(slopes, 1 - height**2, atol=0.05)


AFFINITY = manifold_affinity(jnp.linspace(0, 1, 6)[:, None], 0.2)
F = jnp.array([0.0, 0.1, 0.5, 0.6, 0.9, 1.0])


def test_update_is_the_gradient_of_the_lagrangian_and_the_weights_ascend_on_the_simplex():
    regulator = manifold_smoothness(lambda f: f, AFFINITY, level=0.2, dual_rate=0.05, loss_rate=0.5)
    state = regulator.init(F)
    slopes = jnp.sum(AFFINITY * (F[:, None] - F[None]) ** 2, axis=1)
    grads = jnp.arange(6.0)
    for _ in range(3):
        weights, multiplier = state.weights, state.multiplier

        def lagrangian(f, weights=weights, multiplier=multiplier):
            rough = jnp.sum(AFFINITY * (f[:, None] - f[None]) ** 2, axis=1)
            return multiplier * grads @ f + weights @ rough

        updates, state = regulator.update(grads, state, F, value=0.6)
        np.testing.assert_allclose(updates, jax.grad(lagrangian)(F), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.multiplier, multiplier + 0.2, rtol=1e-6)
        np.testing.assert_allclose(jnp.sum(state.weights), 1, rtol=1e-6)
        assert float(state.weights.min()) >= 0
        assert float(state.weights @ slopes) > float(weights @ slopes)
    np.testing.assert_allclose(state.lipschitz, jnp.sqrt(slopes.max()), rtol=1e-6)


def test_faults():
    with pytest.raises(ValueError, match="expected width, a finite number above 0, got 0"):
        manifold_affinity(jnp.ones((3, 2)), 0.0)
    for points, words in (
        (jnp.ones(3), r"points of shape \[…, …\], got f32\[3\]\. Give points of a line a column"),
        (jnp.ones((3, 2)).at[1, 0].set(jnp.nan), "finite points, got NaN or infinity in row 1"),
    ):
        with pytest.raises(ValueError, match=words):
            manifold_affinity(points, 1.0)
    with pytest.raises(ValueError, match="square"):
        manifold_smoothness(lambda f: f, AFFINITY[:2], level=0.2, dual_rate=0.1, loss_rate=0.5)
    regulator = manifold_smoothness(lambda f: f, AFFINITY, level=0.2, dual_rate=0.1, loss_rate=0.5)
    with pytest.raises(ValueError, match="value"):
        regulator.update(F, regulator.init(F), F)
    for outputs in (lambda f: jnp.concatenate([f, f]), jnp.sum):
        regulator = manifold_smoothness(outputs, AFFINITY, level=0.2, dual_rate=0.1, loss_rate=0.5)
        with pytest.raises(ValueError, match="one for each point"):
            regulator.update(F, regulator.init(F), F, value=0.5)
