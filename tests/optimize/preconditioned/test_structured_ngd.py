"""Structured natural gradient descent: where its factors stand still, one step by hand, and what it never computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

RANDOM = np.random.default_rng(0)
INPUTS, ERRORS = RANDOM.normal(size=(7, 4)), 0.1 * RANDOM.normal(size=(5, 3))
U, V = INPUTS.T @ INPUTS / 7, ERRORS.T @ ERRORS / 5  # covariances of inputs and errors
# Every input with every error, so that the two are independent to the last digit.
ROWS = np.einsum("id,jp->ijdp", ERRORS, INPUTS).reshape(-1, 3, 4)


def fitted(rule, gradients, steps):
    """The state after so many fits to the same rows."""
    stack = jnp.asarray(gradients)
    mean = jnp.mean(stack, axis=0)

    def body(_, state):
        return rule.update(mean, state, gradients=stack)[1]

    return jax.jit(lambda state: jax.lax.fori_loop(0, steps, body, state))(rule.init(mean))


def metric(state):
    c, k = (np.asarray(f) if f.ndim == 2 else np.diag(f) for f in state.factors)
    return np.kron(c @ c.T, k @ k.T)


def test_of_independent_inputs_and_errors_the_factors_are_those_of_the_inverse(x64):
    expected = np.kron(np.linalg.inv(V), np.linalg.inv(U))
    for structure in ("dense", "triangular"):
        rule = optimize.scale_by_structured_ngd(structure, rows=None, damping=0.0, fit_rate=0.5, fit_momentum=0.0)
        state = fitted(rule, ROWS, 300)
        np.testing.assert_allclose(metric(state), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
        for factor in state.factors:
            assert np.all(np.linalg.eigvals(factor).real > 0)
            assert not np.any(np.triu(factor, 1)) or structure == "dense"


def test_diagonals_are_those_of_the_covariances_inverted(x64):
    rule = optimize.scale_by_structured_ngd("diagonal", rows=None, damping=0.0, fit_rate=0.5, fit_momentum=0.3)
    found = metric(fitted(rule, ROWS, 400))
    np.testing.assert_allclose(found, np.diag(1 / np.kron(np.diag(V), np.diag(U))), rtol=1e-9)


def test_of_a_vector_the_damped_inverse_is_exact(x64):
    """λI + E gg', a batch's gradient standing for as many rows as are said; a number is such a vector too."""
    rows = RANDOM.normal(size=(6, 3))
    settings = {"damping": 0.3, "fit_rate": 0.5, "fit_momentum": 0.0}
    state = fitted(optimize.scale_by_structured_ngd(rows=None, **settings), rows, 300)
    (k,) = state.factors
    np.testing.assert_allclose(k @ k.T, np.linalg.inv(0.3 * np.eye(3) + rows.T @ rows / 6), rtol=1e-9)
    rule, g = optimize.scale_by_structured_ngd(rows=8, **settings), jnp.asarray(1.7)
    update, _ = rule.update(g, fitted(rule, g[None], 100))
    np.testing.assert_allclose(update, 1.7 / (0.3 + 8 * 1.7**2), rtol=1e-9)


def test_two_steps_by_hand(x64):
    """Halves, traces of the other factor as it was, a momentum, and a step by the factors just fitted."""
    lam, rate, alpha, n = 0.2, 0.1, 0.5, 4
    rule = optimize.scale_by_structured_ngd(rows=n, damping=lam, fit_rate=rate, fit_momentum=alpha)
    gradients = RANDOM.normal(size=(2, 3, 4)) / 4
    state = rule.init(jnp.asarray(gradients[0]))
    c, k, mc, mk = np.eye(3), np.eye(4), np.zeros((3, 3)), np.zeros((4, 4))
    for g in gradients:
        update, state = rule.update(jnp.asarray(g), state)
        turned = np.sqrt(n) * c.T @ g @ k
        mk, mc = (
            alpha * mk + (lam * np.trace(c.T @ c) / 3 * k.T @ k + turned.T @ turned / 3 - np.eye(4)) / 2,
            alpha * mc + (lam * np.trace(k.T @ k) / 4 * c.T @ c + turned @ turned.T / 4 - np.eye(3)) / 2,
        )
        k, c = (f - rate / max(1, np.linalg.norm(m)) * f @ m for f, m in ((k, mk), (c, mc)))
        np.testing.assert_allclose(update, c @ c.T @ g @ k @ k.T, rtol=1e-12)
    np.testing.assert_allclose(state.moments[1], mk, rtol=1e-12)


def test_a_fit_is_due_each_so_many_steps_and_long_axes_have_diagonals():
    rule = optimize.scale_by_structured_ngd(every=2, max_size=3)
    g = jnp.ones((2, 1, 5))
    states = [rule.init(g)]
    for _ in range(3):
        states.append(rule.update(g, states[-1])[1])
    assert [f.shape for f in states[0].factors] == [(2, 2), (5,)]
    moved = [bool(np.any(a.factors[1] != b.factors[1])) for a, b in zip(states, states[1:])]
    assert moved == [True, False, True]


def primitives(program):
    for equation in program.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def test_nothing_is_inverted_solved_or_decomposed():
    for structure in ("dense", "triangular", "diagonal"):
        rule, g = optimize.structured_ngd(0.1, structure), jnp.ones((3, 4))
        names = set(primitives(jax.make_jaxpr(rule.update)(g, rule.init(g), g).jaxpr))
        assert "cond" in names and ("dot_general" in names or structure == "diagonal")  # the search goes inside
        assert not any("solve" in name for name in names)
        assert not names & {"cholesky", "eig", "eigh", "svd", "lu", "qr", "geqrf", "householder_product", "schur"}


def test_factors_stay_invertible_and_positive_whatever_comes(x64):
    """Gradients of 1e±8, one after the other, at the largest rates: the last is for good where W = 1 exactly."""
    for structure in ("dense", "triangular", "diagonal"):
        rule = optimize.scale_by_structured_ngd(structure, fit_rate=0.9)
        g = jnp.asarray(RANDOM.normal(size=(3, 4)))
        state = rule.init(g)
        for scale in (1e8, 1e-8, 1e8, 1.0, 1e-8):
            update, state = rule.update(scale * g, state)
            assert np.all(np.isfinite(update))
        values = np.linalg.eigvalsh(metric(state))
        assert values[0] > 0


def test_in_half_precision_its_factors_and_arithmetic_are_halves():
    rule, g = optimize.scale_by_structured_ngd(factor_dtype=jnp.bfloat16, rows=2), jnp.ones((3, 4))
    update, state = rule.update(g, rule.init(g))
    assert update.dtype == jnp.float32 and {f.dtype.name for f in state.factors + state.moments} == {"bfloat16"}
    exact, _ = optimize.scale_by_structured_ngd(rows=2).update(g, optimize.scale_by_structured_ngd().init(g))
    np.testing.assert_allclose(update, exact, rtol=0.03)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.structured_ngd(0.1, "toeplitz"), "a structure among dense, triangular, diagonal"),
        (lambda: optimize.structured_ngd(0.1, factor_dtype=jnp.int8), "a dtype of floats for factor_dtype"),
        (lambda: optimize.structured_ngd(0.1, factor_dtype="coarse"), "a dtype of floats for factor_dtype"),
        (lambda: optimize.structured_ngd(0.1, fit_rate=2.0), "fit_rate above 0, at most 1"),
        (lambda: optimize.structured_ngd(0.1, rows=0), "rows as a whole number, at least 1"),
        (lambda: optimize.structured_ngd(-0.1), "learning_rate of 0 or more"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_gradients_are_one_a_row():
    rule, g = optimize.structured_ngd(rows=None), jnp.ones((3, 4))
    for wrong in (jnp.ones((2, 3)), jnp.ones((3, 4)), {"a": jnp.ones((2, 3, 4))}):
        with pytest.raises(ValueError, match="gradients of which each, one a row, is shaped like"):
            rule.update(g, rule.init(g), g, gradients=wrong)
    with pytest.raises(ValueError, match="gradients with leading axis 1"):
        rule.update(g, rule.init(g), g, gradients=jnp.ones((0, 3, 4)))
