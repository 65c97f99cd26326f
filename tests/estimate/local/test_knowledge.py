"""Structured knowledge accumulation: what the entropies add up to, the update by hand, and time in units of ηk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(20, 6))
WEIGHTS = [(0.3 * DRAWS.normal(size=pair), 0.1 * DRAWS.normal(size=pair[1])) for pair in ((6, 5), (5, 4))]
RULE = estimate.knowledge_accumulation()


def run(rate, steps):
    weights = jax.tree.map(jnp.asarray, WEIGHTS)

    def step(carry, _):
        weights, state = carry
        found, grads, state = RULE.update(weights, state, jnp.asarray(X))
        return (jax.tree.map(lambda w, g: w - rate * g, weights, grads), state), found

    start = RULE.init(weights, jnp.asarray(X))
    (_, state), found = jax.jit(lambda c: jax.lax.scan(step, c, length=steps))((weights, start))
    return start, state, found


def binary_entropy(decisions):
    return np.array([np.sum(-d * np.log2(d) - (1 - d) * np.log2(1 - d)) for d in map(np.asarray, decisions)])


def test_entropies_add_up_to_the_change_of_the_decisions_own():
    errors = []
    for rate in (0.04, 0.02, 0.01):
        start, end, found = run(rate, round(20 / rate))
        change = binary_entropy(end.decisions) - binary_entropy(start.decisions)
        errors.append(np.abs(found.entropy.sum(0) - change))
        assert np.all(change < -3)
    # A sum of rectangles: its error halves with the step.
    np.testing.assert_allclose(errors[0] / errors[1], 2, atol=0.15)
    np.testing.assert_allclose(errors[1] / errors[2], 2, atol=0.1)
    assert np.all(errors[2] < 0.01 * np.abs(change))


def test_the_update_by_hand():
    weights = jax.tree.map(jnp.asarray, WEIGHTS)
    state = RULE.init(weights, jnp.asarray(X))
    found, grads, _ = RULE.update(weights, state, jnp.asarray(X))
    # Nothing has moved at the first step.
    assert not np.any(found.entropy) and not np.any(found.net)
    moved = jax.tree.map(lambda w: w + 0.1, weights)
    found, grads, after = RULE.update(moved, state, jnp.asarray(X))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    lower = sigmoid(X @ WEIGHTS[0][0] + WEIGHTS[0][1])
    upper = sigmoid(lower @ WEIGHTS[1][0] + WEIGHTS[1][1])
    z1 = X @ (WEIGHTS[0][0] + 0.1) + WEIGHTS[0][1] + 0.1
    z2 = sigmoid(z1) @ (WEIGHTS[1][0] + 0.1) + WEIGHTS[1][1] + 0.1
    for number, (z, before, below) in enumerate(((z1, lower, X), (z2, upper, lower))):
        d = sigmoid(z)
        slope = -(z * d * (1 - d) + d - before) / np.log(2)
        np.testing.assert_allclose(grads[number][0], below.T @ slope / 20, rtol=1e-10)
        np.testing.assert_allclose(grads[number][1], slope.mean(0), rtol=1e-10)
        assert float(found.entropy[number]) == pytest.approx(-np.sum(z * (d - before)) / np.log(2), rel=1e-10)
        old = np.log(before / (1 - before))
        assert float(found.net[number]) == pytest.approx(np.sum((d - slope) * (z - old)), rel=1e-8)
        np.testing.assert_allclose(after.decisions[number], d, rtol=1e-12)


def test_time_is_the_rate_times_the_number_of_steps():
    curves = [np.asarray(run(rate, round(8 / rate))[2].entropy.sum(1)) for rate in (0.08, 0.04, 0.02)]
    # The entropy of one step is proportional to the rate: what is compared is the entropy per unit of time.
    coarse, middle, fine = (np.add.reduceat(curve, np.arange(0, len(curve), len(curve) // 20)) for curve in curves)
    first, second = np.abs(coarse - middle).max(), np.abs(middle - fine).max()
    assert first / second == pytest.approx(2, abs=0.4) and second < 0.1 * np.abs(fine).max()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RULE.init([jnp.ones((2, 2))], jnp.ones((3, 2))), "pairs"),
        (lambda: RULE.init(WEIGHTS, jnp.ones((3, 5))), "x of shape"),
        (lambda: RULE.update(WEIGHTS, RULE.init(WEIGHTS, X), X[:4]), "a state"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
