"""Gradients of a variational bound against the closed forms of a Gaussian target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

KEY = jax.random.key(0)
DIM, COUNT = 5, 40_000
DRAWS = np.random.default_rng(0)
HALF = jnp.asarray(DRAWS.normal(size=(DIM, DIM)), jnp.float32)
HESSIAN = HALF @ HALF.T / DIM + jnp.eye(DIM)
MODE = jnp.arange(DIM) / DIM
SLOPES = {"softplus": jax.nn.sigmoid, "exponential": jnp.exp, "identity": jnp.ones_like}


def target(z):
    return (z - MODE) @ HESSIAN @ (z - MODE) / 2


def family(conditioner, full):
    lower = jnp.asarray(DRAWS.normal(size=(DIM, DIM)), jnp.float32) if full else None
    return estimate.LocationScale(jnp.ones(DIM), jnp.linspace(0.3, 1.0, DIM), lower, conditioner)


@pytest.mark.parametrize(("conditioner", "full"), [("softplus", True), ("exponential", False), ("identity", True)])
def test_mean_and_second_moments_are_those_of_a_gaussian_target(conditioner, full):
    at = family(conditioner, full)
    one = estimate.reparametrised_gradient(target)
    value, drawn = jax.jit(jax.vmap(lambda key: one(at, key=key)))(jax.random.split(KEY, COUNT))

    def bound(at):
        scale = at.scale() if full else jnp.diag(at.scale())
        _, size = jnp.linalg.slogdet(scale)
        return (
            target(at.location) + jnp.trace(scale.T @ HESSIAN @ scale) / 2 - size - DIM / 2 * np.log(2 * np.pi * np.e)
        )

    truth, exact = jax.value_and_grad(bound)(at)
    assert abs(value.mean() - truth) < 4 * value.std() / COUNT**0.5
    for found, wanted in zip(jax.tree.leaves(drawn), jax.tree.leaves(exact)):
        assert np.all(np.abs(found.mean(0) - wanted) < 4.5 * found.std(0) / COUNT**0.5 + 1e-6)
    # Variances entry by entry: a² + |B_i|² + 2 B_ij² less the mean B_ij squared.
    product = HESSIAN @ (at.scale() if full else jnp.diag(at.scale()))
    rows = (HESSIAN @ (at.location - MODE)) ** 2 + jnp.sum(product**2, axis=1)
    variances = rows[:, None] + product**2
    wanted = {"location": jnp.sum(product**2, axis=1)}
    wanted["diagonal"] = SLOPES[conditioner](at.diagonal) ** 2 * jnp.diag(variances)
    if full:
        wanted["lower"] = jnp.tril(variances, -1)
    for name, variance in wanted.items():
        np.testing.assert_allclose(getattr(drawn, name).var(0), variance, rtol=0.08, atol=1e-6)


def test_mean_field_is_quieter_by_a_third_of_the_dimension():
    """At the mode of a unit Gaussian with unit scale: 3 a number of mean field, d (d - 1) / 2 more below the diagonal."""
    keys = jax.random.split(KEY, COUNT)

    def moment(lower):
        at = estimate.LocationScale(jnp.zeros(DIM), jnp.ones(DIM), lower, "identity")
        grads = jax.jit(jax.vmap(lambda key: jax.grad(_energy)(at, key)))(keys)
        return sum(
            float(jnp.mean(jnp.sum(leaf.reshape(COUNT, -1) ** 2, axis=1)))
            for leaf in (grads.diagonal, grads.lower)
            if leaf is not None
        )

    assert moment(None) == pytest.approx(3 * DIM, rel=0.05)
    assert moment(jnp.zeros((DIM, DIM))) == pytest.approx(3 * DIM + DIM * (DIM - 1) / 2, rel=0.05)


def _energy(at, key):
    return jnp.sum(at.sample(1, key=key) ** 2) / 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one: one(jnp.ones(3), key=KEY), "LocationScale"),
        (lambda one: one(estimate.LocationScale(jnp.ones(3), jnp.ones(2)), key=KEY), "diagonal"),
        (lambda one: one(estimate.LocationScale(jnp.ones(3), jnp.ones(3), jnp.ones((3, 2))), key=KEY), "lower"),
        (lambda one: one(estimate.LocationScale(jnp.arange(3), jnp.ones(3)), key=KEY), "floats"),
        (lambda one: one(family("softplus", False)), "a key for"),
        (lambda one: estimate.LocationScale(jnp.ones(3), jnp.ones(3), None, "square"), "conditioner"),
        (
            lambda one: estimate.reparametrised_gradient(lambda z: z)(family("softplus", False), key=KEY),
            "one real number",
        ),
        (lambda one: estimate.reparametrised_gradient(target, draws=0), "draws"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call(estimate.reparametrised_gradient(target))
