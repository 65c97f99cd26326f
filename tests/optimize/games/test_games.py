"""Games whose iterations are linear: the rules' matrices against ones written out, and radii known in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize

PAIR = (False, True)


def matrix(rule, value, memory=0):
    """One step of a rule as a linear map of both players and its memory, by what it does to unit vectors."""
    value_and_grad = jax.value_and_grad(value)
    gradient = value_and_grad((jnp.zeros(()), jnp.zeros(())))[1]
    state = rule.init(gradient)
    leaves, structure = jax.tree.flatten(state)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert len(places) == memory

    def step(z):
        now = list(leaves)
        for i, number in zip(places, z[2:]):
            now[i] = number
        players = (z[0], z[1])
        _, grads = value_and_grad(players)
        update, after = rule.update(grads, structure.unflatten(now), players, grad_fn=value_and_grad)
        after = jax.tree.leaves(after)
        return jnp.stack([*optax.apply_updates(players, update), *[after[i] for i in places]])

    return np.asarray(jax.jacfwd(step)(jnp.zeros(2 + memory)))


def radius(rule, value, memory=0):
    return np.max(np.abs(np.linalg.eigvals(matrix(rule, value, memory))))


def bilinear(z):
    return z[0] * z[1]


def test_radii_of_extragradient(x64):
    """√(1 - s + s²) with s = η²/τ; descent and ascent √(1 + s)."""
    for rate, timescale in ((0.5, 1.0), (0.3, 4.0), (0.9, 16.0)):
        rule = optimize.two_timescale_extragradient(rate, timescale, ascends=PAIR)
        s = rate**2 / timescale
        np.testing.assert_allclose(radius(rule, bilinear), np.sqrt(1 - s + s**2), atol=1e-12)
    rule = optimize.extragradient(0.5, ascends=PAIR)
    np.testing.assert_allclose(radius(rule, bilinear), np.sqrt(1 - 0.25 + 0.0625), atol=1e-12)
    # Who does not say who ascends gets descent by both: of xy the eigenvalues are 1 ± η + η².
    np.testing.assert_allclose(radius(optimize.extragradient(0.5), bilinear), 1.75, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "rate", "timescale", "expected"),
    [(0.3, 0.6, 1, 1.023), (0.3, 0.6, 4, 0.984), (0.5, 0.9, 1, 1.365), (0.5, 0.9, 4, 0.993)],
)
def test_a_local_minimax_point_that_is_no_minimum(x64, a, rate, timescale, expected):
    """The matrix I - ηΛJ(I - ηΛJ) written out, and its radius as it was found apart from this code."""
    rule = optimize.two_timescale_extragradient(rate, timescale, ascends=PAIR)
    value = lambda z: -a / 2 * z[0] ** 2 + z[0] * z[1]  # noqa: E731
    scaled = rate * np.diag([1 / timescale, 1]) @ np.array([[-a, 1], [-1, 0]])
    np.testing.assert_allclose(matrix(rule, value), np.eye(2) - scaled @ (np.eye(2) - scaled), atol=1e-12)
    assert abs(radius(rule, value) - expected) < 6e-4


def test_the_rate_must_exceed_the_curvature(x64):
    """At no time scale does it come in for η < a, nor do descent and ascent at any."""
    for timescale in (1, 4, 16, 64, 256, 1024):
        value = lambda z: -0.15 * z[0] ** 2 + z[0] * z[1]  # noqa: E731
        assert radius(optimize.two_timescale_extragradient(0.2, timescale, ascends=PAIR), value) > 1
        slow = np.eye(2) - 0.6 * np.diag([1 / timescale, 1]) @ np.array([[-0.3, 1], [-1, 0]])
        assert np.max(np.abs(np.linalg.eigvals(slow))) > 1
        if timescale >= 4:
            assert radius(optimize.two_timescale_extragradient(0.6, timescale, ascends=PAIR), value) < 1


@pytest.mark.parametrize(
    ("rate", "magnitude", "angle", "expected"),
    [
        (0.05, 0.9, 0, 1.1211),
        (0.05, 0.9, 1 / 8, 0.9857),
        (0.05, 0.9, 1 / 4, 0.9978),
        (0.1, 0.9, 1 / 8, 1.053),
        (0.1, 0.9, 1 / 4, 0.9912),
        (0.3, 0.9, 1 / 4, 1.139),
        (0.3, 0.7, 1 / 4, 0.946),
    ],
)
def test_radii_of_complex_momentum(x64, rate, magnitude, angle, expected):
    """Of six real numbers, by the eigenvalues of three complex ones: of z and of its memory."""
    rule = optimize.complex_momentum(rate, magnitude, angle * np.pi, ascends=PAIR)
    found = radius(rule, bilinear, memory=4)
    # On xy the field has eigenvalues ±i, for each of which (z, μ, its conjugate's part) is a matrix of three.
    beta = magnitude * np.exp(1j * angle * np.pi)
    whole = [
        [1 - rate * 1j, -rate * beta / 2, -rate * np.conj(beta) / 2],
        [1j, beta, 0],
        [1j, 0, np.conj(beta)],
    ]
    np.testing.assert_allclose(found, np.max(np.abs(np.linalg.eigvals(whole))), atol=1e-10)
    assert abs(found - expected) < 6e-4


def test_complex_momentum_is_a_sum_over_the_past(x64):
    """Σ rᵏ cos(kφ) g, and heavy ball at an angle of 0."""
    grads = np.random.default_rng(0).normal(size=7)
    rule = optimize.scale_by_complex_momentum(0.8, 0.6)
    state = rule.init(jnp.zeros(()))
    for g in grads:
        update, state = rule.update(jnp.asarray(g), state)
    k = np.arange(7)
    np.testing.assert_allclose(update, np.sum(0.8**k * np.cos(0.6 * k) * grads[::-1]), rtol=1e-12)
    plain, heavy = optimize.scale_by_complex_momentum(0.8, 0.0), optax.trace(0.8)
    states = plain.init(jnp.zeros(())), heavy.init(jnp.zeros(()))
    for g in grads:
        ours, first = plain.update(jnp.asarray(g), states[0])
        theirs, second = heavy.update(jnp.asarray(g), states[1])
        states = first, second
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("make", [optimize.extragradient, optimize.complex_momentum])
def test_players_are_told_apart_or_refused(make):
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(3)}}
    with pytest.raises(ValueError, match="ascends in a tree that the parameters' tree begins with"):
        make(0.1, ascends=(True, False)).init(params)
    with pytest.raises(ValueError, match="ascends, a tree of True and False, got"):
        make(0.1, ascends={"a": 1.0, "b": 0.0}).init(params)
    rule = make(0.1, ascends={"a": False, "b": True})
    update, _ = rule.update(params, rule.init(params), params, grad_fn=lambda p: (0.0, params))
    np.testing.assert_allclose(update["a"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(update["b"]["c"], 0.1, rtol=1e-6)


def test_a_module_of_booleans_is_a_tree_though_it_can_be_called(key):
    pair = eqx.nn.Linear(1, 1, key=key)
    flags = eqx.tree_at(lambda m: (m.weight, m.bias), pair, (False, True))
    value_and_grad = jax.value_and_grad(lambda m: jnp.sum(m.weight) * jnp.sum(m.bias))
    rule = optimize.extragradient(0.5, ascends=flags)
    z = eqx.tree_at(lambda m: (m.weight, m.bias), pair, (jnp.ones((1, 1)), jnp.zeros(1)))
    update, _ = rule.update(value_and_grad(z)[1], rule.init(z), z, grad_fn=value_and_grad)
    np.testing.assert_allclose([update.weight[0, 0], update.bias[0]], [-0.25, 0.5])


@pytest.mark.parametrize(
    ("grad_fn", "says"),
    [(jax.grad(bilinear), "is shaped like"), (lambda z: z[0], "a grad_fn that returns"), (2.0, "grad_fn, a function")],
)
def test_a_grad_fn_of_gradients_alone_is_refused(grad_fn, says):
    """The gradients of a pair are a pair as well."""
    rule, z = optimize.extragradient(0.1), (jnp.ones(()), jnp.ones(()))
    with pytest.raises(ValueError, match=says):
        rule.update(z, rule.init(z), z, grad_fn=grad_fn)
