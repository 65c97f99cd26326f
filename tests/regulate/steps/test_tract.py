import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import tract

X = jax.random.normal(jax.random.key(0), (7, 4))
SLOPES = jax.random.normal(jax.random.key(1), (7, 3))  # of each row's own loss, by its pre-activations


def updated(inputs, slopes, damping):
    regulator = tract(lambda w: w, damping=damping)
    gradient = slopes.T @ inputs / len(inputs)
    return regulator.update(gradient, regulator.init(gradient), inputs=inputs)[0]


def test_it_solves_the_least_squares_problem_of_the_proposal(x64):
    x, slopes, damping = X.astype(jnp.float64), SLOPES.astype(jnp.float64), 0.3
    n = len(x)
    # Rows of √(n λ) I make the penalty part of an ordinary least-squares problem.
    rows = np.concatenate([x, np.sqrt(n * damping) * np.eye(4)])
    wanted = np.concatenate([slopes, np.zeros((4, 3))])
    np.testing.assert_allclose(updated(x, slopes, damping), np.linalg.lstsq(rows, wanted)[0].T, rtol=1e-9)


def test_rows_of_an_embedding_move_by_their_mean_slope():
    tokens = jnp.array([0, 2, 2, 1, 0, 2, 1])
    ours = updated(jnp.eye(3)[tokens], SLOPES, 1e-7)
    expected = np.stack([np.asarray(SLOPES)[np.asarray(tokens) == t].mean(0) for t in range(3)])
    np.testing.assert_allclose(ours.T, expected, rtol=1e-4)


def test_without_damping_mixing_the_pixels_does_not_matter(x64):
    x, slopes = X.astype(jnp.float64), SLOPES.astype(jnp.float64)
    mixed = x @ jax.random.normal(jax.random.key(2), (4, 4), jnp.float64)
    moves = [inputs @ updated(inputs, slopes, 1e-12).T for inputs in (x, mixed)]
    np.testing.assert_allclose(moves[0], moves[1], rtol=1e-6)


def test_faults():
    with pytest.raises(ValueError, match="damping"):
        tract(lambda w: w, damping=0.0)
    regulator = tract(lambda w: w)
    for inputs in (None, jnp.ones((2, 2))):
        with pytest.raises(ValueError, match="inputs"):
            regulator.update(jnp.ones((2, 3)), regulator.init(None), inputs=inputs)
