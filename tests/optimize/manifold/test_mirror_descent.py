"""Mirror descent: gradient descent at p = 2, multiplied weights under entropy, the nearest of many solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

POTENTIALS = {
    "3-norm": optimize.p_norm(3.0),
    "1.5-norm": optimize.p_norm(1.5),
    "entropy": optimize.negative_entropy(),
    "cosh": optimize.Potential(jnp.sinh, lambda dual, w: jnp.arcsinh(dual)),
}


def test_at_two_it_is_gradient_descent_and_under_entropy_signs_stay():
    w, g = jnp.array([0.5, -2.0, 0.0]), jnp.array([3.0, -1.0, 2.0])
    update, _ = optimize.mirror_descent(0.1, optimize.p_norm(2.0)).update(g, (state := _state()), w)
    np.testing.assert_allclose(update, -0.1 * g, rtol=1e-6)
    update, _ = optimize.mirror_descent(0.1, optimize.negative_entropy()).update(g, state, w)
    np.testing.assert_allclose(w + update, [0.5 * np.exp(-0.3), -2 * np.exp(-0.1), 0], rtol=1e-6)


def _state():
    return optimize.MirrorDescentState(jnp.zeros((), jnp.int32))


def test_of_many_solutions_it_finds_the_nearest_in_its_divergence(x64):
    """Fewer rows than weights: the residual vanishes, and the dual has moved in the span of the rows alone."""
    random = np.random.default_rng(0)
    rows, wanted = random.normal(size=(3, 8)), random.normal(size=3)
    start = jnp.asarray(0.5 + random.uniform(size=8)) * np.where(np.arange(8) % 2, 1, -1)

    @jax.jit
    def all_of_them():
        results = {}
        for name, potential in POTENTIALS.items():
            rule = optimize.mirror_descent(0.02, potential)

            def step(carry, _, rule=rule):
                w, state = carry
                update, state = rule.update(rows.T @ (rows @ w - wanted), state, w)
                return (optax.apply_updates(w, update), state), None

            (w, _), _ = jax.lax.scan(step, (start, rule.init(start)), None, 20_000)
            results[name] = w, potential.gradient(w) - potential.gradient(start)
        return results

    outside = np.linalg.svd(rows)[2][3:]
    solutions = all_of_them()
    for name, (w, moved) in solutions.items():
        np.testing.assert_allclose(rows @ w, wanted, atol=1e-8, err_msg=name)
        np.testing.assert_allclose(outside @ moved, 0, atol=1e-9, err_msg=name)
        assert np.linalg.norm(outside @ (w - start)) > 1e-2  # not the nearest in the plain distance
    assert np.all(np.sign(solutions["entropy"][0]) == np.sign(start))


def test_what_is_no_potential_is_refused():
    for p in (1.0, float("inf"), float("nan"), "a"):
        with pytest.raises(ValueError, match="a finite p above 1"):
            optimize.p_norm(p)
    with pytest.raises(ValueError, match="expected potential"):
        optimize.mirror_descent(0.1, jnp.sinh)
