import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import fixed_points, latent_attractors, latent_field, trajectory_score


def linear_autoencoder():
    generator = np.random.default_rng(0)
    encoder, decoder = generator.normal(size=(2, 5)), generator.normal(size=(5, 2))
    # A rotation within the latent space, shrunk: the eigenvalues are 0.8 exp(±0.5i).
    turn = 0.8 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    encoder = turn @ np.linalg.inv(encoder @ decoder) @ encoder
    shift, centre = generator.normal(size=2), generator.normal(size=5)
    fixed = np.linalg.solve(np.eye(2) - turn, encoder @ centre + shift)
    encoder, decoder, shift, centre = map(jnp.asarray, (encoder, decoder, shift, centre))
    return lambda x: encoder @ x + shift, lambda z: decoder @ z + centre, turn, fixed


def test_a_linear_autoencoder_has_one_attractor_in_closed_form(x64, key):
    encode, decode, turn, fixed = linear_autoencoder()
    starts = jax.random.normal(key, (12, 2))
    record = latent_attractors(encode, decode, starts, tolerance=1e-12)
    np.testing.assert_allclose(record.points, fixed[None], rtol=1e-9)
    np.testing.assert_allclose(record.spectral_radius, 0.8, rtol=1e-9)
    np.testing.assert_allclose(record.decoded[0], decode(jnp.asarray(fixed)), rtol=1e-9)
    assert record.hits.tolist() == [12] and bool(record.converged.all()) and float(record.residuals[0]) < 1e-11
    # Steps shrink by 0.8 each: the count is known to within one.
    away = np.linalg.norm(np.asarray(starts) - fixed, axis=1)
    first = np.linalg.norm((np.asarray(starts) - fixed) @ (turn - np.eye(2)).T, axis=1)
    needed = np.log(1e-12 * (1 + np.linalg.norm(fixed)) / first) / np.log(0.8) + 1
    assert np.all(np.abs(record.steps - needed) <= 1.01) and away.min() > 0
    field = latent_field(encode, decode)
    np.testing.assert_allclose(field(0.0, jnp.asarray(fixed), None), 0, atol=1e-12)
    newton = fixed_points(field, 0.0, starts)
    np.testing.assert_allclose(newton.points, fixed[None], rtol=1e-6)
    assert newton.kinds == ("stable spiral",)


def test_trajectories_of_a_linear_autoencoder_are_geometric(x64, key):
    encode, decode, turn, fixed = linear_autoencoder()
    xs = jax.random.normal(key, (6, 5))
    scores = trajectory_score(encode, decode, xs, jnp.asarray(fixed)[None], steps=4)
    away = np.linalg.norm(np.asarray(jax.vmap(encode)(xs)) - fixed, axis=1)
    np.testing.assert_allclose(scores, away * np.mean(0.8 ** np.arange(5)), rtol=1e-10)
    both = trajectory_score(encode, decode, xs, jnp.concatenate([jnp.asarray(fixed)[None], jax.vmap(encode)(xs)]))
    assert np.all(both <= trajectory_score(encode, decode, xs, jnp.asarray(fixed)[None]))


def test_several_attractors_are_told_apart_and_memorisation_is_a_cosine(x64):
    # z ↦ z − 0.1 (z³ − z) on each of two axes: attractors (±1, ±1), with derivative 0.8 there.
    def decode(z):
        return jnp.concatenate([z - 0.1 * (z**3 - z), jnp.zeros(1)])

    starts = jnp.array([[0.5, 0.5], [0.7, 0.2], [2.0, 1.0], [-0.5, 0.5], [0.5, -0.5], [-0.1, -0.2], [-1.0, -1.5]])
    training = jnp.array([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
    record = latent_attractors(lambda x: x[:2], decode, starts, training)
    assert record.hits.tolist() == [3, 2, 1, 1]
    np.testing.assert_allclose(record.points[:2], [[1, 1], [-1, -1]], atol=1e-4)
    np.testing.assert_allclose(record.spectral_radius, 0.8, atol=1e-3)
    # The mean training sample is the origin; two attractors are training samples, two lie at right angles.
    np.testing.assert_allclose(record.memorisation.value, 0.5, atol=1e-4)
    np.testing.assert_allclose(record.memorisation.standard_error, np.std([1, 1, 0, 0], ddof=1) / 2, atol=1e-4)
    assert "attractor 3: 1 starts" in record.table()


def test_edges(key):
    starts = jnp.ones((2, 3))
    growing = latent_attractors(lambda x: 2 * x, lambda z: z, starts)
    assert growing.points.shape == (0, 3) and not bool(growing.converged.any())
    assert np.isnan(growing.memorisation.value) and "attractors" in growing.table()
    assert int(growing.steps.max()) < 200
    slow = latent_attractors(lambda x: 0.999 * x, lambda z: z, starts, max_steps=10)
    assert slow.steps.tolist() == [10, 10] and slow.ends.dtype == jnp.float32
    with pytest.raises(ValueError, match="starts of shape"):
        latent_attractors(lambda x: x, lambda z: z, jnp.ones((2, 3, 1)))
