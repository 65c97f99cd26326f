import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import classification_norms, importance_draw, importance_sampling

GRADS = jnp.array([[1.0, 0.0], [0.0, -2.0], [4.0, 3.0]])


def learnt(uniform):
    aggregator = importance_sampling(3, uniform=uniform)
    _, state = aggregator.update(GRADS, aggregator.init(GRADS[0]), indices=jnp.arange(3))
    return aggregator, state


def test_the_law_is_the_norms_and_the_mean_is_unbiased(x64):
    aggregator, state = learnt(0.2)
    p = 0.8 * np.array([1, 2, 5]) / 8 + 0.2 / 3
    np.testing.assert_allclose(state.probabilities, p, rtol=1e-6)
    total = np.zeros(2)
    for pair in itertools.product(range(3), repeat=2):  # every draw of two, with its probability
        updates, _ = aggregator.update(GRADS[jnp.array(pair)], state, indices=jnp.array(pair))
        total += p[pair[0]] * p[pair[1]] * np.asarray(updates)
    np.testing.assert_allclose(total, GRADS.mean(0), rtol=1e-6)


def test_no_law_has_a_smaller_variance(x64):
    aggregator, state = learnt(1e-9)
    grads, mean = np.asarray(GRADS, np.float64), np.asarray(GRADS, np.float64).mean(0)

    def variance(p):
        return sum(p[i] * np.sum((grads[i] / (3 * p[i]) - mean) ** 2) for i in range(3))

    grid = np.linspace(0.01, 0.98, 98)
    best = min(variance((a, b, 1 - a - b)) for a in grid for b in grid if a + b < 0.995)
    ours = variance(np.asarray(state.probabilities))
    # Closed form: (Σ‖g‖)² / N² - ‖mean‖².
    np.testing.assert_allclose(ours, 64 / 9 - mean @ mean, rtol=1e-6)
    assert ours <= best * (1 + 1e-9) and best < ours * 1.01 and ours < 0.7 * variance([1 / 3] * 3)


def test_unseen_items_count_as_average_and_draws_follow_the_law():
    aggregator = importance_sampling(4, uniform=0.1)
    state = aggregator.init(GRADS[0])
    np.testing.assert_allclose(state.probabilities, 0.25)
    _, state = aggregator.update(GRADS[1:], state, indices=jnp.array([0, 2]))  # norms 2 and 5
    np.testing.assert_allclose(state.probabilities, 0.9 * np.array([2, 3.5, 5, 3.5]) / 14 + 0.025, rtol=1e-5)
    drawn = importance_draw(state, 20_000, key=jax.random.key(0))
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, state.probabilities, atol=0.015)


def test_a_law_of_operations_weighs_paths_without_bias(x64):
    """Two edges, three operations, one law for both: every pair of paths, with its probability."""
    aggregator = importance_sampling(3, uniform=0.2)
    paths = jnp.array(list(itertools.product(range(3), repeat=2)))
    grads = jax.random.normal(jax.random.key(0), (9, 4), jnp.float64)
    own = jnp.array([[1.0, 3.0], [2.0, 5.0], [4.0, 0.0]])
    _, state = aggregator.update(
        grads[:3], aggregator.init(grads[0]), indices=jnp.array([[0, 1], [0, 0], [1, 2]]), norms=own
    )
    np.testing.assert_allclose(state.norms, [(1 + 2 + 5) / 3, (3 + 4) / 2, 0])
    p = 0.8 * np.array([8 / 3, 3.5, 0]) / (8 / 3 + 3.5) + 0.2 / 3
    np.testing.assert_allclose(state.probabilities, p, rtol=1e-6)
    total = 0
    for path, gradient in zip(paths, grads):
        updates, _ = aggregator.update(gradient[None], state, indices=path[None], norms=jnp.ones((1, 2)))
        total += p[path[0]] * p[path[1]] * np.asarray(updates)
    np.testing.assert_allclose(total, grads.mean(0), rtol=1e-6)


def test_a_falling_uniform_share_and_plain_means_as_in_the_authors_code():
    aggregator = importance_sampling(3, uniform=lambda count: 1 - count / 4, unbiased=False)
    state = aggregator.init(GRADS[0])
    for step in range(1, 5):
        updates, state = aggregator.update(GRADS, state, indices=jnp.arange(3))
        np.testing.assert_allclose(updates, GRADS.mean(0), rtol=1e-6)
        expected = step / 4 * np.array([1, 2, 5]) / 8 + (1 - step / 4) / 3
        np.testing.assert_allclose(state.probabilities, expected, rtol=1e-6)


def test_classification_norms_are_those_of_the_gradient_by_the_logits(x64):
    logits, labels = jax.random.normal(jax.random.key(0), (6, 4), jnp.float64), jnp.array([0, 3, 1, 1, 2, 0])
    slope = jax.vmap(jax.grad(lambda z, y: -jax.nn.log_softmax(z)[y]))(logits, labels)
    np.testing.assert_allclose(classification_norms(logits, labels), np.linalg.norm(slope, axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (jnp.ones((3, 4)), jnp.ones(3), r"labels of whole numbers, got f32\[3\]"),
        (jnp.ones((3, 4)), jnp.ones(2, int), r"labels of shape \[3\], got i32\[2\]"),
        (jnp.ones((3, 4)), jnp.ones((3, 1), int), r"labels of shape \[3\], got i32\[3,1\]"),
        (jnp.ones((3, 4)), jnp.array([0, 4, 1]), "labels from 0 to 3, got 4"),
        (jnp.ones(4), jnp.ones((), int), r"logits of shape \[…, …\], got f32\[4\]"),
        (jnp.ones((3, 4), int), jnp.ones(3, int), "logits of real floating-point numbers"),
    ],
)
def test_rows_of_logits_and_labels_fit_together(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_norms(logits, labels)


def test_items_without_gradient_leave_a_uniform_law():
    aggregator = importance_sampling(3)
    _, state = aggregator.update(0 * GRADS, aggregator.init(GRADS[0]), indices=jnp.arange(3))
    np.testing.assert_allclose(state.probabilities, 1 / 3, rtol=1e-6)


def test_faults():
    with pytest.raises(ValueError, match="uniform"):
        importance_sampling(3, uniform=0.0)
    aggregator = importance_sampling(3)
    with pytest.raises(ValueError, match="indices"):
        aggregator.update(GRADS, aggregator.init(GRADS[0]), indices=jnp.arange(2))
    for given, words in (
        ({"indices": jnp.zeros((3, 2), int)}, "norms"),
        ({"indices": jnp.zeros((3, 2), int), "norms": jnp.ones(3)}, r"one for each of the indices \(3, 2\)"),
        ({"indices": jnp.arange(3), "norms": jnp.ones(2)}, "one for each"),
    ):
        with pytest.raises(ValueError, match=words):
            aggregator.update(GRADS, aggregator.init(GRADS[0]), **given)
    for outside in (-1, 3):
        with pytest.raises(Exception, match="from 0 to 2"):
            aggregator.update(GRADS, aggregator.init(GRADS[0]), indices=jnp.array([0, 1, outside]))
