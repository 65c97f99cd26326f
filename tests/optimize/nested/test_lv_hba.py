"""One step written out, the authors' toy with its solution in closed form, and no second derivative taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

DIM = 5  # the authors have 100; every number is the same


def upper(x, params):
    return jnp.sum((params - x["b"]) ** 2) / 2 + jnp.sum((x["a"] - 1) ** 2) / 2


def lower(x, params):
    return jnp.sum(x["a"] ** 2) / 2 - params @ x["a"] + jnp.sum(x["b"])


def constraint(x, params):
    return (jnp.sum(params) + jnp.sum(x["a"]) + jnp.sum(x["b"]))[None]


def project(x, params):
    """Onto the plane on which the constraint is an equation."""
    over = constraint(x, params)[0] / (3 * DIM)
    return jax.tree.map(lambda leaf: leaf - over, x), params - over


RATES = {"rate": 0.05, "answer_rate": 0.05, "centre_rate": 0.02, "proximity": 1.0}
START = {"a": 10 * jnp.ones(DIM), "b": 10 * jnp.ones(DIM)}


def at_rest(weight, proximity=1.0):
    """θ, a, b of the fixed point at one weight, a linear system: all coordinates are alike.

    Of the answer's two parts, of its multiplier, of the variables on the plane (with a multiplier of its own).
    """
    k, w = 1 / proximity, 1 / weight
    rows = np.array(
        [  # θ, a, b, answer a, answer b, λ, plane's multiplier
            [-1, -k, 0, 1 + k, 0, 1, 0],
            [0, 0, -k, 0, k, 1, 0],
            [1, 0, 0, 1, 1, 0, 0],
            [w, -1, -w, 1, 0, -1, -1],
            [-1, w + 1 - k, 0, k, 0, 0, -1],
            [-w, 0, w - k, 0, k, 0, -1],
            [1, 1, 1, 0, 0, 0, 0],
        ]
    )
    return np.linalg.solve(rows, [0, -1, 0, 0, w, -1, 0])


def test_the_toy_comes_to_its_solution():
    """The answer is a = θ + 1 for any b on the plane; of b = -1 - 2θ then (3θ + 1)² + θ² is least at -0.3."""
    np.testing.assert_allclose(at_rest(1e9)[[0, 1, 2, 5]], [-0.3, 0.7, -0.4, -1], atol=1e-6)
    for weight in (2.0, 40.0):
        found = optimize.lv_hba(
            upper,
            lower,
            constraint,
            project,
            10 * jnp.ones(DIM),
            START,
            steps=20_000,
            bounds=(-1e3, 1e3),
            penalty=jnp.array(weight),
            **RATES,
        )
        parts = np.array(
            [found.params, found.lower["a"], found.lower["b"], jnp.broadcast_to(found.multipliers, (DIM,))]
        )
        np.testing.assert_allclose(parts, np.tile(at_rest(weight)[[0, 1, 2, 5], None], (1, DIM)), atol=2e-3)
    assert abs(float(found.params[0]) + 0.3) < 0.02 and abs(found.gap[-1]) < 0.02


def test_one_step_written_out(x64):
    """All numbers different, one constraint active and one not."""
    up = lambda x, p: jnp.sum(x**3) + jnp.sum(p**2) * x[0]  # noqa: E731
    low = lambda x, p: jnp.sum((x - p) ** 2) + jnp.sum(x**4) / 4  # noqa: E731
    cons = lambda x, p: jnp.stack([x[0] ** 2 + p[1] - 0.1, x[1] - p[0] - 9])  # noqa: E731
    x, p = jnp.array([0.5, -0.3]), jnp.array([0.2, 0.9])
    settings = {"rate": 0.1, "answer_rate": 0.2, "centre_rate": 0.3, "penalty": 4.0, "proximity": 2.0}
    found = optimize.lv_hba(up, low, cons, lambda x, p: (x, p), p, x, steps=1, **settings)
    xs, ps = np.asarray(x), np.asarray(p)
    y = xs - 0.2 * (2 * (xs - ps) + xs**3)  # at first the answer is x and multipliers are 0
    multipliers = np.maximum(0.2 * np.array([xs[0] ** 2 + ps[1] - 0.1, xs[1] - ps[0] - 9]), 0)
    assert multipliers[0] > 0 == multipliers[1]
    by_x = (3 * xs**2 + np.array([np.sum(ps**2), 0])) / 4 + 2 * (xs - ps) + xs**3 - (xs - y) / 2
    of_constraints = np.array([-multipliers[1], multipliers[0]])
    by_p = 2 * ps * xs[0] / 4 - 2 * (xs - ps) - (-2 * (y - ps) + of_constraints)
    np.testing.assert_allclose(found.lower, xs - 0.1 * by_x, rtol=1e-12)
    np.testing.assert_allclose(found.params, ps - 0.1 * by_p, rtol=1e-12)
    np.testing.assert_allclose(found.multipliers, multipliers, rtol=1e-12)
    np.testing.assert_allclose(found.values, up(x, p), rtol=1e-12)
    # The second step's multipliers know the centre that the first has moved.
    twice = optimize.lv_hba(up, low, cons, lambda x, p: (x, p), p, x, steps=2, **settings)
    centre = 0.3 / 2 * multipliers
    over = np.array([y[0] ** 2 + found.params[1] - 0.1, y[1] - found.params[0] - 9])
    expected = np.maximum(multipliers + 0.2 * (over - (multipliers - centre) / 2), 0)
    np.testing.assert_allclose(twice.multipliers, expected, rtol=1e-12)


def test_no_second_derivative_is_taken():
    @jax.custom_vjp
    def once(x, p):
        return jnp.sum((x - p) ** 2) / 2

    @jax.custom_jvp
    def difference(x, p):
        return x - p

    @difference.defjvp
    def _(primals, tangents):
        raise AssertionError("a second derivative")

    once.defvjp(lambda x, p: (once(x, p), (x, p)), lambda kept, ct: (ct * difference(*kept), -ct * difference(*kept)))
    with pytest.raises(AssertionError, match="a second derivative"):
        jax.jacrev(jax.grad(once))(jnp.ones(2), jnp.zeros(2))
    found = optimize.lv_hba(
        once, once, lambda x, p: (x - p)[:1], lambda x, p: (x, p), jnp.ones(2), jnp.zeros(2), steps=2, **RATES
    )
    assert np.all(np.isfinite(found.params))


def test_what_cannot_be_is_refused():
    start = 10 * jnp.ones(DIM)
    with pytest.raises(ValueError, match="a projection whose value is shaped like"):
        optimize.lv_hba(upper, lower, constraint, lambda x, p: x, start, START, steps=1, **RATES)
    with pytest.raises(ValueError, match="a constraint that is a vector"):
        optimize.lv_hba(upper, lower, lambda x, p: p[0], project, start, START, steps=1, **RATES)
    with pytest.raises(ValueError, match="bounds that rise"):
        optimize.lv_hba(upper, lower, constraint, project, start, START, steps=1, bounds=(1.0, 0.0), **RATES)


def test_settings_of_double_precision_leave_single_precision_what_it_is(x64):
    start, x = jnp.ones(DIM, jnp.float32), jax.tree.map(lambda leaf: leaf.astype(jnp.float32), START)
    plain, wide = (
        optimize.lv_hba(upper, lower, constraint, project, start, x, steps=3, bounds=bounds, **rates)
        for rates, bounds in [
            (RATES, (0.0, 10.0)),
            ({k: np.float64(v) for k, v in RATES.items()}, (jnp.array(0.0), np.float64(10.0))),
        ]
    )
    assert wide.params.dtype == wide.multipliers.dtype == jnp.float32
    np.testing.assert_allclose(wide.params, plain.params, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"penalty": -1.0}, "penalty above 0"),
        ({"penalty": 0.0}, "penalty above 0"),
        ({"project_answer": 3}, "project_answer, a function"),
        ({"bounds": 10.0}, "bounds, two numbers"),
        ({"bounds": ("a", "b")}, "bounds that rise"),
        ({"constraint": lambda x, params: (jnp.sum(params),)}, "a constraint that is a vector of floats"),
        ({"constraint": lambda x, params: jnp.sum(params)}, "a constraint that is a vector of floats"),
        ({"start": jnp.zeros(DIM, int)}, "start and x of real floating-point numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, says):
    given = {"constraint": constraint, "project": project, "start": jnp.zeros(DIM), "x": START, **RATES, **setting}
    with pytest.raises(ValueError, match=says):
        optimize.lv_hba(upper, lower, steps=1, **given)
