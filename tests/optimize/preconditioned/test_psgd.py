"""What PSGD's metrics tend to, and what they do not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

KEY = jax.random.key(3)


def positive(size, condition, seed):
    random = np.random.default_rng(seed)
    q = np.linalg.qr(random.normal(size=(size, size)))[0]
    return (q * np.geomspace(1, condition, size)) @ q.T


def run(rule, gradients, start, **extra):
    """Updates of a stream of gradients, and the last state."""

    def step(state, g):
        update, state = rule.update(g, state, start, **extra)
        return state, (update, state)

    return jax.jit(lambda: jax.lax.scan(step, rule.init(start), gradients))()[1]


def dense(factors):
    """P as one matrix."""
    whole = functools.reduce(np.kron, [np.diag(q) if q.ndim == 1 else np.asarray(q) for q in factors])
    return whole.T @ whole


def test_newton_finds_the_inverse_of_a_curvature_with_factors(x64):
    a, b = positive(3, 20.0, 0), positive(3, 5.0, 1)
    start = jnp.zeros((3, 1, 3))
    rule = optimize.scale_by_psgd("newton", key=KEY)

    def product(v):
        return (a @ v[:, 0] @ b)[:, None]

    _, states = run(rule, jnp.ones((700, 3, 1, 3)), start, product_fn=product)
    metrics = [dense([q[i] for q in states.fits.factors]) for i in (60, 699)]
    errors = [np.abs(metric @ np.kron(a, b) - np.eye(9)).max() for metric in metrics]
    assert errors[0] > 0.1 and errors[1] < 1e-6, errors


def test_newton_finds_the_size_of_a_negative_curvature_and_a_long_axis_has_a_diagonal(x64):
    curvature = jnp.array([-3.0, 0.02, 50.0])
    rule = optimize.scale_by_psgd("newton", key=KEY)
    _, states = run(rule, jnp.ones((800, 3)), jnp.zeros(3), product_fn=lambda v: curvature * v)
    assert states.fits.factors[0].shape == (800, 3)
    np.testing.assert_allclose(states.fits.factors[0][-1] ** 2, 1 / np.abs(curvature), rtol=1e-5)


def test_whitening_tends_to_the_inverse_root_of_the_second_moment(x64):
    a, b = np.linalg.cholesky(positive(3, 9.0, 0)), np.linalg.cholesky(positive(3, 4.0, 1))
    gradients = a @ np.random.default_rng(2).normal(size=(4000, 3, 3)) @ b.T
    rule = optimize.scale_by_psgd(fit_rate=0.05, key=KEY)
    updates, states = run(rule, jnp.asarray(gradients), jnp.zeros((3, 3)))
    metric = np.mean([dense([q[i] for q in states.fits.factors]) for i in range(2000, 4000, 50)], axis=0)
    moment = np.kron(a @ a.T, b @ b.T)
    values, vectors = np.linalg.eigh(moment)
    for power, close in ((-0.5, True), (-1.0, False)):
        target = (vectors * values**power) @ vectors.T
        assert (np.linalg.norm(metric - target) / np.linalg.norm(target) < 0.12) == close
    whitened = np.asarray(updates[2000:]).reshape(-1, 9)
    np.testing.assert_allclose(whitened.T @ whitened / len(whitened), np.eye(9), atol=0.2)


def test_low_rank_finds_an_inverse_that_it_can_be(x64):
    random = np.random.default_rng(5)
    w, d = random.normal(size=(6, 1)), np.geomspace(0.3, 3, 6)
    root = (np.eye(6) + 0.5 * w @ w.T) * d
    curvature = jnp.asarray(np.linalg.inv(root.T @ root))
    rule = optimize.scale_by_psgd_low_rank(4, "newton", key=KEY)  # with one column it creeps
    start = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)}

    def product(v):
        found = curvature @ jnp.concatenate([v["a"].ravel(), v["b"]])
        return {"a": found[:4].reshape(2, 2), "b": found[4:]}

    gradients = jax.tree.map(lambda x: jnp.ones((8000, *x.shape)), start)
    _, states = run(rule, gradients, start, product_fn=product)
    u, v, diagonal, _ = jax.tree.map(lambda x: np.asarray(x[-1]), states.fit)
    q = (np.eye(6) + u @ v.T) * diagonal
    assert np.abs(q.T @ q @ curvature - np.eye(6)).max() < 1e-6


@pytest.mark.parametrize("make", [optimize.scale_by_psgd, functools.partial(optimize.scale_by_psgd_low_rank, 2)])
def test_the_gradients_unit_drops_out_and_the_key_does_not(x64, make):
    start = jnp.zeros((3, 4))

    @jax.jit
    def updates(gradients, key):
        rule = make(momentum=0.5, probability=0.7, key=key)

        def step(state, g):
            return rule.update(g, state, start)[::-1]

        return jax.lax.scan(step, rule.init(start), gradients)[1]

    gradients = jnp.asarray(np.random.default_rng(5).normal(size=(20, 3, 4)))
    one = updates(gradients, KEY)
    np.testing.assert_allclose(updates(1e5 * gradients, KEY), one, rtol=1e-4, atol=1e-6)
    assert np.abs(updates(gradients, jax.random.key(4)) - one).max() > 1e-3


def test_a_curvature_that_is_missing_is_named():
    for rule in (
        optimize.scale_by_psgd("newton", key=KEY),
        optimize.scale_by_psgd_low_rank(1, "newton", key=KEY),
    ):
        with pytest.raises(ValueError, match=r"product_fn=\.\.\. at the update of psgd"):
            rule.update(jnp.ones(3), rule.init(jnp.ones(3)), jnp.ones(3))
    with pytest.raises(ValueError, match="more parameters than the rank 10, got 3"):
        optimize.scale_by_psgd_low_rank(key=KEY).init(jnp.ones(3))
    with pytest.raises(ValueError, match="the criterion 'whitening' or 'newton'"):
        optimize.psgd(criterion="hessian", key=KEY)


def test_a_leaf_that_is_not_finite_at_the_first_fit_spoils_itself_alone():
    """The scale at which all begin is that of the others."""
    params = {"clean": jnp.ones((4, 3)), "other": jnp.ones((4, 3)), "broken": jnp.ones((4, 3))}
    grads = {**params, "other": 2 * params["other"]}
    rule, found = optimize.scale_by_psgd(key=jax.random.key(0)), {}
    for name, broken in (("nan", jnp.nan), ("zero", 0.0)):
        first = {**grads, "broken": jnp.full((4, 3), broken)}
        state = rule.init(params)
        for step in (first, grads):
            updates, state = rule.update(step, state, params)
        found[name] = updates
    for name in ("clean", "other"):
        np.testing.assert_allclose(found["nan"][name], found["zero"][name], rtol=1e-6)
        assert np.isfinite(found["nan"][name]).all()


def test_a_leaf_in_double_precision_keeps_its_range_beside_one_in_single(x64):
    params = {"single": jnp.ones((4, 3), jnp.float32), "double": jnp.ones((4, 3), jnp.float64)}
    grads = {"single": params["single"], "double": 1e60 * params["double"]}
    rule = optimize.scale_by_psgd(key=jax.random.key(0))
    state = rule.init(params)
    for _ in range(3):
        updates, state = rule.update(grads, state, params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
