"""The natural gradient against a dense solve, and its relaxation against the law of an Ornstein-Uhlenbeck process."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from nablax import optimize

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(5)
TURN = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0]
VALUES = np.array([0.0, 0.1, 0.3, 1.0, 2.0, 4.0])
MATRIX, GRADIENT = (TURN * VALUES) @ TURN.T, RANDOM.normal(size=6)


def product(v):
    return jnp.asarray(MATRIX) @ v


@pytest.mark.parametrize("solver", [None, lx.CG(rtol=0.0, atol=1e-12), lx.Cholesky()])
def test_it_solves_the_damped_system_and_says_how_well(x64, solver):
    tree, back = ravel_pytree({"a": jnp.zeros((2, 2)), "b": jnp.zeros(2), "c": None})
    gradient = back(jnp.asarray(GRADIENT))
    rule = optimize.scale_by_natural_gradient(damping=0.1, solver=solver)
    found, state = rule.update(gradient, rule.init(gradient), product_fn=lambda v: back(product(ravel_pytree(v)[0])))
    flat, damped = ravel_pytree(found)[0], MATRIX + 0.1 * np.eye(6)
    rest = np.linalg.norm(damped @ flat - GRADIENT) / np.linalg.norm(GRADIENT)
    np.testing.assert_allclose(state.residual, rest, rtol=1e-6, atol=1e-15)
    assert rest < (1e-2 if solver is None else 1e-10)
    if solver is not None:
        np.testing.assert_allclose(flat, np.linalg.solve(damped, GRADIENT), rtol=1e-9)


def test_a_gradient_of_any_size_is_solved_as_well_and_one_with_zeros(x64):
    rule = optimize.scale_by_natural_gradient(damping=0.1)
    for gradient in (1e-12 * GRADIENT, np.eye(6)[0], np.zeros(6)):
        g = jnp.asarray(gradient)
        found, state = rule.update(g, rule.init(g), product_fn=product)
        rest = np.linalg.norm((MATRIX + 0.1 * np.eye(6)) @ found - gradient)
        assert rest <= 1e-2 * np.linalg.norm(gradient) and np.isfinite(state.residual)


def test_the_step_does_not_depend_on_the_coordinates_but_for_damping_and_adams_does(x64):
    """Of x = A z the gradient is Aᵀg and the matrix AᵀFA: the same step is A times that in z."""
    turned = np.eye(6) + 0.5 * RANDOM.normal(size=(6, 6))
    matrix = MATRIX + 0.5 * np.eye(6)

    def step(rule, a):
        g = jnp.asarray(a.T @ GRADIENT)
        given = {"product_fn": lambda v: jnp.asarray(a.T @ matrix @ a) @ v}
        return a @ np.asarray(optax.with_extra_args_support(rule).update(g, rule.init(g), **given)[0])

    def apart(rule):
        plain, other = step(rule, np.eye(6)), step(rule, turned)
        return np.linalg.norm(plain - other) / np.linalg.norm(plain)

    assert apart(optimize.scale_by_natural_gradient(damping=1e-12, solver=lx.Cholesky())) < 1e-9
    assert apart(optimize.scale_by_natural_gradient(damping=1.0, solver=lx.Cholesky())) > 0.1
    assert apart(optax.scale_by_adam()) > 0.1


def test_the_mean_of_the_relaxation_is_the_exponential_formula(x64):
    g = jnp.asarray(GRADIENT)
    for time in (0.0, 0.7, 5.0):
        rule = optimize.scale_by_thermodynamic_natural_gradient(time, damping=0.1, steps=20_000, key=KEY)
        found, _ = jax.jit(lambda rule=rule: rule.update(g, rule.init(g), product_fn=product))()
        size = VALUES + 0.1
        along = TURN.T @ GRADIENT
        expected = TURN @ (along / size + np.exp(-size * time) * (along - along / size))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_its_stationary_law_has_the_inverse_for_covariance(x64):
    """4,000 relaxations: standard errors of a variance are 2.2 %; Euler's rule adds lapse × curvature / 2, 2 %."""
    temperature, g = 0.5, jnp.asarray(GRADIENT)

    @jax.jit
    @jax.vmap
    def relaxed(key):
        rule = optimize.scale_by_thermodynamic_natural_gradient(
            12.0, damping=0.4, temperature=temperature, steps=1200, key=key
        )
        return rule.update(g, rule.init(g), product_fn=product)[0]

    drawn = np.asarray(relaxed(jax.random.split(KEY, 4000))) @ TURN
    size = VALUES + 0.4
    mean = (TURN.T @ GRADIENT) * (1 / size + np.exp(-12 * size) * (1 - 1 / size))
    error = np.sqrt(temperature / size / 4000)
    assert np.all(np.abs(drawn.mean(0) - mean) < 4.5 * error)
    np.testing.assert_allclose(drawn.var(0) * size / temperature, 1, atol=0.12)
    apart = np.corrcoef(drawn.T) - np.eye(6)
    assert np.max(np.abs(apart)) < 5 / np.sqrt(4000)


def test_noise_differs_from_step_to_step_and_not_from_run_to_run():
    rule = optimize.scale_by_thermodynamic_natural_gradient(1.0, temperature=1.0, steps=5, key=KEY)
    g = jnp.ones(3)
    first, state = rule.update(g, rule.init(g), product_fn=lambda v: v)
    second, _ = rule.update(g, state, product_fn=lambda v: v)
    again, _ = rule.update(g, rule.init(g), product_fn=lambda v: v)
    assert np.all(first != second)
    np.testing.assert_array_equal(first, again)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="solver"):
        optimize.natural_gradient(1.0, solver="cg")
    with pytest.raises(ValueError, match="damping above 0"):
        optimize.natural_gradient(1.0, damping=0.0)
    with pytest.raises(ValueError, match="time of 0 or more"):
        optimize.thermodynamic_natural_gradient(1.0, -1.0, key=KEY)
    with pytest.raises(ValueError, match="key: a random key"):
        optimize.thermodynamic_natural_gradient(1.0, 1.0, key=3)


@pytest.mark.parametrize(
    ("product", "came"),
    [
        (lambda v: {"a": jnp.sum(v["a"])[None, None], "b": v["b"]}, r"'a': f32\[1,1\]"),
        (lambda v: {"a": v["a"].T, "b": v["b"]}, r"'a': f32\[3,2\]"),
        (lambda v: (1.0, v), "None, "),
        (3.0, "product_fn, a function"),
    ],
)
@pytest.mark.parametrize(
    "rule",
    [
        optimize.scale_by_natural_gradient(),
        optimize.scale_by_thermodynamic_natural_gradient(1.0, key=KEY),
        optimize.scale_by_saddle_free_newton(damping=0.1),
    ],
)
def test_a_product_of_another_shape_is_refused(rule, product, came):
    """One number for all would be the same for each; a transpose has as many numbers."""
    w = {"a": jnp.ones((2, 3)), "b": jnp.ones(1)}
    with pytest.raises(ValueError, match=came):
        rule.update(w, rule.init(w), product_fn=product)
