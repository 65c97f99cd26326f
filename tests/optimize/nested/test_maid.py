"""Ridge regression with a strength a weight, whose minimum and hypergradient are known: nothing is believed wrongly."""

import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from nablax import estimate, optimize

ROWS, DIM = 12, 6


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(ROWS, DIM)) * np.geomspace(1, 0.1, DIM)
    return inputs, random.normal(size=ROWS), random.normal(size=(ROWS, DIM)), random.normal(size=ROWS)


def losses(problem):
    inputs, targets, others, wanted = (jnp.asarray(part) for part in problem)

    def lower(x, params):
        return jnp.mean((inputs @ x - targets) ** 2) / 2 + jnp.sum(jnp.exp(params) * x**2) / 2

    def upper(x):
        return jnp.mean((others @ x - wanted) ** 2) / 2

    return upper, lower


def exact(problem, params):
    """The upper loss at the minimum, and its gradient."""
    inputs, targets, others, wanted = problem
    hessian = inputs.T @ inputs / ROWS + np.diag(np.exp(params))
    x = np.linalg.solve(hessian, inputs.T @ targets / ROWS)
    pull = others.T @ (others @ x - wanted) / ROWS
    return np.mean((others @ x - wanted) ** 2) / 2, -np.exp(params) * x * np.linalg.solve(hessian, pull)


def constants(problem, largest):
    inputs, _, others, _ = problem
    return {
        # Strengths stay between e^-3 and e^largest.
        "smoothness": estimate.Smoothness(
            convexity=np.exp(-3.0),
            hessian=0.0,
            mixed=np.exp(largest),
            upper=np.linalg.norm(others, 2) ** 2 / ROWS,
        ),
        "curvature": np.linalg.norm(inputs, 2) ** 2 / ROWS + np.exp(largest),
    }


def test_the_bound_holds_and_the_exact_loss_falls_at_every_step(x64, problem):
    upper, lower = losses(problem)
    known = constants(problem, 1.5)
    params, x = jnp.full(DIM, -1.0), jnp.zeros(DIM)
    settings = {"accuracy": jnp.array(1.0), "residual": jnp.array(1.0), "rate": jnp.array(0.5)}
    halved = 0
    accepted = 0
    for _ in range(25):
        found = optimize.maid(upper, lower, params, x, steps=1, **known, **settings)
        value, gradient = exact(problem, np.asarray(params))
        assert np.all((params > -3) & (params < 1.5))
        if found.accepted[0]:
            alpha = found.rate[0] / 1.2
            z = (params - found.params) / alpha
            length = np.linalg.norm(z)
            assert found.bound[0] <= 0.5
            assert np.linalg.norm(z - gradient) <= found.bound[0] * length + 1e-12
            after, _ = exact(problem, np.asarray(found.params))
            assert after <= value - 0.1 * alpha * length**2
            accepted += 1
        halved += bool(found.accuracy[0] < settings["accuracy"])
        following = (1.1 if found.accepted[0] else 0.5) * found.accuracy[0]
        settings = {"accuracy": following, "residual": following, "rate": found.rate[0]}
        params, x = found.params, found.lower
    assert accepted > 10 and halved > 3  # there was something to be believed wrongly


def test_one_run_is_its_steps_and_comes_to_rest(x64, problem):
    upper, lower = losses(problem)
    known = constants(problem, 3.0)
    found = optimize.maid(upper, lower, jnp.full(DIM, -1.0), jnp.zeros(DIM), steps=80, rate=1.0, **known)
    _, before = exact(problem, np.full(DIM, -1.0))
    value, after = exact(problem, np.asarray(found.params))
    assert np.linalg.norm(after) < 0.2 * np.linalg.norm(before)
    np.testing.assert_allclose(found.values[-1], value, atol=1e-2)
    assert np.all(np.diff(found.gradients) > 0) and np.all(np.diff(found.products) > 0)
    # Where a step is refused the parameters stay, and it is asked for more.
    refused = np.flatnonzero(~np.asarray(found.accepted[:-1]))
    assert np.all(found.accuracy[refused + 1] <= 0.5 * found.accuracy[refused] * (1 + 1e-12))


