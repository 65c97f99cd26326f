"""Landscape learning: rounds by hand, plain descent where the map stays, what is stored, and a map that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

SCALES = np.array([1.0, 0.4])
START = np.array([0.5, -0.2])


def loss(x, target):
    return jnp.sum((SCALES * x - target) ** 2) / 2


def mapping(matrix, z):
    return matrix @ z


def test_rounds_by_hand(x64, key):
    """One target, one stored descent: nothing is drawn. The gradient in the matrix is a sum of outer products."""
    target, rate, pace = np.array([1.0, 2.0]), 0.3, 0.1
    found = optimize.landscape_learning(
        loss,
        mapping,
        np.eye(2),
        START,
        target[None],
        rate=rate,
        steps=3,
        inner_steps=2,
        updates=2,
        batch_size=1,
        capacity=1,
        optimizer=optax.sgd(pace),
        key=key,
    )
    matrix = np.eye(2)
    for values in np.asarray(found.values):
        points, z = [], START
        for value in values:
            points.append(z)
            left = SCALES * (matrix @ z) - target
            np.testing.assert_allclose(value, left @ left / 2, rtol=1e-12)
            z = z - rate * matrix.T @ (SCALES * left)
        for _ in range(2):
            pulls = [np.outer(SCALES * (SCALES * (matrix @ z) - target), z) for z in points]
            matrix = matrix - pace * np.mean(pulls, axis=0)
    np.testing.assert_allclose(found.params, matrix, rtol=1e-12)
    assert found.evaluations == 3 * 3 * (1 + 2)


def test_where_the_map_stays_the_identity_it_is_descent(x64, key):
    targets = np.random.default_rng(0).normal(size=(4, 2))
    found = optimize.landscape_learning(
        loss,
        mapping,
        np.eye(2),
        START,
        targets,
        rate=0.7,
        steps=2,
        inner_steps=6,
        batch_size=4,
        optimizer=optax.sgd(0.0),
        key=key,
    )
    x, means = np.repeat(START[None], 4, axis=0), []
    for _ in range(7):
        left = SCALES * x - targets
        means.append(np.mean(np.sum(left**2, axis=1) / 2))
        x = x - 0.7 * SCALES * left
    np.testing.assert_allclose(found.values, [means, means], rtol=1e-12)


def test_the_oldest_descents_give_way(x64, key):
    def run(capacity):
        return optimize.landscape_learning(
            lambda x, target: jnp.sum((x - target) ** 2) / 2,
            lambda scale, z: scale * z,
            np.array(1.0),
            np.ones(1),
            np.array([[3.0]]),
            rate=0.1,
            steps=4,
            inner_steps=1,
            updates=1,
            batch_size=1,
            capacity=capacity,
            optimizer=optax.sgd(0.1),
            key=key,
        ).params

    rounds = jax.random.split(key, 4)
    for capacity in (1, 2, 3):
        scale, stored = 1.0, [None] * capacity
        for number, one in enumerate(rounds):
            points = [np.ones(1)]
            points.append(points[0] - 0.1 * scale * (scale * points[0] - 3.0))
            stored[number % capacity] = points
            held = min(number + 1, capacity)
            drawn = int(jax.random.randint(jax.random.split(jax.random.split(one)[1], 1)[0], (1,), 0, held)[0])
            scale = scale - 0.1 * np.mean([(scale * z - 3.0) * z for z in stored[drawn]])
        np.testing.assert_allclose(run(capacity), scale, rtol=1e-10)


def test_it_learns_to_undo_an_ill_conditioned_model(key):
    scales = np.float32([1.0, 0.2])
    targets = jax.random.normal(key, (128, 2)) * scales[None]
    settings = {"rate": 0.5, "inner_steps": 5, "key": key, "optimizer": optax.adam(0.02)}
    found = optimize.landscape_learning(
        lambda x, y: jnp.sum((scales * x - y) ** 2) / 2,
        mapping,
        jnp.eye(2),
        jnp.zeros(2),
        targets,
        steps=600,
        **settings,
    )
    assert found.params.dtype == jnp.float32
    assert found.values[-1, -1] < 0.2 * found.values[0, -1]


def test_what_diverges_is_told(key):
    with pytest.raises(RuntimeError):
        optimize.landscape_learning(
            lambda x, y: jnp.sum((x - y) ** 2),
            mapping,
            jnp.eye(2),
            jnp.ones(2),
            jnp.zeros((40, 2)),
            rate=1e9,
            steps=2,
            key=key,
        ).params.block_until_ready()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rate": 0.0}, "rate above 0"),
        ({"batch_size": 9}, "a batch_size of at most 8"),
        ({"targets": np.float32(1.0)}, "targets stacked"),
        ({"mapping": 3}, "mapping"),
        ({"loss": lambda x, y: x - y}, "number"),
        ({"start": np.arange(2)}, "start"),
        ({"optimizer": 3}, "optimizer"),
        ({"key": 3}, "key"),
    ],
)
def test_what_cannot_be_is_refused(x64, key, change, says):
    given = {"loss": loss, "mapping": mapping, "params": np.eye(2), "start": START, "targets": np.ones((8, 2))}
    with pytest.raises(ValueError, match=says):
        optimize.landscape_learning(**given | {"rate": 0.1, "steps": 1, "batch_size": 2, "key": key} | change)
