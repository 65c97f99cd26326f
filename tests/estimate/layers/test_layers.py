"""Sketched gradients by their moments, metrics as losses by scikit-learn and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from nablax import estimate

DRAWS = np.random.default_rng(0)
X = jnp.asarray(DRAWS.normal(size=(12, 5)), jnp.float32)
G = jnp.asarray(DRAWS.normal(size=(12, 3)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 40_000)


def layer(**options):
    return estimate.RandomisedLinear(5, 3, key=jax.random.key(1), **{"share": 0.5, **options})


def gradients(made, key):
    return jax.grad(lambda made, x: jnp.sum(made(x, key=key) * G), argnums=(0, 1))(made, X)


@pytest.mark.parametrize("sketch", ["gaussian", "rademacher", "rows"])
def test_the_weight_gradient_is_unbiased_with_the_variance_of_its_sketch_and_the_others_are_exact(sketch):
    made = layer(sketch=sketch)
    drawn = jax.jit(jax.vmap(lambda key: gradients(made, key)[0].weight))(KEYS)
    drawn, truth = np.asarray(drawn, np.float64), np.asarray(G.T @ X, np.float64)
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - truth) < 4.5 * error)
    squares = np.sum((drawn - truth) ** 2, axis=(1, 2))
    lengths = np.sum(np.asarray(X) ** 2, 1) * np.sum(np.asarray(G) ** 2, 1)
    expected = (float(jnp.sum(X**2) * jnp.sum(G**2)) + float(np.sum(truth**2))) / 6
    if sketch == "rademacher":
        expected -= 2 * lengths.sum() / 6
    if sketch == "rows":  # without replacement: the variance of a sum over a sample of 6 of 12
        expected = 12 * 12 / 6 * (1 - 6 / 12) * (lengths.sum() - np.sum(truth**2) / 12) / 11
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(len(squares))
    one, inputs = gradients(made, KEYS[0])
    np.testing.assert_allclose(one.bias, G.sum(0), rtol=1e-5)
    np.testing.assert_allclose(inputs, G @ made.weight, rtol=1e-5)


def test_all_rows_give_the_gradient_and_the_forward_pass_is_that_of_a_dense_layer():
    made = layer(share=1.0, sketch="rows")
    np.testing.assert_allclose(gradients(made, KEYS[0])[0].weight, G.T @ X, rtol=1e-5)
    np.testing.assert_allclose(made(X, key=KEYS[0]), X @ made.weight.T + made.bias[None], rtol=1e-5)
    assert not np.allclose(gradients(layer(), KEYS[0])[0].weight, gradients(layer(), KEYS[1])[0].weight)


def test_a_share_of_the_inputs_is_kept_for_the_backward_pass():
    def kept(made):
        _, back = jax.vjp(lambda made, x: made(x, key=KEYS[0]), made, jnp.ones((1000, 5)))
        return sum(leaf.size for leaf in jax.tree.leaves(back) if hasattr(leaf, "size"))

    weight = 15
    assert kept(layer(share=0.1)) <= 100 * 5 + 2 * weight + 10
    assert kept(layer(share=1.0)) >= 1000 * 5


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("accuracy", metrics.accuracy_score),
        ("f1", metrics.f1_score),
        ("balanced accuracy", metrics.balanced_accuracy_score),
        (
            "geometric mean",
            lambda y, p: np.sqrt(metrics.recall_score(y, p) * metrics.recall_score(y, p, pos_label=0)),
        ),
    ],
)
def test_a_steep_metric_is_the_metric_at_one_half(name, score):
    y = DRAWS.random(200) < 0.3
    p = np.where(np.abs(q := DRAWS.random(200) - 0.5) < 0.05, 0.6, q + 0.5)
    loss = estimate.metric_loss(name, slope=1e4)(jnp.asarray(p, jnp.float32), jnp.asarray(y))
    assert float(loss) == pytest.approx(1 - score(y, p > 0.5), abs=1e-5)


def test_the_gradient_is_the_one_by_hand_and_user_metrics_work(x64):
    y, p = jnp.array([1, 0, 0, 1, 0]), jnp.array([0.55, 0.48, 0.51, 0.5, 0.45])
    sharp = jax.nn.sigmoid(73 * (p - 0.5))
    total, true = jnp.sum(y) + jnp.sum(sharp), jnp.sum(y * sharp)
    by_hand = -2 * (y * total - true) / total**2 * 73 * sharp * (1 - sharp)
    np.testing.assert_allclose(jax.grad(estimate.metric_loss("f1"))(p, y), by_hand, rtol=1e-10)
    own = estimate.metric_loss(lambda tp, fp, fn, tn: tp / (tp + fn))
    assert float(own(p, y)) == pytest.approx(float(1 - true / 2))
    nothing = jax.value_and_grad(estimate.metric_loss("balanced accuracy"))(p, jnp.zeros(5, int))
    assert np.isfinite(nothing[0]) and np.all(np.isfinite(nothing[1]))
    flat = jax.grad(estimate.metric_loss("geometric mean"))(jnp.zeros(3), jnp.array([1, 1, 0]))
    assert np.all(np.isfinite(flat))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layer(share=0.0), "share above 0"),
        (lambda: layer(sketch="dct"), "sketch among"),
        (lambda: layer()(X[0], key=KEYS[0]), "without jax.vmap"),
        (lambda: layer()(X, key=0), "random key"),
        (lambda: estimate.metric_loss("auc"), "a metric among"),
        (lambda: estimate.metric_loss(lambda tp: tp), "4 arguments"),
        (lambda: estimate.metric_loss("f1")(jnp.ones(3), jnp.ones((3, 1))), "labels of shape"),
        (lambda: estimate.metric_loss("f1")(jnp.ones(3, int), jnp.ones(3)), "probabilities"),
        (lambda: estimate.metric_loss("f1")(jnp.ones(2), [1, 0]), "labels of shape"),
        (lambda: estimate.metric_loss("f1")(jnp.array([4.0, -3.0]), jnp.array([1, 0])), "probabilities from 0 to 1"),
        (lambda: jax.grad(estimate.metric_loss("f1"))(jnp.ones(2), jnp.array([1, -1])), "labels of 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
