import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from nablax.diagnose import fixed_points


def test_damped_pendulum_has_its_spirals_and_saddles(x64, key):
    def pendulum(t, y, args):
        return jnp.array([y[1], -jnp.sin(y[0]) - args * y[1]])

    starts = jax.random.uniform(key, (64, 2), minval=-4.0, maxval=4.0)
    record = fixed_points(pendulum, 0.0, starts, 0.3, solver=optx.Dogleg(1e-8, 1e-8))
    near = {round(float(y[0]) / np.pi): i for i, y in enumerate(record.points) if abs(y[0]) < 4}
    assert set(near) >= {-1, 0, 1}
    for number, i in near.items():
        np.testing.assert_allclose(record.points[i], [number * np.pi, 0.0], atol=1e-6)
        slope = -1.0 if number % 2 == 0 else 1.0
        expected = np.roots([1, 0.3, -slope])
        np.testing.assert_allclose(np.sort_complex(record.eigenvalues[i]), np.sort_complex(expected), atol=1e-6)
        assert record.kinds[i] == ("stable spiral" if number % 2 == 0 else "saddle")
    assert int(record.hits.sum()) + record.failures == record.starts == 64
    assert (record.residuals < 1e-5).all()
    assert list(record.hits) == sorted(record.hits, reverse=True)


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        ([[-1.0, 0.0], [0.0, -2.0]], "stable node"),
        ([[1.0, 0.0], [0.0, 2.0]], "unstable node"),
        ([[-1.0, -2.0], [2.0, -1.0]], "stable spiral"),
        ([[1.0, -2.0], [2.0, 1.0]], "unstable spiral"),
        ([[1.0, 0.0], [0.0, -1.0]], "saddle"),
        ([[0.0, -1.0], [1.0, 0.0]], "centre"),
    ],
)
def test_names(matrix, kind, key):
    shift = jnp.array([0.5, -1.5])
    field = lambda t, y, args: jnp.asarray(matrix) @ (y - shift) * 1e3  # noqa: E731
    record = fixed_points(field, 0.0, jax.random.normal(key, (8, 2)))
    assert record.kinds == (kind,) and record.failures == 0 and list(record.hits) == [8]
    np.testing.assert_allclose(record.points, shift[None], rtol=1e-4)
    assert record.points.dtype == jnp.float32 and record.eigenvalues.dtype == jnp.complex64


def test_degenerate_where_linearising_does_not_decide(x64):
    record = fixed_points(
        lambda t, y, args: jnp.stack([-y[0], y[1] ** 3]), 0.0, jnp.array([[1.0, 0.5]]), tolerance=1e-4
    )
    assert record.kinds == ("degenerate",)


def test_failures_are_counted_and_none_is_an_answer():
    record = fixed_points(lambda t, y, args: 1 + y**2, 0.0, jnp.array([[0.3], [2.0], [-1.0]]))
    assert record.failures == 3 and record.kinds == () and record.points.shape == (0, 1)
    assert "3 starts, of which 3 failed" in record.table()


def test_trees_and_table(x64):
    def field(t, y, args):
        return {"a": y["a"] - t, "b": 4 - y["b"] ** 2}

    starts = {"a": jnp.zeros((4,)), "b": jnp.array([[-3.0], [-1.0], [1.0], [0.5]])}
    record = fixed_points(field, 0.25, starts)
    np.testing.assert_allclose(record.points["a"], 0.25)
    assert sorted(np.round(np.asarray(record.points["b"])[:, 0], 6)) == [-2, 2]
    text = record.table()
    assert "saddle" in text and "unstable node" in text and "0.25, 2" in text
    with pytest.raises(ValueError, match="one time"):
        fixed_points(field, jnp.zeros(4), starts)
