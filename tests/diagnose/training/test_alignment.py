"""Estimators whose bias and variance are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import diagnose, estimate

KEY = jax.random.key(0)
PARAMS = {"a": jnp.arange(1.0, 6.0), "b": jnp.ones((2, 3))}


def loss(p):
    return jnp.sum(p["a"] ** 2) + jnp.sum(jnp.sin(p["b"]))


def exact(loss):
    return lambda params, key: jax.value_and_grad(loss)(params)


def biased(loss, noise=0.5):
    """Half of the gradient, and Gaussian noise of known variance."""

    def function(params, *, key):
        value, grads = jax.value_and_grad(loss)(params)
        draws = jax.tree.map(
            lambda g, k: noise * jax.random.normal(k, g.shape), grads, dict(zip("ab", jax.random.split(key)))
        )
        return value, jax.tree.map(lambda g, n: 0.5 * g + n, grads, draws)

    return function


def within(estimate, truth, errors=4.0):
    return abs(float(estimate.value) - truth) < errors * float(estimate.standard_error)


def test_the_gradient_itself_is_perfect_also_where_it_takes_no_key():
    found = diagnose.alignment({"exact": exact, "backprop": jax.value_and_grad}, loss, PARAMS, key=KEY, draws=4)
    for one in found.estimators.values():
        assert float(one.cosine.value) == pytest.approx(1, abs=1e-6)
        assert float(one.slope.value) == pytest.approx(1, abs=1e-6)
        assert abs(float(one.relative_bias.value)) < 1e-10 and abs(float(one.relative_variance.value)) < 1e-10
        assert set(one.layers) == {"['a']", "['b']"}
        assert one.seconds > 0 and one.bytes > 0


def test_bias_and_variance_come_out_as_they_are_for_the_tree_and_its_layers():
    found = diagnose.alignment({"half": biased}, loss, PARAMS, key=KEY, draws=400).estimators["half"]
    square = {"a": float(jnp.sum((2 * PARAMS["a"]) ** 2)), "b": 6 * float(jnp.cos(1.0)) ** 2}
    total = sum(square.values())
    assert (
        within(found.slope, 0.5)
        and within(found.relative_bias, 0.25)
        and within(found.relative_variance, 11 * 0.25 / total)
    )
    for name, size in (("a", 5), ("b", 6)):
        _, slope, bias, variance = found.layers[f"['{name}']"]
        assert within(slope, 0.5) and within(bias, 0.25) and within(variance, size * 0.25 / square[name])


def test_the_errors_of_bias_and_variance_cover_at_their_rate():
    """Of 400 repetitions of the default 32 draws without bias, about 94 in a hundred lie within two errors."""
    gradient = np.ones(6)

    def one(seed):
        rows = gradient + np.random.default_rng(seed).normal(size=(32, 6))
        _, slope, bias, variance = diagnose._training._alignment._numbers([rows], [gradient])
        return [within(slope, 1.0, 2.0), within(bias, 0.0, 2.0), within(variance, 1.0, 2.0)]

    shares = np.mean([one(seed) for seed in range(400)], axis=0)
    assert np.all(shares > 0.9)


def test_forward_gradients_have_the_variance_of_their_directions():
    makes = {
        "gaussian": estimate.forward_gradient,
        "signs, 4 probes": functools.partial(estimate.forward_gradient, directions="rademacher", probes=4),
    }
    found = diagnose.alignment(makes, loss, PARAMS, key=KEY, draws=1000).estimators
    assert within(found["gaussian"].relative_variance, 12.0)  # d + 1
    assert within(found["signs, 4 probes"].relative_variance, 10 / 4)  # (d - 1) / m
    assert all(within(one.relative_bias, 0.0) for one in found.values())


def test_the_table_names_estimators_and_layers():
    found = diagnose.alignment({"exact": exact}, loss, PARAMS, key=KEY, draws=4)
    text = found.table(layers=True)
    assert "| exact | 1" in text and "| · ['a'] |" in text and len(text.splitlines()) == 5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: diagnose.alignment({"x": exact}, loss, PARAMS, key=0), "random key"),
        (lambda: diagnose.alignment({"x": exact}, loss, PARAMS, key=KEY, draws=2), "draws"),
        (lambda: diagnose.alignment({"x": 3}, loss, PARAMS, key=KEY), "not yet called"),
        (lambda: diagnose.alignment({"x": exact}, lambda p: jnp.sum(p * 0), jnp.ones(3), key=KEY), "not zero"),
        (lambda: diagnose.alignment({"x": lambda l: lambda p, key: (0.0, p["a"])}, loss, PARAMS, key=KEY), "leaves"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
