"""The field of momentum: how near its flow is to the method, and a function that falls along it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize
from nablax.follow import Solver, flow, momentum_field

MU = 1.0


def numbers(kind, s):
    """α, β, γ of a method for curvatures from μ to 1/s."""
    root = np.sqrt(MU * s)
    beta = (1 - root) / (1 + root)
    if kind == "triple":
        return tuple(float(number) for number in optimize.triple_momentum_coefficients(s, MU)[:3])
    return s, beta, beta if kind == "nesterov" else 0.0


def of(kind, s, gradient, **other):
    alpha, beta, gamma = numbers(kind, s)
    return momentum_field(gradient, **{"rate": alpha, "momentum": beta, "lookahead": gamma} | other)


@pytest.mark.parametrize("kind", ["heavy", "nesterov", "triple"])
def test_exponents_on_a_quadratic_are_the_methods_to_the_second_order(x64, kind):
    """Without the Hessian's term to the first alone: halving the step divides the error by four, or by two."""
    curvature = 9.0
    errors, blind = [], []
    for s in (1e-3, 1e-3 / 4):
        alpha, beta, gamma = numbers(kind, s)
        roots = np.roots([1, -(1 + beta) + alpha * curvature * (1 + gamma), beta - alpha * curvature * gamma])
        method = np.sort_complex(np.log(roots.astype(complex)) / np.sqrt(alpha))
        for kept, other in ((errors, {}), (blind, {"lookahead": 0.0})):
            field = of(kind, s, lambda x: curvature * x, **other)
            columns = [field(0.0, (jnp.array(a), jnp.array(b)), None) for a, b in ((1.0, 0.0), (0.0, 1.0))]
            kept.append(np.abs(np.sort_complex(np.linalg.eigvals(np.array(columns).T)) - method).max())
    assert 3.7 < errors[0] / errors[1] < 4.3
    if kind != "heavy":
        assert 1.8 < blind[0] / blind[1] < 2.2 and blind[1] > 10 * errors[1]


def slope(x):
    return MU * x + 3 * jnp.tanh(x @ TURN) @ TURN.T


TURN = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])


@pytest.mark.parametrize("kind", ["nesterov", "triple"])
def test_the_method_is_near_the_flow_from_where_it_rests(x64, kind):
    start, time, errors = jnp.array([1.0, -2.0, 0.5]), 2.0, []
    turn = np.asarray(TURN)
    for steps in (40, 80):
        alpha = (time / steps) ** 2
        # Of the rate's s such that a whole number of steps is that time.
        s = alpha if kind == "nesterov" else _inverse(alpha)
        _, beta, gamma = numbers(kind, s)
        xi = before = np.asarray(start)
        for _ in range(steps):
            y = xi + gamma * (xi - before)
            g = MU * y + 3 * np.tanh(y @ turn) @ turn.T
            xi, before = xi + beta * (xi - before) - alpha * g, xi
        field = of(kind, s, slope)
        begin = (start, -np.sqrt(alpha) / (1 + beta) * slope(start))
        end, _ = flow(field, begin, 0.0, time, solver=Solver(rtol=1e-9, atol=1e-9)).ys
        errors.append(np.linalg.norm(end - xi))
    assert errors[1] < 1e-3 and 3.4 < errors[0] / errors[1] < 4.6


def _inverse(alpha):
    """s whose triple momentum has that α = (2 − √(μs)) s."""
    s = alpha / 2
    for _ in range(50):
        s = alpha / (2 - np.sqrt(MU * s))
    return s


def test_a_function_of_lyapunovs_falls_along_the_flow_at_its_rate(x64):
    """Energy plus |v + 2√μ (x − x*) + √s ∇f|²/4, of the Hessian's factor √s: it falls by √μ/4 of itself, or faster."""
    s, root = 0.01, np.sqrt(MU * 0.01)
    alpha, beta, _ = numbers("nesterov", s)
    field = momentum_field(slope, rate=alpha, momentum=beta, lookahead=1 / (1 + root))
    start = jnp.array([2.0, -1.0, 3.0])
    times = jnp.linspace(0.0, 6.0, 61)
    x, v = flow(field, (start, -slope(start)), 0.0, 6.0, ts=times, solver=Solver(rtol=1e-8, atol=1e-10)).ys
    height = MU * jnp.sum(x**2, 1) / 2 + 3 * jnp.sum(jnp.log(jnp.cosh(x @ TURN)), 1)
    mixed = v + 2 * np.sqrt(MU) * x + np.sqrt(s) * slope(x)
    energy = np.asarray((1 + root) * height + jnp.sum(v**2, 1) / 4 + jnp.sum(mixed**2, 1) / 4)
    assert np.all(energy[1:] <= energy[:-1] * np.exp(-np.sqrt(MU) / 4 * 0.1))


def test_energy_is_dissipated_by_friction_and_by_the_hessian_and_by_nothing_else(x64):
    """Passivity: d(|v|²/2 + 2f/(1+β))/dt is −friction |v|² and the quadratic form of the Hessian in v."""
    x, v = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 1.0, -1.0])
    field = momentum_field(slope, rate=0.04, momentum=0.5, lookahead=0.7)
    dx, dv = field(0.0, (x, v), None)
    power = v @ dv + 2 / 1.5 * slope(x) @ dx
    hessian = jax.jacobian(slope)(x)
    np.testing.assert_allclose(
        power, -2 * 0.5 / (1.5 * 0.2) * v @ v - 2 / 1.5 * 0.7 * 0.2 * v @ hessian @ v, rtol=1e-12
    )


def test_trees_and_what_is_refused():
    tree = {"a": jnp.ones(2), "b": jnp.array(1.0)}
    field = momentum_field(lambda x: x, rate=0.01, momentum=0.9, lookahead=0.9)
    assert jax.tree.structure(field(0.0, (tree, tree), None)[1]) == jax.tree.structure(tree)
    with pytest.raises(ValueError, match="a velocity that is shaped like"):
        field(0.0, (tree, jnp.ones(2)), None)
    with pytest.raises(ValueError, match="a gradient that is shaped like"):
        momentum_field(lambda x: jnp.sum(x), rate=0.01, momentum=0.9)(0.0, (jnp.ones(2), jnp.ones(2)), None)
    with pytest.raises(ValueError, match=r"rate of shape \[\], got f32\[2\]"):
        momentum_field(lambda x: x, rate=jnp.ones(2), momentum=0.9)
    for given, words in (
        ({"rate": -1.0}, "expected rate, a finite number above 0, got -1"),
        ({"rate": 0.0}, "expected rate, a finite number above 0, got 0"),
        ({"momentum": 2.0}, "expected momentum, a finite number at least 0 and below 1, got 2"),
        ({"momentum": -0.1}, "expected momentum, a finite number at least 0 and below 1, got -0.1"),
        ({"lookahead": jnp.nan}, "expected lookahead, a finite number, got nan"),
        ({"lookahead": "0.9"}, r"expected lookahead of shape \[\], got a str"),
    ):
        with pytest.raises(ValueError, match=words):
            momentum_field(lambda x: x, **{"rate": 0.01, "momentum": 0.9} | given)
    # Of numbers that are traced only the shape is known.
    moved = jax.jit(lambda rate: momentum_field(lambda x: x, rate=rate, momentum=0.5)(0.0, (1.0, 1.0), None))
    assert moved(0.01)[0] == 1.0
