import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import stiffness


def truth(matrix):
    rates = np.linalg.eigvals(matrix).real
    return (
        np.linalg.norm(matrix, 2),
        np.linalg.eigvalsh((matrix + matrix.T) / 2).max(),
        rates.max(),
        max(0.0, -rates.min()),
    )


def numbers(record, index=0):
    curves = (record.lipschitz, record.log_norm, record.abscissa, record.decay)
    return [float(curve.value[index]) for curve in curves]


@pytest.mark.parametrize("krylov", [32, 7])
def test_linear_field_beside_dense_linear_algebra_by_either_way(x64, key, krylov):
    # Seven Krylov steps of eight dimensions: exact enough only because one eigenvalue stands far out at each end.
    matrix = np.asarray(jax.random.normal(key, (8, 8))) + 12 * np.diag([1.0, -1, 0, 0, 0, 0, 0, 0])
    field = lambda t, y, args: jnp.asarray(matrix) @ y  # noqa: E731
    record = stiffness(field, jnp.ones((2, 8)), t1=0.1, times=3, krylov=krylov, key=key)
    np.testing.assert_allclose(numbers(record), truth(matrix), rtol=1e-9 if krylov == 32 else 2e-2)
    assert (record.residual == 0) if krylov == 32 else (1e-6 < record.residual < 0.2)
    slack = 1e-9 if krylov == 32 else 0.02
    # Equal at every time and trajectory, so the trapezoid rule is exact.
    np.testing.assert_allclose(record.amplification.value, 0.1 * record.log_norm.value[0], rtol=slack)
    np.testing.assert_allclose(record.stiffness.value, 0.1 * record.decay.value[0], rtol=slack)
    assert record.lipschitz.standard_error[0] < slack


def test_large_field_with_a_separated_spectrum_settles(key):
    scales = jnp.concatenate([jnp.array([30.0, -50.0]), jnp.linspace(-1, 1, 198)])
    field = lambda t, y, args: scales * y  # noqa: E731
    record = stiffness(field, jnp.ones((2, 200)) * 1e-3, t1=0.1, times=2, krylov=16, key=key)
    np.testing.assert_allclose(numbers(record), (50, 30, 30, 50), rtol=1e-4)
    assert record.residual < 1e-3
    assert record.lipschitz.value.dtype == jnp.float32


def test_the_identity_whose_krylov_space_ends_at_once(key):
    record = stiffness(lambda t, y, args: -3 * y, jnp.ones((1, 40)), t1=0.1, times=2, krylov=5, key=key)
    np.testing.assert_allclose(numbers(record), (3, -3, -3, 3), rtol=1e-5)


def test_backwards_growth_and_decay_swap_and_trees_and_conditions_go_through(x64, key):
    def field(t, y, args):
        return {"a": args * y["a"], "b": -5 * y["b"]}

    y0s, args = {"a": jnp.ones((2, 1)), "b": jnp.ones((2, 2))}, jnp.array([1.0, 3.0])
    forth = stiffness(field, y0s, args, times=2, key=key)
    back = stiffness(field, y0s, args, t0=1.0, t1=0.0, times=2, key=key)
    np.testing.assert_allclose(numbers(forth), (5, 2, 2, 5), rtol=1e-9)
    np.testing.assert_allclose(numbers(back), (5, 5, 5, 2), rtol=1e-9)
    np.testing.assert_allclose(forth.abscissa.standard_error, 1.0)


def test_amplification_is_the_growth_of_a_perturbation_on_the_line(x64, key):
    # There the log norm is the rate itself. dy = y − y³ has a closed form, and its perturbations go with the speed.
    record = stiffness(lambda t, y, args: y - y**3, jnp.array([[0.1]]), t1=3.0, times=201, steps=400, key=key)
    end = 1 / np.sqrt(1 + (1 / 0.1**2 - 1) * np.exp(-6.0))
    growth = (end - end**3) / (0.1 - 0.1**3)
    np.testing.assert_allclose(record.amplification.value, np.log(growth), atol=2e-4)


def test_decay_is_where_euler_breaks(key):
    from diffrax import Euler

    from nablax.follow import Solver, flow

    field = lambda t, y, args: jnp.array([-1.0, -100.0]) * y  # noqa: E731
    record = stiffness(field, jnp.ones((1, 2)), steps=200, times=2, key=key)
    needed = float(record.stiffness.value) / 2
    ends = [
        flow(field, jnp.ones(2), 0.0, 1.0, solver=Solver(steps=int(s), method=Euler())).ys
        for s in (0.9 * needed, 1.1 * needed)
    ]
    assert abs(ends[0][1]) > 10 and abs(ends[1][1]) < 0.1


def test_faults_and_table_speak(key):
    field = lambda t, y, args: y**2  # noqa: E731
    with pytest.raises(ValueError, match="blew up"):
        stiffness(field, jnp.full((1, 1), 1e3), steps=9, key=key)
    with pytest.raises(ValueError, match="t0 and t1 apart"):
        stiffness(field, jnp.ones((1, 1)), t1=0.0, key=key)
    text = stiffness(field, jnp.zeros((2, 1)), times=3, key=key).table()
    assert "Lipschitz constant, greatest mean (t = 0)" in text and "2 trajectories, 3 times each" in text
