"""Shapley's axioms, gradients that sum to the whole, and coefficients as the authors' code computes them for two."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import regulate


def game(inputs):
    """Modality 1 and 2 enter alike, the fourth not at all; products make them interact."""
    a, b, c, _ = inputs
    return jnp.stack([a * b * c + a + b, jnp.tanh(a + b) * c])


def test_shapley_axioms_and_the_average_over_orders(x64):
    inputs = tuple(jnp.asarray(v) for v in (0.7, 0.7, -1.3, 2.0))
    responses = jax.jit(lambda x: regulate.modality_responses(game, x))(inputs)
    np.testing.assert_allclose(responses.sum(0), game(inputs), atol=1e-14)  # efficiency
    np.testing.assert_allclose(responses[0], responses[1], atol=1e-14)  # symmetry
    np.testing.assert_allclose(responses[3], 0, atol=1e-14)  # dummy
    average = np.zeros((4, 2))
    for order in itertools.permutations(range(4)):
        present = [0.0] * 4
        for player in order:
            before = np.asarray(game(present)) if any(present) else 0
            present[player] = inputs[player]
            average[player] += np.asarray(game(present)) - before
    np.testing.assert_allclose(responses, average / math.factorial(4), atol=1e-13)


def test_the_empty_model_counts_for_nothing_so_that_two_are_as_in_the_paper():
    def f(x):
        return x[0] * x[1] + 3 * x[0] + 5.0

    both, first, second = f((1.0, 2.0)), f((1.0, 0.0)), f((0.0, 2.0))
    expected = [(both - second + first) / 2, (both - first + second) / 2]
    np.testing.assert_allclose(regulate.modality_responses(f, (1.0, 2.0)), expected)
    with pytest.raises(ValueError, match="modalities"):
        regulate.modality_responses(f, tuple(range(9)))


def test_gradients_sum_to_the_whole_and_alpha_zero_sums_them(x64, key):
    params = {"a": jax.random.normal(key, (3, 4)), "b": jnp.ones(3)}
    inputs = (jax.random.normal(jax.random.key(1), (5, 4)), jax.random.normal(jax.random.key(2), (5, 3)))

    def predict(params, inputs):
        return jnp.tanh(inputs[0] @ params["a"].T + inputs[1]) * params["b"][None]

    def loss(outputs, target):
        return jnp.mean((outputs - target) ** 2)

    target = jnp.ones((5, 3))
    function = jax.jit(regulate.modality_value_and_grad(predict, loss))
    value, scores, gradients = function(params, inputs, target)
    exact, whole = jax.value_and_grad(lambda p: loss(predict(p, inputs), target))(params)
    np.testing.assert_allclose(value, exact)
    regulator = regulate.modality_modulation(2, alpha=0.0)
    state = regulator.init(params)
    for _ in range(2):
        updates, state = regulator.update(gradients, state, params, scores=scores, unknown=1)
    for name in params:
        np.testing.assert_allclose(updates[name], whole[name], atol=1e-14)


def test_coefficients_are_those_of_the_two_modality_rule(x64):
    regulator = regulate.modality_modulation(2, alpha=0.7)
    state, history = regulator.init(jnp.zeros(1)), np.random.default_rng(0).normal(size=(6, 2))
    gradients = jnp.array([[2.0], [-3.0]])
    for step, scores in enumerate(history):
        updates, state = regulator.update(gradients, state, scores=jnp.asarray(scores))
        usual = history[: max(step, 1)].mean(0)
        ratio = np.exp([scores[1] - scores[0], scores[0] - scores[1]])
        usual_ratio = np.exp([usual[1] - usual[0], usual[0] - usual[1]])
        expected = np.exp(0.7 * (usual_ratio - ratio))
        np.testing.assert_allclose(state.coefficients, expected)
        np.testing.assert_allclose(updates, [2 * expected[0] - 3 * expected[1]])
    np.testing.assert_allclose(state.scores, history.mean(0))
    for arguments in ((1,), (2, -1.0)):
        with pytest.raises(ValueError, match="two or more"):
            regulate.modality_modulation(*arguments)
    with pytest.raises(ValueError, match="scores"):
        regulator.update(gradients, state)


def test_coefficients_stay_finite_whatever_the_losses():
    regulator = regulate.modality_modulation(2, alpha=1.0)
    state = regulator.init(jnp.zeros(1))
    for scores, expected in (([0.0, 200.0], [1.0, 1.0]), ([200.0, 0.0], [np.exp(10.0), 0.0])):
        _, state = regulator.update(jnp.ones((2, 1)), state, scores=jnp.array(scores))
        np.testing.assert_allclose(state.coefficients, expected, rtol=1e-5)


def test_competition_is_nil_for_a_linear_concept_and_one_for_noise(x64, key):
    features, noise = jax.random.normal(key, (2, 400, 5))
    concept = jnp.concatenate([features @ jnp.arange(10.0).reshape(5, 2) + 3, noise[:, :2]], axis=1)
    measure = jax.jit(
        lambda c: regulate.modality_competition(features[:200], c[:200], features[200:], c[200:], ridge=1e-9)
    )
    assert measure(concept[:, :2]) < 1e-12
    assert abs(measure(concept[:, 2:]) - 1) < 0.1
    # Half of the concept's energy in the features.
    assert abs(measure(features[:, :1] + noise[:, :1]) - 0.5) < 0.1


def test_competition_is_of_rows_and_columns_that_fit():
    whole = (jnp.ones((8, 2)), jnp.ones((8, 3)), jnp.ones((5, 2)), jnp.ones((5, 3)))
    for place, shape, words in (
        (1, (7,), r"a concept of shape \[8, …\], got f32\[7\]"),
        (1, (1, 3), r"a concept of shape \[8, …\], got f32\[1,3\]"),
        (2, (5, 1), r"features of tests of shape \[…, 2\], got f32\[5,1\]"),
        (3, (5,), r"a concept of tests of shape \[5, 3\], got f32\[5\]"),
        (3, (1, 3), r"a concept of tests of shape \[5, 3\], got f32\[1,3\]"),
    ):
        given = [jnp.ones(shape) if here == place else one for here, one in enumerate(whole)]
        with pytest.raises(ValueError, match=words):
            regulate.modality_competition(*given)
    with pytest.raises(ValueError, match="expected ridge, a finite number at least 0, got -1"):
        regulate.modality_competition(*whole, ridge=-1.0)
