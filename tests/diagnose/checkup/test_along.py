"""Derivatives that a check-up takes of some rows, or along some directions only, beside the whole Hessian."""

import jax
import jax.numpy as jnp
import numpy as np

from nablax.diagnose import checkup
from nablax.diagnose._checkup._along import Point, curvatures_on_parts, dealt, slopes_along
from nablax.diagnose._checkup._row_gradients import row_gradients

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (33, 3))
PARAMS = jnp.array([0.5, -0.9, 0.2])
DIRECTIONS = jax.random.normal(jax.random.key(2), (6, 3))


def loss(params, batch):
    return jnp.mean(jnp.tanh(batch["x"] @ params) ** 2) * batch["scale"]


BATCH = {"x": X, "scale": 1.5}


def test_each_direction_is_asked_about_one_part_of_the_rows_in_turn():
    """33 rows are four parts of eight and one left over; what is no array is shared by all."""
    found = jax.jit(
        lambda at: curvatures_on_parts(
            lambda rows: lambda p: loss(p, rows),
            loss(at, BATCH),
            at,
            lambda i: DIRECTIONS[i],
            len(DIRECTIONS),
            BATCH,
            most=4,
        )
    )(PARAMS)
    for index, direction in enumerate(DIRECTIONS):
        part = BATCH | {"x": X[:32][index % 4 :: 4]}
        hessian = jax.hessian(loss)(PARAMS, part)
        np.testing.assert_allclose(found[index], direction @ hessian @ direction, rtol=1e-4)


def test_no_part_has_fewer_than_eight_rows():
    for rows, parts in ((7, 1), (16, 2), (33, 4), (400, 4)):
        arrays, count = dealt({"x": jnp.zeros((rows, 3))}, 4)
        assert count == parts and arrays["x"].shape == (rows // parts, parts, 3)


def test_slopes_are_those_of_every_row():
    rows = lambda p: jnp.sin(X @ p)  # noqa: E731
    found = slopes_along(rows, PARAMS, {"first": DIRECTIONS[0], "second": DIRECTIONS[1]})
    jacobian = jax.jacobian(rows)(PARAMS)
    np.testing.assert_allclose(found["first"], jacobian @ DIRECTIONS[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["second"], jacobian @ DIRECTIONS[1], rtol=1e-5, atol=1e-6)


def test_sums_over_rows_are_those_of_a_loop_at_any_scale_of_the_loss():
    """An element is alive where a row moves it; rows of NaN neither count nor set the unit."""
    x = X[:32].at[:, 2].set(0.0)
    rates = jnp.array([1.0, 2.0, 3.0])
    each = jnp.stack([jax.grad(loss)(PARAMS, {"x": row[None], "scale": 1.0}) for row in x])
    unit = jnp.max(jnp.abs(each))
    for scale in (1e-25, 1.0, 1e12):
        given = {"x": x, "scale": scale}
        found, _ = row_gradients(loss, None, Point.of(PARAMS), given, rates, None, KEY)
        np.testing.assert_allclose(found.unit, scale * unit, rtol=1e-5)
        np.testing.assert_allclose(found.mean, jnp.mean(each, axis=0) / unit, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.squares, jnp.sum((each / unit) ** 2, axis=1), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(found.weighted, (each / unit) ** 2 @ rates, rtol=1e-4, atol=1e-9)
        assert found.alive.tolist() == [True, True, False]
    bad, _ = row_gradients(loss, None, Point.of(PARAMS), {"x": x.at[0].set(jnp.nan), "scale": 1.0}, rates, None, KEY)
    assert bad.alive.tolist() == [True, True, False]
    np.testing.assert_allclose(bad.unit, jnp.max(jnp.abs(each[1:])), rtol=1e-5)


def test_a_trace_over_parts_of_the_rows_is_covered_by_its_error():
    """Of least squares, where the trace is the mean square of the inputs; twenty keys."""
    x = jax.random.normal(jax.random.key(3), (64, 40))
    squares = lambda p, batch: jnp.mean((batch @ p) ** 2) / 2  # noqa: E731
    truth, missed = 0.1 * float(jnp.mean(jnp.sum(x**2, axis=1))), []
    for seed in range(20):
        record = checkup(squares, jnp.ones(40), x, learning_rate=0.1, key=jax.random.key(seed), count=2)
        trace = record.sharpness.trace
        missed.append(float((trace.value - truth) / trace.standard_error))
    # Of six probes: Student's t of five degrees of freedom has a standard deviation of 1.29.
    assert 0.6 < np.std(missed) < 2.2 and abs(np.mean(missed)) < 3 * 1.29 / 20**0.5


def test_the_trace_of_a_sum_over_rows_is_the_sum():
    x = jax.random.normal(jax.random.key(3), (66, 40))  # two rows are left over
    mean = lambda p, batch: jnp.mean((batch @ p) ** 2) / 2  # noqa: E731
    first, second = (
        checkup(of, jnp.ones(40), x, learning_rate=rate, key=KEY, count=2).sharpness.trace
        for of, rate in ((mean, 0.66), (lambda p, batch: jnp.sum((batch @ p) ** 2) / 2, 0.01))
    )
    np.testing.assert_allclose(second.value, first.value, rtol=1e-4)
    np.testing.assert_allclose(second.standard_error, first.standard_error, rtol=1e-3)
