"""A preference for each objective: by brute force, by the pseudo-inverse, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import regulate

WITH_PREFERENCE = ["upgrad", "dual_projection", "aligned_mtl", "conflict_free"]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def cone_projection(rows, vector):
    """Nearest point of {d : Jd ≥ 0} by trying every set of active rows."""
    best = None
    for size in range(len(rows) + 1):
        for active in itertools.combinations(range(len(rows)), size):
            some = rows[list(active)]
            point = vector - (np.linalg.pinv(some) @ (some @ vector) if size else 0)
            nearer = best is None or np.linalg.norm(point - vector) < np.linalg.norm(best - vector)
            if nearer and np.all(rows @ point >= -1e-9 * np.linalg.norm(vector)):
                best = point
    return best


def expected(name, rows, preference):
    if name == "upgrad":
        return sum(c * cone_projection(rows, row) for c, row in zip(preference, rows))
    if name == "dual_projection":
        return cone_projection(rows, preference @ rows)
    if name == "aligned_mtl":
        left, sizes, right = np.linalg.svd(rows, full_matrices=False)
        return sizes[-1] * preference @ left @ right
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    direction = np.linalg.pinv(units) @ preference
    direction = direction / np.linalg.norm(direction)
    return np.sum(rows @ direction) * direction


@pytest.mark.parametrize("name", WITH_PREFERENCE)
def test_the_vector_is_that_of_its_definition(name):
    random = np.random.default_rng(0)
    weights = getattr(regulate, f"{name}_weights")
    for preference in ([0.7, 0.2, 0.1], [3.0, 0.0, 1.0], [1e6, 1.0, 5.0], [1e-12, 2e-12, 1e-12]):
        preference = np.array(preference)
        method = getattr(regulate, name)(preference=preference)
        step = jax.jit(method.update)
        for _ in range(6):
            rows = random.normal(size=(3, 5)) * np.array([[1.0], [4.0], [0.2]])
            vector, state = step(jnp.asarray(rows), method.init(jnp.zeros(5)))
            right = expected(name, rows, preference)
            np.testing.assert_allclose(vector, right, rtol=1e-6, atol=1e-9 * np.linalg.norm(right))
            of_gramian = weights(jnp.asarray(rows @ rows.T), preference=jnp.asarray(preference))
            np.testing.assert_allclose(of_gramian.weights @ rows, right, rtol=1e-6, atol=1e-9 * np.linalg.norm(right))
            # The preference says how many objectives there are, so that the weights are recorded.
            np.testing.assert_allclose(state.weights @ rows, right, rtol=1e-6, atol=1e-9 * np.linalg.norm(right))


@pytest.mark.parametrize("name", WITH_PREFERENCE)
def test_equal_preferences_are_the_default(name):
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)))
    plain, equal = getattr(regulate, name)(), getattr(regulate, name)(preference=[1 / 3, 1 / 3, 1 / 3])
    vectors = [method.update(rows, method.init(jnp.zeros(5)))[0] for method in (plain, equal)]
    np.testing.assert_allclose(*vectors, rtol=1e-9)


@pytest.mark.parametrize("name", ["upgrad", "dual_projection"])
def test_no_preference_hurts_anybody(name):
    random = np.random.default_rng(2)
    for _ in range(20):
        rows, preference = random.normal(size=(4, 5)), random.exponential(size=4) ** 4
        preference[random.integers(4)] = 0
        method = getattr(regulate, name)(preference=preference)
        vector = np.asarray(method.update(jnp.asarray(rows), method.init(jnp.zeros(5)))[0])
        assert np.min(rows @ vector) > -1e-9 * np.linalg.norm(vector) * np.linalg.norm(rows)


@pytest.mark.parametrize("name", WITH_PREFERENCE)
def test_what_is_no_preference_is_refused(name):
    make = getattr(regulate, name)
    for wrong in ([1.0, -1.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(ValueError, match="preferences that are finite, none negative, not all zero"):
            make(preference=wrong)
    with pytest.raises(ValueError, match=r"preference of shape \[3\], got"):
        make(preference=[1.0, 2.0], objectives=3)
    for wrong in (2.0, "equal", jnp.ones((2, 2))):
        with pytest.raises(ValueError, match="preference of shape"):
            make(preference=wrong)
    method = make(preference=[1.0, 2.0])
    with pytest.raises(ValueError, match="expected 2 objectives, got 3"):
        method.update(jnp.ones((3, 4)), method.init(jnp.zeros(4)))
    with pytest.raises(ValueError, match=r"preference of shape \[2\], got"):
        getattr(regulate, f"{name}_weights")(jnp.eye(2), preference=[1.0, 2.0, 3.0])
