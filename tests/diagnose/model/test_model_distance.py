import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import distinguishing_samples, model_distance


def test_linear_models_differ_by_the_angle_of_their_weights(x64, key):
    first, second = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, -1.0, 3.0])
    xs, references = jax.random.normal(key, (2, 9, 3))
    record = model_distance(lambda x: x @ first + 1, lambda x: 7 * (x @ second), xs, references)
    moves = np.asarray(xs - references)
    ours, theirs = moves * np.asarray(first), moves * np.asarray(second)
    cosine = np.sum(ours * theirs, 1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(record.each, 1 - cosine, rtol=1e-10)
    np.testing.assert_allclose(record.along.value, np.mean(1 - cosine), rtol=1e-10)
    np.testing.assert_allclose(record.distance.standard_error, np.std(cosine, ddof=1) / 3, rtol=1e-10)


def test_whole_paths_give_integrated_gradients(x64, key):
    # For a quadratic ½xᵀAx the path's integral is (x − r) ⊙ A (x + r) / 2, and Gauss–Legendre is exact.
    matrices = np.random.default_rng(0).normal(size=(2, 4, 4))
    matrices = jnp.asarray(matrices + matrices.transpose(0, 2, 1))
    xs, references = jax.random.normal(key, (2, 70, 4))
    models = [lambda x, a=a: x @ a @ x / 2 for a in matrices]
    record = model_distance(*models, xs, references, steps=3)
    gathered = [(xs - references) * ((xs + references) @ a / 2) for a in matrices]
    ours, theirs = (np.asarray(g) / np.linalg.norm(g, axis=1, keepdims=True) for g in gathered)
    np.testing.assert_allclose(record.along.value[-1], np.mean(1 - np.sum(ours * theirs, 1)), rtol=1e-9)


def test_what_the_function_leaves_alone(key):
    inner, outer = jax.random.normal(key, (6, 3)), jax.random.normal(key, (4, 6))
    order = jnp.array([5, 2, 0, 1, 4, 3])

    def model(x):
        return outer @ jnp.tanh(inner @ x)

    def shuffled(x):
        return 1e-12 * (outer[:, order] @ jnp.tanh(inner[order] @ x))

    xs = jax.random.normal(key, (5, 3))
    same = model_distance(model, shuffled, xs, jnp.zeros(3))
    np.testing.assert_allclose(same.each, 0, atol=1e-5)
    assert same.distance.value.dtype == jnp.float32 and "whole paths only" in same.table()
    last = jnp.argmin(jax.vmap(model)(xs), axis=1)
    opposite = model_distance(model, lambda x: -model(x), xs, jnp.zeros(3), last)
    np.testing.assert_allclose(opposite.distance.value, 2, rtol=1e-5)
    # So large a constant hides which output is highest.
    given = model_distance(model, lambda x: shuffled(x) + 3, xs, jnp.zeros(3), last)
    np.testing.assert_allclose(given.distance.value, 0, atol=1e-5)


def test_each_model_is_followed_where_it_scores_highest(x64, key):
    # Of linear classifiers the field is the move times the row of the class.
    weights = jax.random.normal(key, (4, 5, 3))
    xs, reference = jax.random.normal(jax.random.key(1), (30, 3)), jnp.array([0.1, -0.2, 0.3])
    models = [lambda x, w=w: w @ x for w in weights]
    rows = [np.asarray(w)[np.argmax(np.asarray(xs) @ np.asarray(w).T, axis=1)] for w in weights]
    fields = [(np.asarray(xs) - np.asarray(reference)) * row for row in rows]
    fields = [field / np.linalg.norm(field, axis=1, keepdims=True) for field in fields]
    apart = [1 - np.sum(fields[0] * field, axis=1) for field in fields[1:]]
    record = model_distance(models[0], models[1], xs, reference, steps=2)
    assert np.any(np.argmax(xs @ weights[0].T, axis=1) != np.argmax(xs @ weights[1].T, axis=1))
    np.testing.assert_allclose(record.each, apart[0], rtol=1e-9)
    chosen = distinguishing_samples(models[0], models[1:], xs, reference, 7, steps=2)
    np.testing.assert_array_equal(chosen, np.argsort(-np.mean(apart, axis=0))[:7])


def test_edges():
    xs = jnp.ones((2, 3))
    flat = model_distance(lambda x: x[0], lambda x: 0 * x[0], xs, jnp.zeros(3))
    assert float(flat.distance.value) == 1 and float(flat.undefined) == 1
    with pytest.raises(ValueError, match="references of shape"):
        model_distance(jnp.sum, jnp.sum, xs, jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match="outputs of shape"):
        model_distance(jnp.sum, lambda x: x, xs, jnp.zeros(3))
    with pytest.raises(ValueError, match="steps as a whole number, at least 1"):
        model_distance(jnp.sum, jnp.sum, xs, jnp.zeros(3), steps=0)
    for others, count in (([], 1), ([jnp.sum], 3)):
        with pytest.raises(ValueError, match="at least one unrelated model, and no more samples"):
            distinguishing_samples(jnp.sum, others, xs, jnp.zeros(3), count)
