"""Projections onto guesses, and means over keys with errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

KEY = jax.random.key(0)
PARAMS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([[0.3, 2.0]])}


def loss(p):
    return jnp.sum(jnp.sin(p["a"])) + jnp.sum(p["b"] ** 3)


TRUTH = jax.grad(loss)(PARAMS)


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def guessed(guess, **options):
    return estimate.guessed_gradient(loss, lambda params, key: guess, **options)(PARAMS, key=KEY)[1]


@pytest.mark.parametrize("by_leaf", [False, True])
@pytest.mark.parametrize("length", [1e-12, 1.0, 1e12])
def test_the_gradient_as_guess_is_returned_at_any_length(by_leaf, length):
    found = guessed(jax.tree.map(lambda g: length * g, TRUTH), by_leaf=by_leaf)
    np.testing.assert_allclose(flat(found), flat(TRUTH), rtol=1e-5)


def test_a_guess_at_right_angles_or_zero_gives_zero():
    across = {"a": jnp.zeros(3), "b": jnp.array([[TRUTH["b"][0, 1], -TRUTH["b"][0, 0]]])}
    assert np.abs(flat(guessed(across))).max() < 1e-5
    assert not flat(guessed(jax.tree.map(jnp.zeros_like, TRUTH))).any()


def test_a_projection_never_climbs_and_the_span_holds_what_lies_in_it():
    random = np.random.default_rng(0)
    guess = jax.tree.map(lambda g: jnp.asarray(random.normal(size=(3, *g.shape)), jnp.float32), TRUTH)
    for several in (jax.tree.map(lambda g: g[0], guess), guess):
        found = flat(guessed(several))
        assert found @ flat(TRUTH) == pytest.approx(found @ found, rel=1e-4)
        assert np.linalg.norm(found) < np.linalg.norm(flat(TRUTH))
    spanning = jax.tree.map(lambda g, r: jnp.stack([r, g + r, r]), TRUTH, jax.tree.map(lambda g: g[0], guess))
    np.testing.assert_allclose(flat(guessed(spanning)), flat(TRUTH), rtol=1e-3)


def test_by_leaf_each_leaf_is_projected_alone():
    guess = {"a": TRUTH["a"], "b": -2.0 * TRUTH["b"]}
    np.testing.assert_allclose(flat(guessed(guess, by_leaf=True)), flat(TRUTH), rtol=1e-5)
    assert np.abs(flat(guessed(guess)) - flat(TRUTH)).max() > 0.1


def test_a_guess_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="a guess that"):
        guessed({"a": jnp.ones(2), "b": jnp.ones((1, 2))})


def test_mean_and_error_are_those_of_the_draws():
    function = estimate.forward_gradient(loss)
    many = estimate.average(function, probes=7, errors=True)
    value, grads = jax.jit(lambda p: many(p, key=KEY))(PARAMS)
    draws = [function(PARAMS, key=key)[1] for key in jax.random.split(KEY, 7)]
    assert float(value) == pytest.approx(float(loss(PARAMS)), rel=1e-6)
    for name in PARAMS:
        stacked = np.stack([draw[name] for draw in draws]).astype(np.float64)
        np.testing.assert_allclose(grads[name].value, stacked.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(grads[name].standard_error, stacked.std(0, ddof=1) / np.sqrt(7), rtol=1e-4)
    with pytest.raises(ValueError, match="probes"):
        estimate.average(function, probes=1, errors=True)


def test_seeds_are_not_averaged():
    """The mean of slopes along one key's directions, which is what they would become, is no gradient."""
    seeded = estimate.average(estimate.seed_replay(loss), probes=4)
    with pytest.raises(ValueError, match="seed_replay"):
        seeded(PARAMS, key=KEY)