def test_beyond_the_precision_of_numbers_steps_are_refused_at_the_price_of_one_solve(problem):
    """In single precision, from an accuracy that it does not have: θ stays, and no line search is made of noise."""
    upper, lower = losses(problem)
    settings = {"steps": 3, "accuracy": 1e-9, "limit": 500, **constants(problem, 3.0)}
    found = optimize.maid(upper, lower, jnp.full(DIM, -1.0), jnp.zeros(DIM), **settings)
    assert not np.any(found.accepted) and found.gradients[-1] <= 3 * 501
    np.testing.assert_array_equal(found.params, -1.0)


def test_the_norm_of_the_mixed_derivative_is_found_or_asked_for(problem):
    upper, lower = losses(problem)
    known = constants(problem, 3.0)
    start, x = jnp.full(DIM, -1.0), jnp.zeros(DIM)
    short = optimize.maid(upper, lower, start, x, steps=1, **known)
    # At the minimum B = diag(e^θ x): a bound of its own that is the same gives the same run.
    norm = jnp.max(jnp.exp(start) * jnp.abs(short.lower))
    same = {**known, "smoothness": estimate.Smoothness(**{**vars(known["smoothness"]), "mixed_norm": norm})}
    np.testing.assert_allclose(optimize.maid(upper, lower, start, x, steps=1, **same).bound, short.bound, rtol=0.05)
    wide = lambda x, params: jnp.sum((x - params) ** 2) / 2  # noqa: E731
    with pytest.raises(ValueError, match="mixed_norm, where there are more than 256"):
        optimize.maid(lambda x: jnp.sum(x**2), wide, jnp.ones(300), jnp.ones(300), steps=1, **known)


def test_what_cannot_be_is_refused(problem):
    upper, lower = losses(problem)
    known = constants(problem, 3.0)
    start = jnp.zeros(DIM)
    with pytest.raises(ValueError, match="0 < decrease < trust < 1"):
        optimize.maid(upper, lower, start, start, steps=1, trust=0.05, **known)
    with pytest.raises(ValueError, match="smoothness"):
        optimize.maid(upper, lower, start, start, steps=1, smoothness=1.0, curvature=1.0)
    with pytest.raises(ValueError, match="upper of one argument"):
        optimize.maid(lower, lower, start, start, steps=1, **known)
    with pytest.raises(ValueError, match="a curvature of at least the convexity"):
        optimize.maid(upper, shifted, start, start, steps=1, **{**SHIFTED, "curvature": 0.5})
    with pytest.raises(ValueError, match="trust from 0 to below 1"):
        optimize.maid(upper, lower, start, start, steps=1, trust=1.5, **known)


def shifted(x, params):
    """At its minimum x = params."""
    return jnp.sum((x - params) ** 2) / 2


SHIFTED = {"smoothness": estimate.Smoothness(convexity=1.0, hessian=0.0, mixed=0.0, upper=1.0), "curvature": 1.0}


def test_a_lower_level_that_is_no_number_is_reported():
    """Where no step is accepted the parameters are numbers all the same."""
    start, broken = jnp.zeros(2), lambda x, params: jnp.nan * shifted(x, params)
    found = optimize.maid(lambda x: jnp.sum((x - 1) ** 2) / 2, broken, start, start, steps=2, throw=False, **SHIFTED)
    assert np.all(np.isfinite(found.params)) and found.result != optimistix.RESULTS.successful
    with pytest.raises(RuntimeError):
        optimize.maid(lambda x: jnp.sum((x - 1) ** 2) / 2, broken, start, start, steps=2, **SHIFTED)


def test_halves_and_shares_that_are_arrays():
    plain, half = (
        optimize.maid(lambda x: jnp.sum((x - 1) ** 2) / 2, shifted, start, start, steps=20, trust=trust, **SHIFTED)
        for start, trust in [(jnp.zeros(2), 0.5), (jnp.zeros(2, jnp.bfloat16), jnp.array(0.5))]
    )
    assert half.params.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.params.astype(float), plain.params, rtol=0.05)
